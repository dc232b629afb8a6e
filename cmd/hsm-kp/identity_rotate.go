package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func identityRotateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "rotate",
		Usage:     "give an identity a new signature key, or a new certificate, and replace its key packages",
		ArgsUsage: "NAME",
		Description: `Makes the next version of the identity, and as many key packages with it as it has to
replace. Then that version becomes the one that signs, and the earlier key packages are retired:
they are no longer handed out, Welcomes that used them still open for key_packages.grace of the
config, and then "hsm-kp sweep" erases their private keys. If a rotation was interrupted, the
next run continues it. From the moment that the next version signs, no key package of an earlier
version is handed out; the command then records them as retired batch by batch, while other
commands work, and "hsm-kp sweep" finishes that too.

With a basic credential the next version has a new signature key. With certificates it has
the key that --chain FILE certifies: the current key, or the next one, for which "hsm-kp identity
csr --next" makes the request. The old signature key stays in the token, because members sign
with it in the groups that they joined; "hsm-kp identity destroy-key" destroys it.

Key packages whose private keys belong to a device (custody device or release) are not replaced:
"hsm-kp provision" makes new ones for the device.

Examples:
   hsm-kp identity rotate alice --out spool/
   hsm-kp identity csr gateway --next >gateway.csr
   hsm-kp identity rotate gateway --chain gateway-chain.pem`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "chain", Usage: "the new chain of certificates from `FILE`, in PEM"},
			&cli.Uint64Flag{Name: "count", Aliases: []string{"n"}, Usage: "make `N` key packages", DefaultText: "as many as are pending, available, published or claimed"},
			custodyFlag,
			outFlag,
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "NAME"); err != nil {
				return err
			}
			r := operator.RotateIdentityRequest{Identity: c.Args().First(), Folder: c.String("out")}
			if c.IsSet("out") && r.Folder == "" {
				return usagef("identity rotate: --out names no folder")
			}
			if c.IsSet("count") {
				count := c.Uint64("count")
				r.Count = &count
			}
			var err error
			if r.Custody, err = chosenCustody("identity rotate", c.IsSet("custody"), c.String("custody")); err != nil {
				return err
			}
			if c.IsSet("chain") {
				if c.String("chain") == "" {
					return usagef("identity rotate: --chain names no file")
				}
				if r.Chain, err = readChain(u, c.String("chain")); err != nil {
					return err
				}
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			result, err := e.RotateIdentity(c.Context, r)
			return u.rotated(r.Identity, &result, c.Bool("json"), err)
		},
	}
}

// rotated prints what a rotation has done. It prints what was not replaced even if the rotation
// failed.
func (u *ui) rotated(name string, r *operator.RotateIdentityResult, asJSON bool, err error) error {
	if r.NotReplaced > 0 {
		u.notef("not replaced, because their private keys belong to a device: %s of %q; `hsm-kp provision` makes others", operator.Plural(r.NotReplaced, "key package"), name)
	}
	if err != nil {
		return err
	}
	if len(r.Chain) > 0 {
		u.notef("%s; %s", leafOf(r.Chain), endOf(r.Chain))
	}
	if asJSON {
		return u.json(rotatedJSON{name, r.Version, r.Generated, r.Retired, r.RetiredUntil})
	}
	u.printf("identity %q now signs as version %d, with %s\n", name, r.Version, operator.Plural(r.Generated, "new key package"))
	u.printRetired(r.Retired, r.RetiredUntil)
	return nil
}

// rotatedJSON is what `identity rotate --json` and `identity retire --json` print.
type rotatedJSON struct {
	Name         string    `json:"name"`
	Version      uint64    `json:"version"`
	Generated    uint64    `json:"generated"`
	Retired      uint64    `json:"retired"`
	RetiredUntil time.Time `json:"retired_until"`
}

// printRetired prints how many key packages were retired, and until when their Welcomes open.
func (u *ui) printRetired(n uint64, until time.Time) {
	u.printf("retired %s, whose Welcomes open until %s\n", operator.Plural(n, "key package"), until.Format(time.RFC3339))
}
