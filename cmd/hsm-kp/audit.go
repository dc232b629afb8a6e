package main

import "github.com/urfave/cli/v2"

func auditCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "audit",
		Category: categoryLook,
		Usage:    "the audit trail of acts on keys: show, verify, sign a checkpoint",
		Subcommands: []*cli.Command{
			auditShowCommand(u), auditVerifyCommand(u), auditCheckpointCommand(u), auditKeyCommand(u),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("audit: there is no %q; it has show, verify, checkpoint and key", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}
