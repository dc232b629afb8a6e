package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func storeMigrateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "migrate",
		Usage: "copy the store to another one, from SQLite to PostgreSQL or back",
		Description: `Copies all records as they are, in one transaction: identities, keys, key packages with
their sealed private keys and their states, and the audit trail with its chain. The token is not
used. The other store is made if it does not exist, and must have no records.

The old store is locked for writing while it is copied, and does not change. Afterwards, set
store.url in every config to the new store, and put the old one away: if both stores are used,
both hand out the same key packages. Backups of the old store open with the same token.

Examples:
   hsm-kp store migrate --to postgres:///hsm-kp
   hsm-kp store migrate --to sqlite:/var/lib/hsm-kp/hsm-kp.db --json`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "copy to the store at `URL`"},
			jsonFlag,
		},
		Action: with(u, func(c *cli.Context, e *env) error {
			if c.String("to") == "" {
				return usagef("store migrate: --to URL is missing")
			}
			target, err := placeOf(e.config, c.String("to"))
			if err != nil {
				return err
			}
			if target == e.place {
				return usagef("store migrate: --to names the store itself")
			}
			rows, err := e.migrateTo(c.Context, target)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(rows)
			}
			u.printf("copied %s, %s and %s of the trail to %s\n", operator.PluralOf(uint64(rows["identities"]), "identity", "identities"),
				operator.Plural(uint64(rows["key_packages"]), "key package"), operator.PluralOf(uint64(rows["audit"]), "entry", "entries"), target)
			u.notef("set store.url in the config to it, everywhere, and put the old store away")
			return nil
		}),
	}
}

// migrateTo copies the store to another one, which it makes if it does not exist.
func (e *env) migrateTo(ctx context.Context, target place) (rows map[string]int64, err error) {
	to, err := target.open(ctx, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if rows, err = e.Migrate(ctx, to); err != nil {
		return nil, fmt.Errorf("copy to store %s: %w", target, err)
	}
	return rows, nil
}
