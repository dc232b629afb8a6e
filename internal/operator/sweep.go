package operator

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// UnfinishedAfter is how old an intent must be before another process may assume that the process
// that recorded it is dead: no call of a token takes so long.
const UnfinishedAfter = 10 * time.Minute

// SweepRequest says how thorough a sweep is.
type SweepRequest struct {
	// Unfinished is how old an unfinished act must be to be repaired. Zero repairs all: only
	// for a store that no other process uses.
	Unfinished time.Duration
	// DestroyUnused also destroys wrapping keys that nothing depends on, if the config has
	// wrapping keys replaced automatically.
	DestroyUnused bool
}

// SweepResult is what a sweep has done.
type SweepResult struct {
	Released  uint64 // reservations that ended
	Expired   uint64 // key packages
	Erased    uint64 // key packages
	Finished  uint64 // key packages, retired or erased by what was interrupted
	Repaired  uint64 // unfinished acts
	Destroyed uint64 // wrapping keys
}

// Sweep expires and erases key packages whose time has come, ends old reservations, finishes
// interrupted acts and repairs what a crash left. It opens the token only if there is something
// to do in it.
func (o *Operator) Sweep(ctx context.Context, r SweepRequest) (SweepResult, error) {
	finished, err := o.finishBacklogs(ctx)
	if err != nil {
		return SweepResult{Finished: finished}, err
	}
	now := o.now()
	swept, err := o.store.Sweep(ctx, now, time.Duration(o.settings.KeyPackages.Grace))
	out := SweepResult{Released: swept.Released, Expired: swept.Expired, Erased: swept.Erased, Finished: finished + swept.Finished}
	if err != nil {
		return out, err
	}
	intents, err := o.store.Intents(ctx)
	if err != nil {
		return out, err
	}
	if due := dueIntents(intents, now.Add(-r.Unfinished)); len(due) > 0 {
		if out.Repaired, err = o.repair(ctx, due, now, r.Unfinished); err != nil {
			return out, err
		}
	}
	if r.DestroyUnused {
		out.Destroyed, err = o.destroyUnused(ctx, now)
	}
	return out, err
}

// repair settles the unfinished acts in the config's token, and warns of others.
func (o *Operator) repair(ctx context.Context, due []store.Intent, now time.Time, age time.Duration) (uint64, error) {
	inv, err := o.Inventory(ctx)
	if err != nil {
		return 0, err
	}
	repaired, err := inv.Repair(ctx, now, age)
	if err != nil {
		return repaired, &repairError{err}
	}
	elsewhere := uint64(0)
	for _, i := range due {
		if i.TokenSerial != o.token.Info().Serial {
			elsewhere++
		}
	}
	if elsewhere > 0 {
		o.warnf("%s in another token than the config's", PluralOf(elsewhere, "unfinished act is", "unfinished acts are"))
	}
	return repaired, nil
}

func dueIntents(intents []store.Intent, before time.Time) []store.Intent {
	return slices.DeleteFunc(intents, func(i store.Intent) bool { return i.CreatedAt.After(before) })
}

// destroyUnused destroys wrapping keys that nothing depends on, or warns that there are
// some.
func (o *Operator) destroyUnused(ctx context.Context, now time.Time) (uint64, error) {
	unused, err := o.records.UnusedWrappingKeys(ctx)
	if err != nil || len(unused) == 0 {
		return 0, err
	}
	if !o.settings.WrappingKeys.Automatic {
		for _, k := range unused {
			o.report.Warn(&UnusedKeyError{k})
		}
		return 0, nil
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return 0, err
	}
	destroyed, err := inv.DestroyUnused(ctx, now)
	return uint64(len(destroyed)), err
}

// repairError reports what a crash left and could not be repaired.
type repairError struct{ error }

func (e *repairError) Unwrap() error { return e.error }

// tidy sweeps at the start of an act that takes long, unless sweeps are scheduled.
func (o *Operator) tidy(ctx context.Context) error {
	if o.scheduled {
		return nil
	}
	swept, err := o.Sweep(ctx, SweepRequest{Unfinished: UnfinishedAfter})
	if fault := (*repairError)(nil); errors.As(err, &fault) { // the act does not need the repair
		o.report.Warn(err)
		err = nil
	}
	if err == nil && swept.Finished > 0 {
		o.notef("finished an earlier run's work on %s", Plural(swept.Finished, "key package"))
	}
	if err == nil && swept.Repaired > 0 {
		o.notef("repaired %s of an earlier run", PluralOf(swept.Repaired, "unfinished act", "unfinished acts"))
	}
	return err
}
