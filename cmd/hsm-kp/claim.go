package main

import (
	"context"
	"encoding/base64"
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

func claimCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "claim",
		Category: categoryKeep,
		Usage:    "hand out key packages to members who add the client to a group",
		Description: `Takes available key packages of an identity, valid now and not of last resort, the
oldest first, records them as claimed and prints each as an MLSMessage in base64. Each is handed
out once: two claims at the same time get different ones. If there are fewer than --count, the
command hands out those and fails.

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
			return e.claim(c.Context, c.String("identity"), c.Int("count"), c.Bool("json"))
		},
	}
}

// claimedJSON is a line of claim --json.
type claimedJSON struct {
	recordJSON
	Message string `json:"mls_message"` // base64
}

func (e *env) claim(ctx context.Context, name string, n int, asJSON bool) error {
	claimed, short := e.Claim(ctx, name, n)
	if short != nil && !errors.Is(short, operator.ErrNoneLeft) {
		return short
	}
	var faults []error // of single key packages: the others are claimed nevertheless
	for i := range claimed {
		faults = append(faults, e.printClaimed(&claimed[i], asJSON))
	}
	if err := errors.Join(append(faults, e.ui.flush())...); err != nil {
		return err
	}
	return short
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
