package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

var welcomeFlag = &cli.StringFlag{Name: "welcome", Usage: "only if it is reserved for the Welcome with this `DIGEST`, or the first digits of it"}

func welcomeConfirmCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "confirm",
		Usage:     "erase the private keys of a key package whose Welcome was opened",
		ArgsUsage: "REF",
		Description: `Run this when the member exists: its key package must never open another Welcome. Use of
one of last resort is only counted, and its keys stay. The command erases the private init key. It
erases the leaf's private key too if "hsm-kp welcome open" handed it over; otherwise that key is
kept for "hsm-kp decrypt" until you run the command with --leaf, because the member has another
leaf or has left the group.

Examples:
   hsm-kp welcome confirm 3f9a61c2`,
		Flags: []cli.Flag{
			welcomeFlag,
			jsonFlag,
			&cli.BoolFlag{Name: "leaf", Usage: "erase the private key of the leaf, which was kept: the member has another leaf now"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "REF"); err != nil {
				return err
			}
			if c.Bool("leaf") && c.IsSet("welcome") {
				return usagef("welcome confirm: --leaf and --welcome do not go together")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			if c.Bool("leaf") {
				return e.eraseLeaf(c.Context, c.Args().First(), c.Bool("json"))
			}
			record, err := e.Reserved(c.Context, c.Args().First(), c.String("welcome"))
			if err == nil {
				record, err = e.ConfirmWelcome(c.Context, record.Ref, record.WelcomeDigest)
			}
			if err != nil {
				return err
			}
			return u.printEnded(&record, c.Bool("json"))
		},
	}
}

// eraseLeaf erases the private key of a leaf.
func (e *env) eraseLeaf(ctx context.Context, prefix string, asJSON bool) error {
	record, err := e.Find(ctx, prefix)
	if err == nil {
		record, err = e.EraseLeaf(ctx, record.Ref)
	}
	if err != nil {
		return err
	}
	if asJSON {
		return e.ui.json(recordOf(&record))
	}
	e.ui.printf("the private key of the leaf of %x is erased\n", record.Ref)
	return nil
}

// printEnded prints the state of a key package whose reservation ended.
func (u *ui) printEnded(record *store.KeyPackage, asJSON bool) error {
	if asJSON {
		return u.json(recordOf(record))
	}
	u.printf("%x is %s\n", record.Ref, record.State)
	if len(record.Leaf) > 0 {
		u.notef("its leaf's private key stays: `hsm-kp welcome confirm --leaf` erases it once the member has another")
	}
	return nil
}
