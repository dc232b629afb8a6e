package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func sweepCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "sweep",
		Category: categoryKeep,
		Usage:    "erase expired private keys, end old reservations, repair what a crash left",
		Description: `An unused key package keeps its private keys for key_packages.grace of the config after it
expired, and a retired one until the end of its own grace: a Welcome may still arrive. Then sweep
erases them permanently. Reservations of "hsm-kp welcome open" that were neither confirmed nor
released end by themselves; sweep returns their key packages to the state that they had before.
If a crash left a key in the token that no record names, or interrupted the destruction of a key,
sweep destroys the key. It finishes interrupted runs of "hsm-kp identity retire", "hsm-kp identity
rotate" and "hsm-kp wrap-key destroy --shred". If wrapping_keys.automatic in the config is true,
it destroys replaced wrapping keys that nothing depends on.

It opens the token only if there is something to do there, and may run at the same time as any
other command, also from cron. Commands that take long sweep first.

Examples:
   hsm-kp sweep
   hsm-kp sweep --unfinished 0s
   hsm-kp sweep --json | jq .erased`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "unfinished", Usage: "repair what began more than `DURATION` ago; use 0s if no other hsm-kp is running", Value: "10m"},
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
			swept, err := e.Sweep(c.Context, operator.SweepRequest{Unfinished: time.Duration(age), DestroyUnused: true})
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(sweptJSON(swept))
			}
			u.printf("%s expired, erased %s, ended %s\n", operator.Plural(swept.Expired, "key package"), operator.Plural(swept.Erased, "key package"), operator.Plural(swept.Released, "reservation"))
			if swept.Finished > 0 {
				u.printf("finished interrupted work on %s\n", operator.Plural(swept.Finished, "key package"))
			}
			if swept.Repaired+swept.Destroyed > 0 {
				u.printf("repaired %s, destroyed %s\n", operator.PluralOf(swept.Repaired, "unfinished act", "unfinished acts"), operator.Plural(swept.Destroyed, "unused wrapping key"))
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
