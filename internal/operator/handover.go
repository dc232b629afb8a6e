package operator

import (
	"context"
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// ErrNotHandedOver reports a key package whose private keys no device can have.
var ErrNotHandedOver = errors.New("it was not handed over to a device")

// ConfirmHandoversResult counts the key packages that were confirmed.
type ConfirmHandoversResult struct {
	// Confirmed is how many private keys are erased now, and Before how many were erased already.
	Confirmed, Before uint64
}

// ConfirmHandovers erases the private keys of key packages of custody release whose devices have
// them. It checks all before it confirms the first: if one was not handed over, none is confirmed. If ctx
// ends, those that are confirmed stay so, and the error is ErrPartial.
func (o *Operator) ConfirmHandovers(ctx context.Context, refs [][]byte) (ConfirmHandoversResult, error) {
	if err := o.checkHandovers(ctx, refs); err != nil {
		return ConfirmHandoversResult{}, err
	}
	var done ConfirmHandoversResult
	for left := refs; len(left) > 0; {
		if ctx.Err() != nil {
			return done, fmt.Errorf("%w: %d of %s are confirmed: %w", ErrPartial, done.Confirmed+done.Before, Plural(len(refs), "key package"), context.Cause(ctx))
		}
		batch := left[:min(max(o.settings.Store.Batch, 1), len(left))]
		left = left[len(batch):]
		n, err := o.records.ConfirmHandover(context.WithoutCancel(ctx), batch, o.now())
		if err != nil {
			return done, err
		}
		done.Confirmed += n
		done.Before += uint64(len(batch)) - n
	}
	return done, nil
}

// namedFaults is how many key packages an error names.
const namedFaults = 20

// checkHandovers refuses all if one cannot be confirmed: erased keys cannot be recovered.
func (o *Operator) checkHandovers(ctx context.Context, refs [][]byte) error {
	var faults []error
	for _, ref := range refs {
		record, err := o.store.KeyPackage(ctx, ref)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return err
		case record.HandedOverAt.IsZero():
			err = ErrNotHandedOver
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("key package %v: %w", keypackage.Ref(ref), err))
		}
	}
	if more := len(faults) - namedFaults; more > 0 {
		faults = append(faults[:namedFaults], fmt.Errorf("and %d more", more))
	}
	return errors.Join(faults...)
}
