package main

import (
	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/vault"
)

var custodyFlag = &cli.StringFlag{Name: "custody", Usage: "keep the private keys `WHERE`: wrapped or token", DefaultText: "the config's"}

// chosenCustody is the custody that the command line asks for; empty: it does not.
func chosenCustody(c *cli.Context) (string, error) {
	custody := c.String("custody")
	if c.IsSet("custody") && custody != vault.CustodyWrapped && custody != vault.CustodyToken {
		return "", usagef("%s: --custody %q is neither wrapped nor token", c.Command.HelpName, custody)
	}
	return custody, nil
}
