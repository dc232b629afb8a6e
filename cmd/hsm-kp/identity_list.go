package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

func identityListCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list identities",
		Description: `Examples:
   hsm-kp identity list
   hsm-kp identity list --json | jq -r .name`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			records, err := e.Identities(c.Context)
			if err != nil {
				return err
			}
			return u.printIdentities(records, c.Bool("json"))
		}),
	}
}

// printIdentities prints identities, one a line.
func (u *ui) printIdentities(records []store.Identity, asJSON bool) error {
	if len(records) == 0 && u.outTerm && !asJSON {
		u.notef("no identities")
	}
	for i := range records {
		r := &records[i]
		if asJSON {
			if err := u.jsonLine(identityOf(r)); err != nil {
				return err
			}
			continue
		}
		const row = "%-51s  %-20s  %s\n"
		if i == 0 {
			u.printf(row, "CIPHER SUITE", "CREATED", "NAME")
		}
		u.printf(row, ciphersuite.ID(r.Suite), r.CreatedAt.UTC().Format(time.RFC3339), r.Name)
	}
	return nil
}
