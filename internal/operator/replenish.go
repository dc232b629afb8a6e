package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// ReplenishRequest asks for enough key packages in directories.
type ReplenishRequest struct {
	Choice
	Directory string // empty: the identity's by the config
	DryRun    bool   // only find out what would be done
	// Each receives the outcome of each identity; it may be nil. An error ends the run.
	Each func(Replenished) error
}

// Replenished is what was found and done for an identity in a directory.
type Replenished struct {
	Identity, Directory string
	Level               uint64 // before: published or being sent, valid for long enough and not known to be used
	Available           uint64 // before
	Low, High           uint64 // the marks
	Generated           uint64 // in a dry run: would be
	Published           uint64 // in a dry run: would be
	LastResort          bool   // one of last resort was due
	Elsewhere           bool   // another run is working on it, and nothing was done here
}

// Replenish fills up what directories have of identities: if the level of one is below its low
// mark, key packages are published until it is at its high mark, available ones first, then new
// ones. An identity that cannot be replenished does not stop the others, unless the token, or the
// request, is the reason.
func (o *Operator) Replenish(ctx context.Context, r ReplenishRequest) error {
	records, err := o.choose(ctx, r.Choice)
	if err != nil {
		return err
	}
	if !r.DryRun {
		if err := o.tidy(ctx); err != nil {
			return err
		}
	}
	run := o.newPublication(nil)
	var faults []error
	for i := range records {
		waiting, err := awaitsCertificate(&records[i])
		if err == nil && !waiting {
			err = run.replenish(ctx, &r, &records[i])
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("identity %q: %w", records[i].Name, err))
		}
		if ctx.Err() != nil || endsAll(err) {
			break
		}
	}
	return errors.Join(append(faults, run.finish(ctx))...)
}

// awaitsCertificate reports an identity that signs nothing yet, until it has a certificate.
func awaitsCertificate(record *store.Identity) (bool, error) {
	credential, err := keypackage.ParseCredential(record.Credential)
	if err != nil {
		return false, fmt.Errorf("read stored credential: %w", err)
	}
	return credential.Type == keypackage.CredentialX509 && len(credential.Certificates) == 0, nil
}

// replenish fills up one identity, while it holds the lease for that.
func (p *publication) replenish(ctx context.Context, r *ReplenishRequest, record *store.Identity) error {
	dir, err := p.directory(r.Directory, record.Name)
	if err != nil || p.down[dir.Name] { // a failure of the directory was reported before
		return err
	}
	one := &replenishment{publication: p, record: record, dir: dir, goal: p.settings.ReplenishOf(record.Name), now: p.now()}
	if r.DryRun {
		if err := one.measure(ctx); err != nil {
			return err
		}
		one.plan()
	} else if err := one.leased(ctx); err != nil {
		return err
	}
	if r.Each == nil {
		return nil
	}
	return r.Each(one.done)
}

// leased does the work for an identity and a directory, if no other run is doing it.
func (r *replenishment) leased(ctx context.Context) error {
	holding, giveBack, err := r.lease(ctx, fmt.Sprintf("replenish %q in %q", r.record.Name, r.dir.Name))
	if errors.Is(err, store.ErrHeld) {
		r.done.Elsewhere = true
		return nil
	}
	if err != nil {
		return err
	}
	defer giveBack()
	if err := r.run(holding); err != nil {
		return err
	}
	if ctx.Err() == nil && holding.Err() != nil {
		return context.Cause(holding) // another run may be working on it by now
	}
	return nil
}

// replenishment fills up one identity in one directory.
type replenishment struct {
	*publication
	record *store.Identity
	dir    config.Directory
	goal   config.Replenish
	now    time.Time
	after  time.Time // when what counts is still valid

	level   store.Level
	bound   bool     // its private keys belong to a device: nothing is made for it here
	old     [][]byte // of last resort, which another replaces
	making  uint64
	sending uint64
	done    Replenished
}

// setAfter sets the time at which a key package must still be valid to count. It is no later than
// half of the lifetime of a key package made now: otherwise nothing new would count, and each run
// would make more.
func (r *replenishment) setAfter() error {
	end := r.now.Add(time.Duration(r.settings.KeyPackages.Lifetime))
	credential, err := keypackage.ParseCredential(r.record.Credential)
	if err != nil {
		return fmt.Errorf("read stored credential of %q: %w", r.record.Name, err)
	}
	if len(credential.Certificates) > 0 {
		chain, err := certificate.Parse(credential.Certificates)
		if err != nil {
			return err
		}
		if _, ends := chain.Validity(); ends.Before(end) {
			end = ends
		}
	}
	r.after = r.now.Add(min(time.Duration(r.goal.Ending), max(end.Sub(r.now)/2, 0)))
	return nil
}

