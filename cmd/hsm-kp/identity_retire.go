package main

import "github.com/urfave/cli/v2"

func identityRetireCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "retire",
		Usage:     "retire an identity: it no longer signs, and its key packages are retired",
		ArgsUsage: "NAME",
		Description: `Its key packages are no longer handed out; Welcomes that used them still open for
key_packages.grace of the config, and then "hsm-kp sweep" erases their private keys. The command
takes effect for all of them at once; it then records them as retired batch by batch, while other
commands work. If it was interrupted, run it again, or "hsm-kp sweep". The signature key stays in
the token until "hsm-kp identity destroy-key". "hsm-kp identity rotate" reactivates the identity
with a new version.

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
			u.printf("identity %q no longer signs\n", name)
			u.printRetired(result.Retired, result.RetiredUntil)
			return nil
		}, "NAME"),
	}
}
