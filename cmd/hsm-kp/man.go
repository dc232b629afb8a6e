package main

import (
	"github.com/urfave/cli/v2"
)

//go:generate sh -c "go run . man >../../docs/man/hsm-kp.1"

func manCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "man",
		Category: categoryHelp,
		Usage:    "print the manual page",
		Description: `Examples:
   hsm-kp man | man -l -
   hsm-kp man >/usr/local/share/man/man1/hsm-kp.1`,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			page, err := c.App.ToManWithSection(1)
			if err != nil {
				return err
			}
			u.printf("%s", page)
			return nil
		},
	}
}
