package inventory

import (
	"context"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// WorkOff works a backlog off to its end, one batch a transaction, and calls progress after each.
// If ctx ends first, the error is ErrInterrupted: the decision stands, and the next call continues
// where this one stopped.
func (inv *Inventory) WorkOff(ctx context.Context, b store.Backlog, now time.Time, progress func(store.Backlog)) (store.Backlog, error) {
	start := time.Now() // this machine's clock at the time now
	for !b.Finished() {
		if ctx.Err() != nil {
			return b, fmt.Errorf("%w: %w", ErrInterrupted, context.Cause(ctx))
		}
		// A batch that has begun is completed: the returned count is what was done.
		next, err := inv.store.WorkOff(context.WithoutCancel(ctx), b.ID, max(inv.batch, 1), now.Add(time.Since(start)))
		if err != nil {
			return b, fmt.Errorf("work off a decision about many key packages: %w", err)
		}
		if b = next; progress != nil {
			progress(b)
		}
	}
	return b, nil
}

// shredding returns the unfinished backlog of a wrapping key, if it has one.
func (inv *Inventory) shredding(ctx context.Context, id vault.KeyID) (store.Backlog, error) {
	backlogs, err := inv.store.Backlogs(ctx)
	for _, b := range backlogs {
		if string(b.WrappingKeyID) == string(id) {
			return b, err
		}
	}
	return store.Backlog{}, err
}

// kept fails unless private keys that were read and used still exist. Their wrapping key may have
// been condemned while the token used it, and from then on nobody may see what was under it.
func (inv *Inventory) kept(ctx context.Context, record *store.KeyPackage) error {
	now, err := inv.store.KeyPackage(ctx, record.Ref)
	switch {
	case err != nil:
		return err
	case erased(&now) != nil && len(now.Leaf) == 0:
		return erased(&now)
	}
	return nil
}