// run does the work.
func (r *replenishment) run(ctx context.Context) error {
	if err := r.some(ctx, r.dir, store.Dispatch{Identity: r.record.Name, Resume: true}, r.record); err != nil {
		return err
	}
	if err := r.measure(ctx); err != nil {
		return err
	}
	r.plan()
	r.done.Generated, r.done.Published = 0, 0
	if r.down[r.dir.Name] {
		r.done.LastResort = false
		return nil // nothing is made for a directory that accepts nothing
	}
	before := r.published
	if r.making > 0 {
		if err := r.make(ctx, r.making, false); err != nil {
			return err
		}
		r.done.Generated = r.making
	}
	if r.sending > 0 {
		d := store.Dispatch{Identity: r.record.Name, Ending: r.after, N: int(r.sending)}
		if err := r.some(ctx, r.dir, d, r.record); err != nil {
			return err
		}
	}
	r.done.Published = r.published - before
	if !r.goal.LastResort {
		return nil
	}
	return r.lastResort(ctx)
}

// measure finds out the level and what is available.
func (r *replenishment) measure(ctx context.Context) error {
	err := r.setAfter()
	if err != nil {
		return err
	}
	if r.level, err = r.store.Level(ctx, r.record.Name, r.dir.Name, r.after); err != nil {
		return err
	}
	if r.dir.Type == config.OpenMLS && r.level.Published > 0 {
		if r.level.Published, err = r.left(ctx); err != nil {
			r.down[r.dir.Name] = takesNothing(r.dir, err)
			return fmt.Errorf("directory %q: %w", r.dir.Name, err)
		}
	}
	if r.goal.LastResort {
		if r.old, r.done.LastResort, err = r.lastResorts(ctx, r.record, r.after); err != nil {
			return err
		}
	}
	if r.level.Published+r.level.Underway >= uint64(r.goal.Low) && !r.done.LastResort {
		return nil
	}
	stock, err := r.store.Stock(ctx, r.record.Name)
	r.bound = ofDevice(stock)
	if len(stock) == 0 { // a new identity: its key packages may be in progress, and only its record says for whom they are
		r.bound = r.record.ForDevice()
	}
	if r.bound {
		r.old, r.done.LastResort = nil, false
	}
	return err
}

// ofDevice reports whether the private keys of the key packages that an identity has, or had last
// if it has none, are at a device or for one: others cannot be made without the device.
func ofDevice(stock []store.Stock) bool {
	var version uint64
	live := false
	for _, s := range stock {
		version, live = max(version, s.Version), live || isLive(s.State)
	}
	found := false
	for _, s := range stock {
		if live && !isLive(s.State) || !live && s.Version < version {
			continue
		}
		if isKept(s.Custody) {
			return false
		}
		found = true
	}
	return found
}

// left returns how many key packages of the identity a delivery service has that count.
func (r *replenishment) left(ctx context.Context) (n uint64, err error) {
	service, err := r.directories.Service(&r.dir)
	if err != nil {
		return 0, err
	}
	id, err := clientID(r.record)
	if err != nil {
		return 0, err
	}
	refs, err := service.Left(ctx, id)
	for _, ref := range refs {
		k, err := r.store.KeyPackage(ctx, ref)
		if errors.Is(err, store.ErrNotFound) {
			continue // published by another program
		}
		if err != nil {
			return 0, err
		}
		if k.State == store.Published && k.Identity == r.record.Name && k.Version == r.record.Version && !k.LastResort && k.NotAfter.After(r.after) {
			n++
		}
	}
	return n, err
}

// plan decides how many key packages to make and to send.
func (r *replenishment) plan() {
	low, high := uint64(r.goal.Low), uint64(r.goal.High)
	level := r.level.Published + r.level.Underway
	if level < low {
		r.sending = high - level
		if r.bound {
			r.sending = min(r.sending, r.level.Available)
		}
		r.making = r.sending - min(r.sending, r.level.Available)
	}
	r.done.Identity, r.done.Directory = r.record.Name, r.dir.Name
	r.done.Level, r.done.Available, r.done.Low, r.done.High = level, r.level.Available, low, high
	r.done.Generated, r.done.Published = r.making, r.sending
}

// make makes key packages.
func (r *replenishment) make(ctx context.Context, n uint64, lastResort bool) error {
	p, err := r.production(r.record, "", n, lastResort)
	if err == nil {
		_, err = r.produce(ctx, p)
	}
	return err
}

// lastResort makes a key package of last resort if one is due, publishes it, and only then
// retires those that it replaces.
func (r *replenishment) lastResort(ctx context.Context) error {
	if r.done.LastResort {
		if err := r.make(ctx, 1, true); err != nil {
			return err
		}
	}
	failed := r.failed
	if err := r.some(ctx, r.dir, store.Dispatch{Identity: r.record.Name, LastResort: true, Ending: r.after}, r.record); err != nil {
		return err
	}
	if r.failed > failed || r.down[r.dir.Name] || len(r.old) == 0 {
		return nil
	}
	_, err := r.retireOld(ctx, r.old)
	return err
}
