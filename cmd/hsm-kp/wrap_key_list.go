package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func wrapKeyListCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list the wrapping keys, and what is under them",
		Description: `A key is current if new key packages are put under it, kept while something may be
under it, condemned if its destruction was begun and not completed ("hsm-kp sweep" completes it),
or destroyed.

Examples:
   hsm-kp wrap-key list
   hsm-kp wrap-key list --json | jq -r 'select(.state == "kept") | .wrapping_key_id'`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			keys, err := e.WrappingKeys(c.Context)
			if err != nil {
				return err
			}
			return u.printWrappingKeys(keys, c.Bool("json"))
		}),
	}
}

// printWrappingKeys prints a table, or a JSON object a line.
func (u *ui) printWrappingKeys(keys []operator.WrappingKeyUse, asJSON bool) error {
	const row = "%-32s  %-7s  %-12s  %-9s  %-20s  %10s  %12s\n"
	if !asJSON && len(keys) > 0 {
		u.printf(row, "WRAPPING KEY", "PURPOSE", "MECHANISM", "STATE", "CREATED", "USES", "KEY PACKAGES")
	}
	for _, use := range keys {
		k := wrappingKeyOf(&use.WrappingKey)
		if !asJSON {
			u.printf(row, k.ID, k.Purpose, k.Mechanism, k.State, k.CreatedAt.Format(time.RFC3339), fmt.Sprint(k.Uses), fmt.Sprint(use.KeyPackages))
			continue
		}
		k.KeyPackages, k.Identities = &use.KeyPackages, &use.Identities
		if err := u.jsonLine(k); err != nil {
			return err
		}
	}
	return nil
}
