package main

import "github.com/urfave/cli/v2"

func welcomeReleaseCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "release",
		Usage:     "give back a key package whose Welcome is not used after all",
		ArgsUsage: "REF",
		Description: `The key package is in the state again in which it was before the Welcome was opened.
Whoever has the secrets of the Welcome keeps them.

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
