package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

func claimCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "claim",
		Category: categoryKeep,
		Usage:    "hand out key packages to whoever adds their client to a group",
		Description: `Takes available key packages of an identity, valid now and not of last resort, the
oldest first, records them as claimed and prints each as an MLSMessage in base64. Nobody else
gets them: of two claims at once, each gets others. Where there are fewer than asked for, that
is an error, and those that there are were handed out.

Examples:
   hsm-kp claim --identity alice
   hsm-kp claim --identity alice --json | jq -r .mls_message | base64 -d >alice.mls`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "identity", Aliases: []string{"i"}, Usage: "of `NAME`"},
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "hand out `N`", Value: 1},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			if c.String("identity") == "" {
				return usagef("claim: --identity NAME is missing")
			}
			if c.Int("count") < 1 {
				return usagef("claim: --count must be at least 1")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			return e.claim(c)
		},
	}
}

// claimedJSON is a line of claim --json.
type claimedJSON struct {
	recordJSON
	Message string `json:"mls_message"` // base64
}

// errNoneLeft reports an identity that has too few key packages to hand out.
var errNoneLeft = errors.New("no more of its key packages are available")

func (e *env) claim(c *cli.Context) error {
	name, want := c.String("identity"), c.Int("count")
	if _, err := e.Record(c.Context, name); err != nil {
		return err
	}
	claimed, err := e.store.Claim(c.Context, name, want, time.Now())
	if err != nil {
		return err
	}
	var faults []error // of one: the others were claimed all the same
	for i := range claimed {
		faults = append(faults, e.printClaimed(&claimed[i], c.Bool("json")))
	}
	if err := errors.Join(append(faults, e.ui.flush())...); err != nil {
		return err
	}
	if len(claimed) < want {
		return fmt.Errorf("identity %q: %w: %d of %d were handed out", name, errNoneLeft, len(claimed), want)
	}
	return nil
}

func (e *env) printClaimed(record *store.KeyPackage, asJSON bool) error {
	kp, err := inventory.Public(record)
	if err != nil {
		return err
	}
	message := base64.StdEncoding.EncodeToString(kp.Message())
	if asJSON {
		return e.ui.jsonLine(claimedJSON{recordOf(record), message})
	}
	e.ui.printf("%s\n", message)
	return nil
}
