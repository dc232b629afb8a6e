package main

import "github.com/urfave/cli/v2"

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
