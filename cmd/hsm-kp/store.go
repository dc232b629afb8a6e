package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

func storeCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:        "store",
		Category:    categoryKeep,
		Usage:       "the store itself: move it to another database",
		Subcommands: []*cli.Command{storeMigrateCommand(u)},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("store: there is no %q; it has migrate", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

func storeMigrateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "migrate",
		Usage: "copy the store to another one, from SQLite to PostgreSQL or back",
		Description: `Copies all records as they are, in one transaction: identities, keys, key packages with
their sealed private keys and their states, and the audit trail with its chain. The token is not
touched. The other store is made where there is none, and must have no records.

Nobody writes to the old store while it is copied, and it stays as it is. Afterwards set
store.url in the config to the new one, everywhere, and put the old one away: a key package
that two stores hand out is handed out twice. Its backups open with the same token.

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
			counts, err := e.migrateTo(c.Context, target)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(counts)
			}
			u.printf("copied %s, %s and %s of the trail to %s\n", operator.PluralOf(uint64(counts["identities"]), "identity", "identities"),
				operator.Plural(uint64(counts["key_packages"]), "key package"), operator.PluralOf(uint64(counts["audit"]), "entry", "entries"), target)
			u.notef("set store.url in the config to it, everywhere, and put the old store away")
			return nil
		}),
	}
}

// errNoCopy reports a backend whose records cannot be copied.
var errNoCopy = errors.New("its records cannot be copied")

// migrateTo copies the store, and returns how many rows of each table.
func (e *env) migrateTo(ctx context.Context, target place) (counts map[string]int64, err error) {
	source, ok := e.store.(record.Source)
	if !ok {
		return nil, fmt.Errorf("store %s: %w", e.place, errNoCopy)
	}
	to, err := target.open(ctx, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	sink, ok := to.(record.Sink)
	if !ok {
		return nil, fmt.Errorf("store %s: %w", target, errNoCopy)
	}
	err = source.Snapshot(ctx, func(s record.Snapshot) error {
		counts, err = sink.Load(ctx, s)
		if err != nil {
			return fmt.Errorf("copy to store %s: %w", target, err)
		}
		return nil
	})
	return counts, err
}
