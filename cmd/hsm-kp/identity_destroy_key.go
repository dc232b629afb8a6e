package main

import (
	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

func identityDestroyKeyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "destroy-key",
		Usage:     "destroy an old signature key in the token",
		ArgsUsage: "NAME",
		Description: `Destroys the key of a version that no longer signs: an old version, or the current one of a
retired identity. It can also destroy the key of a next version, which is then given up.
Members that joined a group with the key sign with it there until they have replaced it: make
sure that they have. The command refuses while key packages that the key signed may still be
used, unless --force is given. It cannot be undone.

Examples:
   hsm-kp identity show alice
   hsm-kp identity destroy-key alice --version 1`,
		Flags: []cli.Flag{
			&cli.Uint64Flag{Name: "version", Usage: "the key of version `N`", DefaultText: "the current one of a retired identity"},
			&cli.BoolFlag{Name: "force", Usage: "destroy the key even if key packages that it signed may still be used"},
			jsonFlag,
		},
		Action: with(u, func(c *cli.Context, e *env) error {
			if c.IsSet("version") && c.Uint64("version") == 0 {
				return usagef("identity destroy-key: --version counts from 1")
			}
			destroyed, err := e.DestroySignatureKey(c.Context, operator.DestroySignatureKeyRequest{
				Identity: c.Args().First(), Version: c.Uint64("version"), Force: c.Bool("force"),
			})
			if err != nil {
				err = advise(err, store.ErrState, "`hsm-kp identity show` shows the versions; `hsm-kp identity rotate` makes another one current, `hsm-kp identity retire` retires all")
				return advise(err, store.ErrInUse, "`hsm-kp sweep` erases retired key packages when their grace is over; --force destroys the key nevertheless, unless another identity signs with it")
			}
			if c.Bool("json") {
				return u.json(versionOf(&destroyed))
			}
			u.printf("destroyed signature key %x of identity %q, version %d\n", destroyed.KeyID, destroyed.Name, destroyed.Version)
			return nil
		}, "NAME"),
	}
}
