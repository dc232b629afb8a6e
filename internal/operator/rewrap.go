package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// RewrapRequest says what to put under the current wrapping keys.
type RewrapRequest struct {
	// From is the id, in hexadecimal, of the wrapping key that it is under, or the first digits
	// of it. Empty: all keys that are neither current nor condemned or destroyed.
	From string
	// Each receives what was done with each key. Its error ends the act.
	Each func(Rewrapped) error
}

// Rewrapped is what was put under the current wrapping key.
type Rewrapped struct {
	From store.WrappingKey
	inventory.Rewrapped
}

// Rewrap puts what is under old wrapping keys under the current ones: private keys that may
// still be used, and stamps of identities. It may be interrupted (ErrPartial) and called again at
// any time. Key packages whose private keys do not open stay as they are; the error names them.
func (o *Operator) Rewrap(ctx context.Context, r RewrapRequest) error {
	keys, err := o.keysToRewrap(ctx, r.From)
	if err != nil {
		return err
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return err
	}
	if err := o.tidy(ctx); err != nil {
		return err
	}
	var faults []error // about private keys that do not open: the others are moved nevertheless
	for _, k := range keys {
		done, err := o.rewrapFrom(ctx, inv, &k)
		if err != nil && done.Left == 0 {
			return err
		}
		faults = append(faults, err)
		if err := r.Each(Rewrapped{k, done}); err != nil {
			return err
		}
	}
	return errors.Join(faults...)
}

// keysToRewrap returns the wrapping key that is named, or all that have been used and are not
// current.
func (o *Operator) keysToRewrap(ctx context.Context, from string) ([]store.WrappingKey, error) {
	if from != "" {
		k, err := o.findWrappingKey(ctx, from)
		return []store.WrappingKey{k}, err
	}
	keys, err := o.store.WrappingKeys(ctx)
	return slices.DeleteFunc(keys, func(k store.WrappingKey) bool { return k.Current || k.Condemned }), err
}

// rewrapFrom puts what is under one wrapping key under the current one.
func (o *Operator) rewrapFrom(ctx context.Context, inv *inventory.Inventory, k *store.WrappingKey) (inventory.Rewrapped, error) {
	d, err := o.store.Dependents(ctx, k.ID)
	if err != nil {
		return inventory.Rewrapped{}, err
	}
	done, err := inv.Rewrap(ctx, k.ID, o.now(), func(r inventory.Rewrapped) {
		o.report.Progress(Progress{Verb: "rewrapped", Done: r.KeyPackages, Of: d.KeyPackages, Noun: "key package"})
	})
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %s put under the current wrapping key: %w", ErrPartial, Plural(done.KeyPackages, "key package"), context.Cause(ctx))
	}
	return done, err
}
