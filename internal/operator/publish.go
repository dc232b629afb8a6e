package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Choice selects identities that are not retired.
type Choice struct {
	Identities []string           // empty: all
	Suite      *ciphersuite.Suite // nil: any
}

// PublishRequest asks for key packages to be published.
type PublishRequest struct {
	Choice
	Directory string // empty: the identity's by the config
	Count     int    // at most, of each identity, beside those of last resort; 0: all
	// Each receives the outcome of each key package; it may be nil. An error ends the run.
	Each func(Published) error
}

// PublishResult is what a run has published, even if it failed.
type PublishResult struct {
	Published, Failed uint64
	Took              time.Duration
}

// ErrHeldBack warns of key packages that are not published because their private keys are for a
// device.
var ErrHeldBack = errors.New("held back until the devices confirm that they have the private keys")

// Publish sends available key packages to directories. What an earlier run could not send goes
// first, with the same bytes. The error is ErrUnpublished if a directory did not accept all.
func (o *Operator) Publish(ctx context.Context, r PublishRequest) (PublishResult, error) {
	records, err := o.choose(ctx, r.Choice)
	if err != nil {
		return PublishResult{}, err
	}
	run := o.newPublication(r.Each)
	err = run.identities(ctx, records, r.Directory, r.Count)
	result := PublishResult{run.published, run.failed, o.now().Sub(run.start)}
	if err == nil {
		err = o.heldBack(ctx, records)
	}
	return result, err
}

// identities publishes the key packages of identities.
func (p *publication) identities(ctx context.Context, records []store.Identity, directory string, count int) error {
	for i := range records {
		dir, err := p.directory(directory, records[i].Name)
		if err == nil {
			err = p.all(ctx, &records[i], dir, count)
		}
		if err != nil {
			return errors.Join(err, p.giveBack(context.WithoutCancel(ctx)))
		}
	}
	return p.finish(ctx)
}

// Publication is the outcome of the key packages of one identity.
type Publication struct {
	Directory string
	Sent      []Published
}

// Publishable returns how many key packages of an identity can be published, without those of last
// resort.
func (o *Operator) Publishable(ctx context.Context, name string) (n uint64, err error) {
	stock, err := o.store.Stock(ctx, name)
	for _, k := range stock {
		if !k.LastResort && (k.State == store.Available || k.State == store.Pending) {
			n += k.Count
		}
	}
	return n, err
}

// PublishSome publishes at most n key packages of an identity, and those of last resort. If ctx
// ends, the rest stays pending; that is not an error.
func (o *Operator) PublishSome(ctx context.Context, name, directory string, n int) (Publication, error) {
	record, err := o.record(ctx, name)
	if err == nil {
		err = requireSigning(&record)
	}
	if err != nil {
		return Publication{}, err
	}
	dir, err := o.directory(directory, record.Name)
	if err != nil {
		return Publication{}, err
	}
	out := Publication{Directory: dir.Name}
	run := o.newPublication(func(p Published) error { out.Sent = append(out.Sent, p); return nil })
	if n > 0 {
		err = run.some(ctx, dir, store.Dispatch{Identity: record.Name, N: n}, &record)
	}
	if err == nil {
		err = run.some(ctx, dir, store.Dispatch{Identity: record.Name, LastResort: true}, &record)
	}
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return out, errors.Join(err, run.giveBack(context.WithoutCancel(ctx)))
}

// choose returns the records of the identities that a Choice selects.
func (o *Operator) choose(ctx context.Context, c Choice) ([]store.Identity, error) {
	var records []store.Identity
	for _, name := range c.Identities {
		record, err := o.record(ctx, name)
		if err == nil {
			err = requireSigning(&record)
		}
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	if len(records) == 0 {
		var err error
		if records, err = o.store.Identities(ctx); err != nil {
			return nil, err
		}
	}
	var chosen []store.Identity
	for _, r := range records {
		if r.RetiredAt.IsZero() && (c.Suite == nil || uint16(c.Suite.ID) == r.Suite) {
			chosen = append(chosen, r)
		}
	}
	return chosen, nil
}

// Errors of the name of a directory.
var (
	ErrNoDirectory = errors.New("there is no such directory in the config")
	// ErrSeveral reports that none is named, and that there are several.
	ErrSeveral error = &act.RequestError{Text: "the config has several directories, and none is named"}
)

// directory returns the directory with a name, or the identity's if the name is empty.
func (o *Operator) directory(name, identity string) (config.Directory, error) {
	if name == "" {
		name = o.settings.ReplenishOf(identity).Directory
	}
	dir, ok := o.settings.DirectoryOf(name)
	switch {
	case ok:
		return dir, nil
	case name == "" && len(o.settings.Directories) > 1:
		return dir, ErrSeveral
	case name == "":
		return dir, fmt.Errorf("publish: %w", ErrNoDirectory)
	}
	return dir, fmt.Errorf("directory %q: %w", name, ErrNoDirectory)
}

// heldBack warns of key packages of identities that are not published yet because their private
// keys are for a device.
func (o *Operator) heldBack(ctx context.Context, records []store.Identity) error {
	chosen := make(map[string]bool, len(records))
	for i := range records {
		chosen[records[i].Name] = true
	}
	n := 0
	for k, err := range o.store.KeyPackages(ctx, store.Filter{State: store.Available, Unconfirmed: true}) {
		if err != nil {
			return err
		}
		if chosen[k.Identity] {
			n++
		}
	}
	if n > 0 {
		o.warnf("%s %w", Plural(n, "key package"), ErrHeldBack)
	}
	return nil
}
