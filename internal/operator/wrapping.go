package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// DueKeyError warns that a wrapping key should be replaced, and that the config leaves it to a
// person.
type DueKeyError struct{ Key store.WrappingKey }

// Error implements error.
func (e *DueKeyError) Error() string {
	return fmt.Sprintf("wrapping key %x was made on %s and used %s: it is due to be replaced",
		e.Key.ID, e.Key.CreatedAt.UTC().Format(time.DateOnly), Plural(e.Key.Uses, "time"))
}

// UnusedKeyError warns that nothing depends on a wrapping key, and that the config
// leaves its destruction to a person.
type UnusedKeyError struct{ Key store.WrappingKey }

// Error implements error.
func (e *UnusedKeyError) Error() string {
	return fmt.Sprintf("nothing is left under wrapping key %x", e.Key.ID)
}

// RotateWhenDue replaces wrapping keys that are due, or warns of them. If several processes find
// one due, one process makes the next key, and the others use it.
func (o *Operator) RotateWhenDue(ctx context.Context) error {
	inv, err := o.Inventory(ctx)
	if err != nil {
		return err
	}
	due, err := inv.DueWrappingKeys(ctx, o.schedule(), o.now())
	if err != nil {
		return err
	}
	for _, k := range due {
		if !o.settings.WrappingKeys.Automatic {
			o.report.Warn(&DueKeyError{k})
			continue
		}
		next, err := inv.ReplaceWrappingKey(ctx, &k, o.now())
		if errors.Is(err, inventory.ErrUnderWay) { // the next run does it, or a sweep repairs
			o.warnf("%w: new key packages are under the previous key", err)
			continue
		}
		if err != nil {
			return err
		}
		o.notef("wrapping key %x is due: new key packages are under %x from now on", k.ID, next.ID)
	}
	return nil
}

// schedule returns when the config requires that wrapping keys are replaced.
func (o *Operator) schedule() inventory.Schedule {
	w := &o.settings.WrappingKeys
	return inventory.Schedule{MaxAge: time.Duration(w.MaxAge), MaxUses: w.MaxUses}
}
