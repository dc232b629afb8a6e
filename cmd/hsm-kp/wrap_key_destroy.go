package main

import (
	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

func wrapKeyDestroyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "destroy",
		Usage:     "destroy a wrapping key in the token, and with it everything that is under it",
		ArgsUsage: "ID",
		Description: `What is under the key no longer opens, neither here nor in any copy of the store. The
command refuses a current key, and a key that still protects private keys which may be used;
"hsm-kp wrap-key rewrap" moves them to another. --shred erases these private keys, and no
others: at once, nothing opens with them; then the key is destroyed; then they are erased from
the store, batch by batch, while other commands work. The command may be interrupted and run
again; "hsm-kp sweep" finishes it too. It cannot be undone.

Examples:
   hsm-kp wrap-key destroy 5b0c7f0f
   hsm-kp wrap-key destroy --shred 5b0c7f0f`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "shred", Usage: "erase the private keys that are under it"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "ID"); err != nil {
				return err
			}
			if c.Args().First() == "" {
				return usagef("wrap-key destroy: ID is empty")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			done, err := e.DestroyWrappingKey(c.Context, operator.DestroyWrappingKeyRequest{Key: c.Args().First(), Shred: c.Bool("shred")})
			if err != nil {
				return adviseDestroy(err)
			}
			return e.printDestroyed(&done, c.Bool("json"))
		},
	}
}

// destroyedJSON is what `wrap-key destroy --json` prints.
type destroyedJSON struct {
	wrappingKeyJSON
	Shredded uint64 `json:"key_packages_erased"`
}

// adviseDestroy says what to do first if a wrapping key is not destroyed.
func adviseDestroy(err error) error {
	err = advise(err, store.ErrState, "`hsm-kp wrap-key rotate` makes another key the current one")
	return advise(err, store.ErrInUse, "`hsm-kp wrap-key rewrap` puts them under the current wrapping key; --shred erases them")
}

func (e *env) printDestroyed(done *operator.DestroyWrappingKeyResult, asJSON bool) error {
	if asJSON {
		return e.ui.json(destroyedJSON{wrappingKeyOf(&done.Key), done.Erased})
	}
	also := ""
	if done.Erased > 0 {
		also = ", and with it the private keys of " + operator.Plural(done.Erased, "key package")
	}
	e.ui.printf("destroyed wrapping key %x in token %q%s\n", done.Key.ID, e.token.Info().Label, also)
	return nil
}
