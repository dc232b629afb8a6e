package inventory

import (
	"context"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// WorkOff writes a backlog down to its end, one batch a transaction, and tells progress how
// far it is. Where ctx ends first, the error is ErrInterrupted: what was decided stays
// decided, and whoever calls next goes on where this call was.
func (inv *Inventory) WorkOff(ctx context.Context, b store.Backlog, now time.Time, progress func(store.Backlog)) (store.Backlog, error) {
	start := time.Now() // on this machine's clock, when it was now
	for !b.Finished() {
		if ctx.Err() != nil {
			return b, fmt.Errorf("%w: %w", ErrInterrupted, context.Cause(ctx))
		}
		// What is begun is ended: the count that is returned is what was done.
		next, err := inv.store.WorkOff(context.WithoutCancel(ctx), b.ID, max(inv.batch, 1), now.Add(time.Since(start)))
		if err != nil {
			return b, fmt.Errorf("write down what was decided of many key packages: %w", err)
		}
		if b = next; progress != nil {
			progress(b)
		}
	}
	return b, nil
}

// shredding returns the backlog of a wrapping key, where it has one that is not finished.
func (inv *Inventory) shredding(ctx context.Context, id vault.KeyID) (store.Backlog, error) {
	backlogs, err := inv.store.Backlogs(ctx)
	for _, b := range backlogs {
		if string(b.WrappingKeyID) == string(id) {
			return b, err
		}
	}
	return store.Backlog{}, err
}

// kept reports whether the private keys are still there that were read and used: their
// wrapping key may have been condemned while the token was at it, and what was under it is
// shown to nobody from then on.
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
