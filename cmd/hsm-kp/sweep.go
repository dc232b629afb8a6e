package main

import (
	"time"

	"github.com/urfave/cli/v2"
)

func sweepCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "sweep",
		Category: categoryKeep,
		Usage:    "erase what has expired, and end reservations whose time has come",
		Description: `A key package that nobody used keeps its private keys for key_packages.grace of the config
after it expired: a Welcome may be on its way. Then sweep erases them for good. Reservations
of "hsm-kp welcome open" that nobody confirmed or released end by themselves; sweep puts their
key packages back into the state in which they were.

It needs no token, may run beside everything else, also from cron, and does nothing where
there is nothing to do.

Examples:
   hsm-kp sweep
   hsm-kp sweep --json | jq .expired`,
		Flags: []cli.Flag{jsonFlag},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			now := time.Now()
			swept, err := e.store.Sweep(c.Context, now, now.Add(-time.Duration(e.config.KeyPackages.Grace)))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(sweptJSON(swept))
			}
			u.printf("erased %s, ended %s\n", plural(swept.Expired, "expired key package"), plural(swept.Released, "reservation"))
			return nil
		},
	}
}

// sweptJSON is what `sweep --json` prints.
type sweptJSON struct {
	Released uint64 `json:"reservations_ended"`
	Expired  uint64 `json:"expired"`
}
