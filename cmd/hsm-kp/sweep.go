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
			swept, err := e.Sweep(c.Context, operator.SweepRequest{Unfinished: time.Duration(age), DestroyUnused: true})
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(sweptJSON(swept))
			}
			u.printf("%s expired, erased %s, ended %s\n", operator.Plural(swept.Expired, "key package"), operator.Plural(swept.Erased, "key package"), operator.Plural(swept.Released, "reservation"))
			if swept.Finished > 0 {
				u.printf("finished with %s what was begun and interrupted\n", operator.Plural(swept.Finished, "key package"))
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
