package inventory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Rewrapped is the progress of a Rewrap.
type Rewrapped struct {
	KeyPackages uint64 // now under the current wrapping key
	Identities  uint64 // now stamped with it
	Left        uint64 // left unchanged because their private keys do not unseal
}

// Rewrap moves everything under the wrapping key from to the current one of its purpose: private
// keys, and stamps of identities. It may be interrupted and repeated at any time. It calls progress
// from one goroutine. It leaves key packages whose private keys do not unseal; the error joins up
// to ten of their errors.
func (inv *Inventory) Rewrap(ctx context.Context, from vault.KeyID, now time.Time, progress func(Rewrapped)) (Rewrapped, error) {
	record, err := inv.wrappingKey(ctx, from)
	if err != nil {
		return Rewrapped{}, err
	}
	r := &rewrapping{inv: inv, now: now, start: time.Now(), progress: progress, faults: make(map[string]error)}
	to, err := inv.currentKey(ctx, record.Purpose)
	if err == nil && string(to.ID) == string(from) {
		err = fmt.Errorf("rewrap: wrapping key %v: %w: it is the current one", from, store.ErrState)
	}
	if err != nil {
		return r.done, err
	}
	if r.from, err = inv.custodian(ctx, from); err != nil {
		return r.done, err
	}
	if r.to, err = inv.custodian(ctx, to.ID); err != nil {
		return r.done, err
	}
	if record.Purpose == store.Seal {
		if r.done.Identities, err = inv.restamp(ctx, from, now); err != nil {
			return r.done, err
		}
	}
	// What is reserved or confirmed during a pass is left for the next one.
	for moved := uint64(1); moved > 0; {
		before := r.done.KeyPackages
		if err := r.pass(ctx); err != nil {
			return r.done, err
		}
		moved = r.done.KeyPackages - before
	}
	r.done.Left = uint64(len(r.faults))
	return r.done, r.fault()
}

// restamp renews the stamps of a wrapping key with the current one, and reseals the accounts under
// it.
func (inv *Inventory) restamp(ctx context.Context, from vault.KeyID, now time.Time) (uint64, error) {
	if err := inv.resealAccounts(ctx, from); err != nil {
		return 0, err
	}
	identities, err := inv.store.Identities(ctx)
	if err != nil {
		return 0, err
	}
	var n uint64
	for _, id := range identities {
		versions, err := inv.store.Versions(ctx, id.Name)
		if err != nil {
			return n, err
		}
		for _, v := range versions {
			if string(v.StampKey) != string(from) {
				continue
			}
			err := inv.restampOne(ctx, &v, now)
			if errors.Is(err, store.ErrState) {
				continue // another process was faster
			}
			if err != nil {
				return n, fmt.Errorf("restamp identity %q: %w", v.Name, err)
			}
			n++
		}
	}
	return n, nil
}

// restampOne stamps a genuine record again.
func (inv *Inventory) restampOne(ctx context.Context, v *store.Identity, now time.Time) error {
	if err := inv.CheckIdentity(ctx, v); err != nil {
		return err
	}
	was := v.Stamp
	if err := inv.StampIdentity(ctx, v); err != nil {
		return err
	}
	return inv.store.ChangeIdentity(ctx, *v, was, now)
}

// rewrapping is the state of a Rewrap.
type rewrapping struct {
	inv      *Inventory
	from, to vault.Custodian
	now      time.Time
	start    time.Time // this machine's clock at the time now
	progress func(Rewrapped)
	done     Rewrapped

	mu     sync.Mutex
	faults map[string]error // by KeyPackageRef
}

// pass goes once through everything under the old key.
func (r *rewrapping) pass(ctx context.Context) error {
	var batch []store.KeyPackage
	for record, err := range r.inv.store.KeyPackages(ctx, store.Filter{WrappingKeyID: r.from.KeyID()}) {
		if err != nil {
			return fmt.Errorf("rewrap: %w", err)
		}
		if batch = append(batch, record); len(batch) < max(r.inv.batch, 1) {
			continue
		}
		if err := r.move(ctx, batch); err != nil {
			return err
		}
		batch = batch[:0]
	}
	return r.move(ctx, batch)
}

// move rewraps a batch in parallel and stores it.
func (r *rewrapping) move(ctx context.Context, batch []store.KeyPackage) error {
	moved := make([]*store.Rewrapped, len(batch))
	var workers errgroup.Group
	workers.SetLimit(max(r.inv.workers, 1))
	for i := range batch {
		workers.Go(func() (err error) {
			if moved[i], err = r.rewrap(ctx, &batch[i]); errors.Is(err, vault.ErrSealed) || errors.Is(err, ErrMixedUp) || errors.Is(err, ErrSuiteUnknown) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.faults[string(batch[i].Ref)] = err
				return nil
			}
			return err
		})
	}
	if err := workers.Wait(); err != nil {
		return err
	}
	var whole []store.Rewrapped
	for _, m := range moved {
		if m != nil {
			whole = append(whole, *m)
		}
	}
	n, err := r.inv.store.Rewrap(ctx, whole, r.now.Add(time.Since(r.start)))
	r.done.KeyPackages += n
	if err == nil && r.progress != nil {
		r.progress(r.done)
	}
	return err
}

func (r *rewrapping) rewrap(ctx context.Context, record *store.KeyPackage) (*store.Rewrapped, error) {
	kp, err := Public(record)
	if err != nil {
		return nil, err
	}
	b, err := binding(record, kp)
	if err != nil {
		return nil, err
	}
	out := &store.Rewrapped{
		Ref: record.Ref, WasSealed: record.Sealed, WasLeaf: record.Leaf,
		WrappingKeyID: r.to.KeyID(), WasWrappingKeyID: record.WrappingKeyID,
	}
	for _, part := range []struct {
		sealed []byte
		leaf   bool
		to     *[]byte
	}{{record.Sealed, false, &out.Sealed}, {record.Leaf, true, &out.Leaf}} {
		if len(part.sealed) == 0 {
			continue
		}
		if *part.to, err = r.from.Rewrap(ctx, r.inv.rand, b, part.sealed, part.leaf, r.to); err != nil {
			return nil, fmt.Errorf("rewrap key package %x: %w", record.Ref, err)
		}
	}
	return out, nil
}

// maxFaults is how many faults an error contains.
const maxFaults = 10

func (r *rewrapping) fault() error {
	var faults []error
	for _, err := range r.faults {
		if faults = append(faults, err); len(faults) == maxFaults {
			break
		}
	}
	return errors.Join(faults...)
}
