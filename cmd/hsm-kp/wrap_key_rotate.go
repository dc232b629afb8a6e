package main

import (
	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func wrapKeyRotateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "rotate",
		Usage: "make a new wrapping key the current one",
		Description: `New key packages are put under it from then on. What is under the old key stays there
until it ends, or until "hsm-kp wrap-key rewrap" moves it.

Examples:
   hsm-kp wrap-key rotate
   hsm-kp wrap-key rotate --to 5b0c7f0f11b2d64bd94eb9cd27f9a3e1
   hsm-kp wrap-key rotate && hsm-kp wrap-key rewrap && hsm-kp wrap-key destroy OLD`,
		Flags: []cli.Flag{
			purposeFlag(),
			mechanismFlag("that of the current key"),
			&cli.StringFlag{Name: "to", Usage: "use the existing key with this `ID`, or the first digits of it, instead of a new one"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			if c.IsSet("to") && c.String("to") == "" {
				return usagef("wrap-key rotate: --to names no key")
			}
			if c.IsSet("to") && c.IsSet("mechanism") {
				return usagef("wrap-key rotate: --mechanism is for a new key, and --to names one")
			}
			k, err := newWrappingKey(c.Command.HelpName, c.String("purpose"), c.String("mechanism"), c.IsSet("mechanism"))
			if err != nil {
				return err
			}
			if c.IsSet("to") && !c.IsSet("purpose") {
				k.Purpose = "" // any: the key has its own
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			key, err := e.RotateWrappingKey(c.Context, operator.RotateWrappingKeyRequest{New: k, To: c.String("to")})
			if err != nil {
				return adviseMechanism(err)
			}
			return e.printWrappingKey("current is", &key, c.Bool("json"))
		},
	}
}
