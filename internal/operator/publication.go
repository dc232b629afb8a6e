package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// publication is a run that publishes, in one directory after the other.
type publication struct {
	*Operator
	each    func(Published) error // may be nil
	start   time.Time
	down    map[string]bool      // directories that accept nothing
	refused map[string]time.Time // refs that were refused, with the end of their lease

	published, failed uint64
	cause             error // of the first that failed
}

// Published is the outcome of a key package that was sent to a directory.
type Published struct {
	Ref        keypackage.Ref
	Identity   string
	Directory  string
	LastResort bool
	Err        error // nil: the directory has acknowledged it
	Refused    bool  // the directory refused it, and the run does not send it again
}

func (o *Operator) newPublication(each func(Published) error) *publication {
	return &publication{Operator: o, each: each, start: o.now(), down: make(map[string]bool), refused: make(map[string]time.Time)}
}

// all publishes at most n key packages of an identity, or all if n is 0, and those of
// last resort. An error ends the run; key packages that a directory did not accept are counted.
func (p *publication) all(ctx context.Context, record *store.Identity, dir config.Directory, n int) error {
	err := p.some(ctx, dir, store.Dispatch{Identity: record.Name, N: n}, record)
	if err == nil {
		err = p.some(ctx, dir, store.Dispatch{Identity: record.Name, LastResort: true}, record)
	}
	return err
}

// some publishes the key packages that d chooses, at most d.N or all if that is 0, in
// batches. It stops if the directory accepts no more.
func (p *publication) some(ctx context.Context, dir config.Directory, d store.Dispatch, record *store.Identity) error {
	most := d.N
	for sent := 0; ctx.Err() == nil && !p.down[dir.Name] && (most == 0 || sent < most); {
		d.N = batchSize(dir)
		if most > 0 {
			d.N = min(d.N, most-sent)
		}
		took, going, err := p.batch(ctx, record, dir, d)
		if err != nil || !going {
			return err
		}
		sent += took
	}
	return nil
}

// batchSize returns how many key packages are leased at once: no more than can be sent in a quarter
// of the lease.
func batchSize(dir config.Directory) int {
	if dir.Rate == 0 {
		return dir.Batch
	}
	return max(1, min(dir.Batch, dir.Rate*int(time.Duration(dir.Lease).Seconds())/4))
}

// batch leases key packages, sends them and records what was acknowledged. It returns how
// many it sent, and whether to continue.
func (p *publication) batch(ctx context.Context, record *store.Identity, dir config.Directory, d store.Dispatch) (int, bool, error) {
	client, err := p.client(ctx, record, dir)
	if err != nil {
		return 0, false, fmt.Errorf("directory %q: %w", dir.Name, err)
	}
	now := p.now()
	d.Directory, d.Now, d.Until = dir.Name, now, now.Add(time.Duration(dir.Lease))
	leased, err := p.store.Dispatch(ctx, d)
	if err != nil || len(leased) == 0 {
		return 0, false, err
	}
	// The lease must not end while key packages are being sent.
	sending, cancel := context.WithDeadline(ctx, now.Add(time.Duration(dir.Lease)*9/10))
	defer cancel()
	results := p.send(sending, client, leased)
	going, err := p.settle(context.WithoutCancel(ctx), dir, leased, results, d.Until)
	return len(leased), going, err
}

// send sends key packages. A record that is at fault is not sent.
func (p *publication) send(ctx context.Context, client directory.Publisher, leased []store.Dispatched) []error {
	results := make([]error, len(leased))
	var items []directory.Item
	var of []int
	for i := range leased {
		kp, err := inventory.Public(&leased[i].KeyPackage)
		if err != nil {
			results[i] = err
			continue
		}
		items, of = append(items, directory.Item{Ref: leased[i].Ref, KeyPackage: kp, Again: leased[i].Again}), append(of, i)
	}
	for j, err := range client.Publish(ctx, items) {
		results[of[j]] = err
	}
	return results
}

// settle records what was acknowledged, gives back what was not, and reports both. It returns
// whether the directory accepts more.
func (p *publication) settle(ctx context.Context, dir config.Directory, leased []store.Dispatched, results []error, until time.Time) (bool, error) {
	var acknowledged, left [][]byte
	for i, err := range results {
		switch {
		case err == nil:
			acknowledged = append(acknowledged, leased[i].Ref)
		case errors.Is(err, directory.ErrRefused), errors.Is(err, inventory.ErrMixedUp):
			p.refused[string(leased[i].Ref)] = until // this run does not send it again
		default:
			left = append(left, leased[i].Ref)
			p.down[dir.Name] = p.down[dir.Name] || takesNothing(dir, err)
		}
	}
	if err := p.store.Acknowledge(ctx, acknowledged, dir.Name, p.now()); err != nil {
		return false, fmt.Errorf("record what directory %q has: %w", dir.Name, err)
	}
	if err := p.store.Return(ctx, left, until); err != nil {
		return false, err
	}
	for i, err := range results {
		if err := p.tell(dir, &leased[i], err); err != nil {
			return false, err
		}
	}
	return len(left) == 0, nil
}

// takesNothing reports whether an error says that a directory accepts nothing from any client.
func takesNothing(dir config.Directory, err error) bool {
	return errors.Is(err, directory.ErrUnreachable) || dir.Type == config.HTTP && errors.Is(err, directory.ErrUnauthorized)
}

// giveBack ends the leases on refused key packages: the next run sends them again.
func (p *publication) giveBack(ctx context.Context) error {
	for ref, until := range p.refused {
		if err := p.store.Return(ctx, [][]byte{[]byte(ref)}, until); err != nil {
			return err
		}
	}
	clear(p.refused)
	return nil
}

// tell counts the outcome of a key package, and reports it.
func (p *publication) tell(dir config.Directory, k *store.Dispatched, err error) error {
	if err == nil {
		p.published++
	} else {
		p.failed++
		if p.cause == nil {
			p.cause = fmt.Errorf("directory %q: %w", dir.Name, err)
		}
	}
	told := Published{Ref: k.Ref, Identity: k.Identity, Directory: dir.Name, LastResort: k.LastResort, Err: err, Refused: !p.refused[string(k.Ref)].IsZero()}
	if told.Refused {
		p.warnf("key package %v of %q: directory %q: %w", told.Ref, told.Identity, dir.Name, err)
	}
	p.report.Progress(Progress{Verb: "published", Done: p.published, Noun: "key package", Since: p.start})
	if p.each == nil {
		return nil
	}
	return p.each(told)
}

// finish ends the leases, and returns an error that says what was not published.
func (p *publication) finish(ctx context.Context) error {
	err := p.giveBack(context.WithoutCancel(ctx))
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %s published: %w", ErrPartial, Plural(p.published, "key package"), context.Cause(ctx))
	case p.failed > 0:
		return fmt.Errorf("%w: %d of %s: %w", ErrUnpublished, p.failed, Plural(p.failed+p.published, "key package"), p.cause)
	}
	return nil
}

// ErrUnpublished reports an act that published less than it was asked to.
var ErrUnpublished = errors.New("not published")
