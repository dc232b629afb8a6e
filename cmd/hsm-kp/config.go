package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/policy"
)

func configCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "config",
		Category: categoryStart,
		Usage:    "print a commented sample of the config file, or check one",
		Subcommands: []*cli.Command{
			{
				Name:  "sample",
				Usage: "print a config file with every field, its unit and its default",
				Description: `Examples:
   hsm-kp config sample >hsm-kp.yaml`,
				Action: func(c *cli.Context) error {
					if err := wantArgs(c); err != nil {
						return err
					}
					u.printf("%s", config.Sample())
					return nil
				},
			},
			{
				Name:      "check",
				Usage:     "report all faults of the config file at once",
				ArgsUsage: "[FILE]",
				Description: `Reads the file, and the roots and the service's certificates that it names, but no token and
no store. Without FILE, it reads the file that --config or HSM_KP_CONFIG names.

Examples:
   hsm-kp config check hsm-kp.yaml
   hsm-kp --config hsm-kp.yaml config check`,
				Action: func(c *cli.Context) error {
					path, _ := configPath(c)
					switch {
					case c.NArg() > 1:
						return usagef("config check: give at most one FILE")
					case c.NArg() == 1:
						path = c.Args().First()
					}
					return checkConfig(path, u)
				},
			},
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("config: there is no %q; it has sample and check", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

func checkConfig(path string, u *ui) error {
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	suitesErr := registerSuites(cfg)
	policyErr := policy.Check(cfg)
	_, tokenErr := tokenConfig(cfg)
	if err := errors.Join(suitesErr, policyErr, tokenErr, checkTLS(&cfg.Server)); err != nil {
		return fmt.Errorf("config %s: %w", path, err)
	}
	u.printf("%s: ok\n", path)
	return nil
}

// checkTLS reads the certificates of the service if it listens on TCP.
func checkTLS(c *config.Server) error {
	if !slices.ContainsFunc(c.Listen, func(where string) bool { return strings.HasPrefix(where, "tcp:") }) {
		return nil
	}
	_, err := openTLS(c)
	return err
}
