package operator

import (
	"context"
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// done is what a backlog does to its key packages.
var done = map[store.Step]string{store.Retire: "retired", store.Erase: "erased"}

// InterruptedError reports a backlog that was interrupted. The decision already holds;
// calling the act again, or a sweep, records the rest.
type InterruptedError struct {
	Backlog store.Backlog
	Left    uint64 // key packages that are not recorded yet
	Cause   error
}

// Error implements error.
func (e *InterruptedError) Error() string {
	effect := "they are no longer handed out"
	if e.Backlog.Step == store.Erase {
		effect = "nothing opens with them"
	}
	return fmt.Sprintf("%v: %s %s, and %d to go; %s: %v", ErrPartial, Plural(e.Backlog.Moved, "key package"), done[e.Backlog.Step], e.Left, effect, e.Cause)
}

// Unwrap returns ErrPartial and the cause.
func (e *InterruptedError) Unwrap() []error { return []error{ErrPartial, e.Cause} }

// workOff records a decision about many key packages, row by row. It needs no token.
func (o *Operator) workOff(ctx context.Context, b store.Backlog) (store.Backlog, error) {
	b, err := o.records.WorkOff(ctx, b, o.now(), o.backlogProgress(ctx))
	return b, o.backlogError(ctx, b, err)
}

// backlogProgress reports how far a backlog is. It counts the key packages once.
func (o *Operator) backlogProgress(ctx context.Context) func(store.Backlog) {
	of, counted := uint64(0), false
	return func(b store.Backlog) {
		if !counted {
			if left, err := o.store.Left(ctx, b.ID); err == nil {
				of = b.Moved + left
			}
			counted = true
		}
		o.report.Progress(Progress{Verb: done[b.Step], Done: b.Moved, Of: of, Noun: "key package"})
	}
}

// backlogError returns an error that says how far an interrupted backlog is.
func (o *Operator) backlogError(ctx context.Context, b store.Backlog, err error) error {
	if !errors.Is(err, inventory.ErrInterrupted) {
		return err
	}
	left, fault := o.store.Left(context.WithoutCancel(ctx), b.ID)
	if fault != nil {
		return fault
	}
	return &InterruptedError{b, left, context.Cause(ctx)}
}

// finishBacklogs completes the backlogs that interrupted acts left, and returns the number of
// their key packages.
func (o *Operator) finishBacklogs(ctx context.Context) (finished uint64, err error) {
	backlogs, err := o.store.Backlogs(ctx)
	for _, b := range backlogs {
		if err != nil {
			break
		}
		before := b.Moved
		b, err = o.workOff(ctx, b)
		finished += b.Moved - before
	}
	return finished, err
}
