package main

import (
	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func replenishCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "replenish",
		Category: categoryKeep,
		Usage:    "see to it that identities have enough key packages published",
		Description: `The level of an identity is how many of its key packages a directory has, or is being
sent: of the current version, not of last resort, valid for longer than replenish.ending
of the config, and not known to be used. A delivery service that tells how many it
has left is asked; otherwise the store knows of those that a Welcome came for, and of
no others.

Where the level is below replenish.low, key packages are published until it is at
replenish.high: those that are available first, then new ones. What was on its way when
an earlier run ended is sent first of all. With replenish.last_resort there is a key
package of last resort beside them, which is replaced once it was used or is old. For an identity whose
private keys are a device's (custody device or release) nothing is made: "hsm-kp provision" does that.
Nor is anything for one that has no certificate yet.

It is made to be run from cron, on several machines at once: of two runs that find the
same identity low, one fills it up. It prints nothing where there was nothing to do.

Examples:
   hsm-kp replenish
   hsm-kp replenish --dry-run
   hsm-kp replenish --identity alice --directory main --json`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "identity", Aliases: []string{"i"}, Usage: "`NAME`; may be repeated", DefaultText: "all identities"},
			directoryFlag,
			&cli.StringFlag{Name: "suite", Usage: "identities with cipher suite `SUITE`, a name or a number", DefaultText: "any"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be done, and do nothing"},
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

// printPlan says what would be done, if there is anything.
func (u *ui) printPlan(r operator.Replenished) error {
	if r.Published > 0 {
		u.printf("%s: level %d in %q is below %d: would make %s and publish %d\n", r.Identity, r.Level, r.Directory, r.Low, operator.Plural(r.Generated, "key package"), r.Published)
	}
	if r.LastResort {
		u.printf("%s: would make a key package of last resort\n", r.Identity)
	}
	return nil
}

// printReplenished says what was done, if there was anything.
func (u *ui) printReplenished(r operator.Replenished) error {
	if r.Published > 0 {
		u.printf("%s: level was %d in %q, below %d: made %s and published %d\n", r.Identity, r.Level, r.Directory, r.Low, operator.Plural(r.Generated, "key package"), r.Published)
	}
	if r.LastResort {
		u.printf("%s: made a key package of last resort\n", r.Identity)
	}
	return nil
}
