package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// done is what is done to the key packages of a backlog.
var done = map[store.Step]string{store.Retire: "retired", store.Erase: "erased"}

// workOff writes down what was decided of many key packages. It needs no token.
func (e *env) workOff(ctx context.Context, b store.Backlog) (store.Backlog, error) {
	inv := inventory.New(inventory.Config{Store: e.store, Batch: e.config.Store.Batch})
	b, err := inv.WorkOff(ctx, b, time.Now(), e.backlogProgress(ctx))
	return b, e.backlogError(ctx, b, err)
}

// backlogProgress tells how far a backlog is. How many key packages there are is counted
// once, and only for somebody who looks.
func (e *env) backlogProgress(ctx context.Context) func(store.Backlog) {
	of := uint64(0)
	return func(b store.Backlog) {
		if !e.ui.errTerm {
			return
		}
		if of == 0 {
			left, err := e.store.Left(ctx, b.ID)
			if err != nil {
				return // of the count alone
			}
			of = b.Moved + left
		}
		e.ui.progressf("%s %d of %s", done[b.Step], b.Moved, plural(of, "key package"))
	}
}

// backlogError says how far an interrupted backlog is, and that nothing depends on it.
func (e *env) backlogError(ctx context.Context, b store.Backlog, err error) error {
	if !errors.Is(err, inventory.ErrInterrupted) {
		return err
	}
	left, fault := e.store.Left(context.WithoutCancel(ctx), b.ID)
	if fault != nil {
		return fault
	}
	effect := "nobody gets them any more"
	if b.Step == store.Erase {
		effect = "nothing opens with them any more"
	}
	err = fmt.Errorf("%w: %s %s, and %d to go; %s: %w", errPartial, plural(b.Moved, "key package"), done[b.Step], left, effect, context.Cause(ctx))
	return advise(err, errPartial, "run the command again for the rest, or `hsm-kp sweep`")
}

// finishBacklogs works off what interrupted commands have left, and returns how many key
// packages it was of.
func (e *env) finishBacklogs(ctx context.Context) (finished uint64, err error) {
	backlogs, err := e.store.Backlogs(ctx)
	for _, b := range backlogs {
		if err != nil {
			break
		}
		before := b.Moved
		b, err = e.workOff(ctx, b)
		finished += b.Moved - before
	}
	return finished, err
}
