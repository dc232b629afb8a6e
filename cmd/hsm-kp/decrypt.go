package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

func decryptCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "decrypt",
		Category:  categoryKeep,
		Usage:     "decrypt a path secret with the leaf key of a key package whose Welcome was opened",
		ArgsUsage: "REF FILE (- is standard input)",
		Description: `The private key of the leaf outlives the Welcome: the path secret of the next commits is
encrypted to it (RFC 9420, Section 7.6), until the member's own commit or update replaces the
leaf. It is kept here if "hsm-kp welcome open" did not hand it over, and always with custody
token, until "hsm-kp welcome confirm --leaf REF".

FILE has an HPKECiphertext, raw, in hexadecimal or in base64: the one of encrypted_path_secret
that is for this leaf. --context has the encoded GroupContext that it was encrypted under. The
command prints the path secret.

Examples:
   hsm-kp decrypt 3f9a61c2 --context group-context.bin ciphertext.bin
   hsm-kp decrypt 3f9a61c2 --context group-context.bin --json - <ciphertext.hex`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "context", Usage: "the encoded GroupContext from `FILE`, raw; - is standard input"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "REF", "FILE"); err != nil {
				return err
			}
			if c.String("context") == "" {
				return usagef("decrypt: --context FILE is missing")
			}
			if c.String("context") == "-" && c.Args().Get(1) == "-" {
				return usagef("decrypt: --context and FILE are both standard input")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			return e.decrypt(c.Context, c.Args().First(), c.Args().Get(1), c.String("context"), c.Bool("json"))
		},
	}
}

// errNotCiphertext reports input that is not an HPKECiphertext.
var errNotCiphertext = errors.New("not an HPKECiphertext")

// maxGroupContextBytes bounds a GroupContext.
const maxGroupContextBytes = 1 << 20

// decrypt decrypts the path secret in a file, which was encrypted under the GroupContext in another.
func (e *env) decrypt(ctx context.Context, prefix, file, groupContext string, asJSON bool) error {
	data, err := readInput(e.ui, file, maxKeyPackageBytes)
	if err != nil {
		return err
	}
	ciphertext, err := parseCiphertext(data)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if ciphertext.Context, err = readInput(e.ui, groupContext, maxGroupContextBytes); err != nil {
		return err
	}
	record, err := e.Find(ctx, prefix)
	if err != nil {
		return err
	}
	secret, err := e.DecryptPathSecret(ctx, record.Ref, ciphertext)
	if err != nil {
		return advise(err, store.ErrState, "run `hsm-kp welcome open` first")
	}
	defer clear(secret)
	if asJSON {
		return e.ui.json(pathSecretJSON{hex.EncodeToString(record.Ref), hex.EncodeToString(secret)})
	}
	e.ui.printf("path_secret  %x\n", secret)
	return nil
}

// pathSecretJSON is what `decrypt --json` prints.
type pathSecretJSON struct {
	Ref        string `json:"key_package_ref"`
	PathSecret string `json:"path_secret"`
}

// parseCiphertext reads an HPKECiphertext (RFC 9420, Section 7.6).
func parseCiphertext(data []byte) (inventory.Ciphertext, error) {
	raw, _, err := decodeText(data)
	if err != nil {
		raw = data
	}
	for _, b := range [][]byte{raw, data} {
		r := wire.NewReader(b)
		c := inventory.Ciphertext{KEMOutput: r.Vector(), Ciphertext: r.Vector()}
		if r.Finish() == nil {
			return c, nil
		}
	}
	return inventory.Ciphertext{}, errNotCiphertext
}
