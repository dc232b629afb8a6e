package main

import (
	"strings"

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
			describe("hsm-kp", c.App.Commands)
			page, err := c.App.ToManWithSection(1)
			if err != nil {
				return err
			}
			u.printf("%s", page)
			return nil
		},
	}
}

// describe moves the descriptions, with their examples, to the usage texts: the
// library's manual page has room for text only there.
func describe(path string, commands []*cli.Command) {
	for _, c := range commands {
		name := path + " " + c.Name
		c.UsageText = strings.TrimSpace(name+" "+c.ArgsUsage) + "\n\n" + c.Description
		describe(name, c.Subcommands)
	}
}
