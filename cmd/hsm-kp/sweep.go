package main

import (
	"context"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// unfinishedAfter is how old an intent must be for another process to believe that its
// own is dead: no call of a token takes so long.
const unfinishedAfter = 10 * time.Minute

func sweepCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "sweep",
		Category: categoryKeep,
		Usage:    "erase what has expired, end stale reservations, repair what a crash left",
		Description: `A key package that nobody used keeps its private keys for key_packages.grace of the config
after it expired, and a retired one until the end of its own grace: a Welcome may be on its
way. Then sweep erases them for good. Reservations of "hsm-kp welcome open" that nobody
confirmed or released end by themselves; sweep puts their key packages back into the state in
which they were. Where a crash left a key in the token that nothing is recorded of, or cut its
destruction short, sweep destroys it. What "hsm-kp identity retire", "hsm-kp identity rotate"
or "hsm-kp wrap-key destroy --shred" was interrupted in is finished. Wrapping keys that others took the place of are destroyed
once nothing depends on them, where wrapping_keys.automatic of the config says so.

It opens the token only where there is something to do in it, may run beside everything else,
also from cron, and does nothing where there is nothing to do. Commands that take long sweep
first.

Examples:
   hsm-kp sweep
   hsm-kp sweep --unfinished 0s
   hsm-kp sweep --json | jq .erased`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "unfinished", Usage: "repair what was begun longer than `DURATION` ago; 0s where no other hsm-kp runs", Value: "10m"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			age, err := config.ParseDuration(c.String("unfinished"))
			if err != nil {
				return usagef("sweep: --unfinished %v", err)
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			swept, err := e.sweep(c.Context, time.Duration(age), true)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(swept)
			}
			u.printf("%s expired, erased %s, ended %s\n", plural(swept.Expired, "key package"), plural(swept.Erased, "key package"), plural(swept.Released, "reservation"))
			if swept.Finished > 0 {
				u.printf("finished with %s what was begun and interrupted\n", plural(swept.Finished, "key package"))
			}
			if swept.Repaired+swept.Destroyed > 0 {
				u.printf("repaired %s, destroyed %s\n", pluralOf(swept.Repaired, "unfinished act", "unfinished acts"), plural(swept.Destroyed, "unused wrapping key"))
			}
			return nil
		},
	}
}

// sweptJSON is what `sweep --json` prints.
type sweptJSON struct {
	Released  uint64 `json:"reservations_ended"`
	Expired   uint64 `json:"expired"`
	Erased    uint64 `json:"erased"`
	Finished  uint64 `json:"finished"` // retired or erased by what was interrupted
	Repaired  uint64 `json:"repaired"`
	Destroyed uint64 `json:"wrapping_keys_destroyed"`
}

// sweep does what the time has come for. It opens the token where there is something to
// do in it.
func (e *env) sweep(ctx context.Context, age time.Duration, destroy bool) (sweptJSON, error) {
	finished, err := e.finishBacklogs(ctx)
	if err != nil {
		return sweptJSON{Finished: finished}, err
	}
	now := time.Now()
	swept, err := e.store.Sweep(ctx, now, time.Duration(e.config.KeyPackages.Grace))
	out := sweptJSON{Released: swept.Released, Expired: swept.Expired, Erased: swept.Erased, Finished: finished + swept.Finished}
	if err != nil {
		return out, err
	}
	intents, err := e.store.Intents(ctx)
	if err != nil {
		return out, err
	}
	if due := dueIntents(intents, now.Add(-age)); len(due) > 0 {
		if err := e.repair(ctx, due, now, age, &out); err != nil {
			return out, err
		}
	}
	if destroy {
		out.Destroyed, err = e.destroyUnused(ctx, now)
	}
	return out, err
}

// repair settles the unfinished acts of the config's token, and tells of others.
func (e *env) repair(ctx context.Context, due []store.Intent, now time.Time, age time.Duration, out *sweptJSON) error {
	inv, err := e.inventory(ctx)
	if err != nil {
		return err
	}
	if out.Repaired, err = inv.Repair(ctx, now, age); err != nil {
		return &repairError{err}
	}
	elsewhere := uint64(0)
	for _, i := range due {
		if i.TokenSerial != e.token.Info().Serial {
			elsewhere++
		}
	}
	if elsewhere > 0 {
		e.ui.warnf("%s in another token than the config's", pluralOf(elsewhere, "unfinished act is", "unfinished acts are"))
	}
	return nil
}

func dueIntents(intents []store.Intent, before time.Time) []store.Intent {
	return slices.DeleteFunc(intents, func(i store.Intent) bool { return i.CreatedAt.After(before) })
}

// destroyUnused destroys wrapping keys that nothing depends on any more, or says that
// there are some.
func (e *env) destroyUnused(ctx context.Context, now time.Time) (uint64, error) {
	unused, err := e.records().UnusedWrappingKeys(ctx)
	if err != nil || len(unused) == 0 {
		return 0, err
	}
	if !e.config.WrappingKeys.Automatic {
		for _, k := range unused {
			e.ui.warnf("nothing is under wrapping key %x any more: `hsm-kp wrap-key destroy %.16x`", k.ID, k.ID)
		}
		return 0, nil
	}
	inv, err := e.inventory(ctx)
	if err != nil {
		return 0, err
	}
	destroyed, err := inv.DestroyUnused(ctx, now)
	return uint64(len(destroyed)), err
}

// repairError reports what a crash left and could not be repaired.
type repairError struct{ error }

func (e *repairError) Unwrap() error { return e.error }

// tidy sweeps at the start of a command that takes long.
func (e *env) tidy(ctx context.Context) error {
	swept, err := e.sweep(ctx, unfinishedAfter, false)
	if as[*repairError](err) { // no reason to stop work that does not need it
		e.ui.warnf("%v", err)
		err = nil
	}
	if err == nil && swept.Finished > 0 {
		e.ui.notef("finished with %s what an earlier run has begun", plural(swept.Finished, "key package"))
	}
	if err == nil && swept.Repaired > 0 {
		e.ui.notef("repaired %s of an earlier run", pluralOf(swept.Repaired, "unfinished act", "unfinished acts"))
	}
	return err
}
