package main

import (
	"encoding/hex"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func wrapKeyRewrapCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "rewrap",
		Usage: "move what is under old wrapping keys to the current one",
		Description: `Private keys that may still be used are unsealed and sealed again, or unwrapped and
wrapped again within the token, and stamps of identities are made again. The command may be
interrupted and run again at any time, while other commands work; what was done stays done.

Examples:
   hsm-kp wrap-key rewrap
   hsm-kp wrap-key rewrap --from 5b0c7f0f`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "from", Usage: "only what is under the key with this `ID`, or the first digits of it", DefaultText: "all that are not current"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			if c.IsSet("from") && c.String("from") == "" {
				return usagef("wrap-key rewrap: --from names no key")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			return e.Rewrap(c.Context, operator.RewrapRequest{From: c.String("from"), Each: func(r operator.Rewrapped) error {
				return u.printRewrapped(&r, c.Bool("json"))
			}})
		},
	}
}

// rewrappedJSON is what `wrap-key rewrap --json` prints for each key.
type rewrappedJSON struct {
	From        string `json:"from"`
	KeyPackages uint64 `json:"key_packages"`
	Identities  uint64 `json:"identities"`
	Left        uint64 `json:"left"` // do not open
}

func (u *ui) printRewrapped(r *operator.Rewrapped, asJSON bool) error {
	if asJSON {
		return u.jsonLine(rewrappedJSON{hex.EncodeToString(r.From.ID), r.KeyPackages, r.Identities, r.Left})
	}
	left := ""
	if r.Left > 0 {
		left = "; " + operator.Plural(r.Left, "key package") + " left as before"
	}
	u.printf("from %x: %s, stamps of %s%s\n", r.From.ID, operator.Plural(r.KeyPackages, "key package"), operator.PluralOf(r.Identities, "identity", "identities"), left)
	return nil
}
