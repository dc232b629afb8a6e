package main

import (
	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/vault"
)

var custodyFlag = &cli.StringFlag{Name: "custody", Usage: "keep the private keys `WHERE`: wrapped or token", DefaultText: "the config's"}

// chosenCustody returns the custody that the command line of a verb names, or "" if it names none.
func chosenCustody(verb string, set bool, custody string) (string, error) {
	if set && custody != vault.CustodyWrapped && custody != vault.CustodyToken {
		return "", usagef("hsm-kp %s: --custody %q is neither wrapped nor token", verb, custody)
	}
	return custody, nil
}
