package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/sample"
)

func welcomeSampleCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "sample",
		Usage:     "make a sample Welcome, for evaluation",
		ArgsUsage: "KEYPACKAGE (- is standard input)",
		Description: `Makes a group of one member in software, which adds the client of the key package, and
writes the Welcome as an MLSMessage, raw. The group's id begins with "hsm-kp sample", and its
keys are discarded: use it only to try "hsm-kp welcome open" and the join of an MLS library. It
needs no token, no store and no config. Experimental cipher suites come from the config that
--config or HSM_KP_CONFIG names.

It reads the key package as "hsm-kp inspect" does, and does not validate it: see "hsm-kp verify".

Examples:
   hsm-kp welcome sample keypackage.mls --out welcome.mls && hsm-kp welcome open welcome.mls
   hsm-kp welcome sample - <keypackage.mls | hsm-kp welcome open --consume -`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write to `FILE` instead of standard output"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "KEYPACKAGE"); err != nil {
				return err
			}
			out := c.String("out")
			switch {
			case c.IsSet("out") && out == "":
				return usagef("welcome sample: --out names no file")
			case out == "" && u.outTerm:
				return usagef("welcome sample: a Welcome is binary: redirect standard output, or name a file with --out")
			}
			path, named := configPath(c)
			knowSuites(path, named, u)
			kp, err := readKeyPackage(u, c.Args().First())
			if err != nil {
				return err
			}
			w, err := sample.Welcome(kp.KeyPackage, time.Now())
			if err != nil {
				return err
			}
			if err := u.writeSample(w.Message(), out); err != nil {
				return err
			}
			u.notef("this is a sample: its group has no other member, and its keys are discarded")
			return nil
		},
	}
}

// writeSample writes a Welcome to a file, or to standard output if out is empty.
func (u *ui) writeSample(message []byte, out string) error {
	if out == "" {
		u.printf("%s", message)
		return nil
	}
	if err := directory.ReplaceFile(out, message, 0o644); err != nil {
		return fmt.Errorf("write the sample Welcome: %w", err)
	}
	return nil
}
