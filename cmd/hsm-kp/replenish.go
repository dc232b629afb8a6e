package main

import (
	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func replenishCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "replenish",
		Category: categoryKeep,
		Usage:    "publish key packages of identities that have too few in a directory",
		Description: `The level of an identity is how many of its key packages a directory has, or is being
sent: of the current version, not of last resort, valid for longer than replenish.ending
of the config, and not known to be used. If a delivery service reports how many it has
left, the command queries it; otherwise the store knows only of the use of those that a
Welcome arrived for.

If the level is below replenish.low, the command publishes key packages until it is at
replenish.high: available ones first, then new ones. Before that, it sends what an earlier
run did not finish sending. With replenish.last_resort each identity also has a key package
of last resort, which is replaced after it was used or when it is old. The command makes no
key packages for identities whose private keys belong to a device (custody device or release;
"hsm-kp provision" does that), nor for identities that have no certificate yet.

Run it from cron, on several machines at once if you like: if two runs find the same
identity low, one fills it up. It prints nothing if there was nothing to do.

Examples:
   hsm-kp replenish
   hsm-kp replenish --dry-run
   hsm-kp replenish --identity alice --directory main --json`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "identity", Aliases: []string{"i"}, Usage: "`NAME`; may be repeated", DefaultText: "all identities"},
			directoryFlag,
			&cli.StringFlag{Name: "suite", Usage: "identities with cipher suite `SUITE`, a name or a number", DefaultText: "any"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be done, and do nothing"},
			jsonFlag,
		},
		Action: with(u, func(c *cli.Context, e *env) error {
			choice, err := e.choice(c.StringSlice("identity"), c.String("suite"))
			if err != nil {
				return err
			}
			show := u.printReplenished
			if c.Bool("json") {
				show = func(r operator.Replenished) error { return u.jsonLine(replenishedJSON(r)) }
			} else if c.Bool("dry-run") {
				show = u.printPlan
			}
			return e.Replenish(c.Context, operator.ReplenishRequest{
				Choice: choice, Directory: c.String("directory"), DryRun: c.Bool("dry-run"), Each: show,
			})
		}),
	}
}

// replenishedJSON is a line of replenish --json.
type replenishedJSON struct {
	Identity   string `json:"identity"`
	Directory  string `json:"directory"`
	Level      uint64 `json:"level"` // before
	Available  uint64 `json:"available"`
	Low        uint64 `json:"low"`
	High       uint64 `json:"high"`
	Generated  uint64 `json:"generated"` // with --dry-run: would be
	Published  uint64 `json:"published"`
	LastResort bool   `json:"last_resort_due"`
	Elsewhere  bool   `json:"elsewhere"` // another run is working on it
}

// printPlan prints what would be done, if there is anything to do.
func (u *ui) printPlan(r operator.Replenished) error {
	if r.Published > 0 {
		u.printf("%s: level %d in %q is below %d: would make %s and publish %d\n", r.Identity, r.Level, r.Directory, r.Low, operator.Plural(r.Generated, "key package"), r.Published)
	}
	if r.LastResort {
		u.printf("%s: would make a key package of last resort\n", r.Identity)
	}
	return nil
}

// printReplenished prints what was done, if there was anything to do.
func (u *ui) printReplenished(r operator.Replenished) error {
	if r.Published > 0 {
		u.printf("%s: level was %d in %q, below %d: made %s and published %d\n", r.Identity, r.Level, r.Directory, r.Low, operator.Plural(r.Generated, "key package"), r.Published)
	}
	if r.LastResort {
		u.printf("%s: made a key package of last resort\n", r.Identity)
	}
	return nil
}
