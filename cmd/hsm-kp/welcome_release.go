package main

import "github.com/urfave/cli/v2"

func welcomeReleaseCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "release",
		Usage:     "give back a key package whose Welcome is not used",
		ArgsUsage: "REF",
		Description: `The key package returns to the state that it had before the Welcome was opened. The
secrets that were printed stay valid.

Examples:
   hsm-kp welcome release 3f9a61c2`,
		Flags: []cli.Flag{welcomeFlag, jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			record, err := e.Reserved(c.Context, c.Args().First(), c.String("welcome"))
			if err == nil {
				record, err = e.ReleaseWelcome(c.Context, record.Ref, record.WelcomeDigest)
			}
			if err != nil {
				return err
			}
			return u.printEnded(&record, c.Bool("json"))
		}, "REF"),
	}
}
