package main

import "github.com/urfave/cli/v2"

func identityRetireCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "retire",
		Usage:     "end an identity: it signs no more, and its key packages are retired",
		ArgsUsage: "NAME",
		Description: `Its key packages are handed out no more; Welcomes that used them still open for
key_packages.grace of the config, and then "hsm-kp sweep" erases their private keys. None is
handed out from the first moment on; they are written down as retired batch by batch, beside
everything else. If it was interrupted, run it again, or "hsm-kp sweep". The signature key stays
in the token until "hsm-kp identity destroy-key". "hsm-kp identity rotate" begins the identity
anew.

Examples:
   hsm-kp identity retire alice
   hsm-kp identity retire alice && hsm-kp identity destroy-key alice --force`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			name := c.Args().First()
			result, err := e.RetireIdentity(c.Context, name)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(rotatedJSON{Name: name, Version: result.Version, Retired: result.Retired, RetiredUntil: result.RetiredUntil})
			}
			u.printf("identity %q signs no more\n", name)
			u.printRetired(result.Retired, result.RetiredUntil)
			return nil
		}, "NAME"),
	}
}
