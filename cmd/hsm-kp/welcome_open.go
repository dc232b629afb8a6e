package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/welcome"
)

func welcomeOpenCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "open",
		Usage:     "open a Welcome and print the secrets of the new member",
		ArgsUsage: "FILE (- is standard input)",
		Description: `Reads a Welcome as an MLSMessage or bare, raw, in hexadecimal or in base64, and finds
its key package. The key package is reserved while your MLS library makes a member of the
output; then "hsm-kp welcome confirm REF" erases its private keys, or "hsm-kp welcome release
REF" gives it back; with --welcome DIGEST they do so only if it has not been reserved for another
Welcome since. The reservation ends by itself after welcome.reservation of the config; until then
the same Welcome opens again, and no other opens with the key package. --consume does both steps
at once.

A Welcome that is forged or damaged, is not for a key package of the store or is for one that was
consumed, or needs a pre-shared key that was not given, uses nothing up.

The command prints the group and its epoch, the joiner secret, the path secret if there is one,
the epoch authenticator and the GroupInfo; with "unwrap: {allow: true}" in the config, it also
prints the leaf's private encryption key. All of it except the authenticator is secret.

Examples:
   hsm-kp welcome open --json welcome.mls | my-mls-client join && hsm-kp welcome confirm 3f9a61c2
   hsm-kp welcome open --psk 746f6b656e=psk.bin --ratchet-tree tree.bin welcome.mls
   base64 -d <welcome.txt | hsm-kp welcome open --consume --json -`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "psk", Usage: "an external pre-shared key: `ID=FILE`, the id in hexadecimal; may be repeated"},
			&cli.StringFlag{Name: "ratchet-tree", Usage: "the group's ratchet tree from `FILE`, raw, if the Welcome does not carry it"},
			&cli.StringFlag{Name: "identity", Aliases: []string{"i"}, Usage: "open it as `NAME`, if it is for several identities"},
			&cli.BoolFlag{Name: "consume", Usage: "erase the private keys after everything is printed"},
			jsonFlag,
		},
		Action: with(u, func(c *cli.Context, e *env) error {
			r := operator.OpenWelcomeRequest{Identity: c.String("identity"), HandOverLeaf: true}
			var err error
			if r.Welcome, err = readWelcome(u, c.Args().First()); err != nil {
				return err
			}
			if r.PSK, err = readPSKs(c.StringSlice("psk")); err != nil {
				return err
			}
			if path := c.String("ratchet-tree"); path != "" {
				if r.RatchetTree, err = readInput(u, path, maxWelcomeBytes); err != nil {
					return err
				}
			}
			return e.openWelcome(c.Context, r, c.Bool("consume"), c.Bool("json"))
		}, "FILE"),
	}
}

// openWelcome opens a Welcome and prints its contents. To consume it, openWelcome confirms it after
// everything is printed.
func (e *env) openWelcome(ctx context.Context, r operator.OpenWelcomeRequest, consume, asJSON bool) error {
	opened, err := e.OpenWelcome(ctx, r)
	if err != nil {
		return err
	}
	defer opened.Clear()
	out := welcomeOf(opened)
	record := &opened.Record
	if asJSON {
		if !consume {
			out.ReservedUntil = record.ReservedUntil.UTC().Format(time.RFC3339)
		}
		err = e.ui.json(out)
	} else {
		out.print(e.ui)
	}
	if err == nil {
		err = e.ui.flush() // the output is complete before anything is erased
	}
	if err != nil {
		return err
	}
	if record.LastResort {
		e.ui.notef("it is a key package of last resort: `hsm-kp generate --identity %s --last-resort --if-due` replaces it", printable(record.Identity))
	}
	if consume {
		_, err := e.ConfirmWelcome(context.WithoutCancel(ctx), record.Ref, record.WelcomeDigest)
		return err
	}
	e.ui.notef("reserved until %s: `hsm-kp welcome confirm %.16v` or `hsm-kp welcome release %.16v`",
		record.ReservedUntil.Format(time.RFC3339), keypackage.Ref(record.Ref), keypackage.Ref(record.Ref))
	return nil
}

// welcomeJSON is what `welcome open --json` prints. Bytes are in hexadecimal.
type welcomeJSON struct {
	Ref                string `json:"key_package_ref"`
	Identity           string `json:"identity"`
	Suite              string `json:"cipher_suite"`
	GroupID            string `json:"group_id"`
	Epoch              uint64 `json:"epoch"`
	JoinerSecret       string `json:"joiner_secret"`
	PathSecret         string `json:"path_secret,omitempty"`
	EncryptionKey      string `json:"encryption_private_key,omitempty"`
	EpochAuthenticator string `json:"epoch_authenticator"`
	SignatureVerified  bool   `json:"signature_verified"`
	WelcomeDigest      string `json:"welcome_digest"` // SHA-256 of the bare Welcome
	ReservedUntil      string `json:"reserved_until,omitempty"`
	GroupInfo          string `json:"group_info"`
}

func welcomeOf(o *operator.OpenedWelcome) welcomeJSON {
	g := &o.GroupInfo.GroupContext
	return welcomeJSON{
		Ref:                hex.EncodeToString(o.Record.Ref),
		Identity:           o.Record.Identity,
		Suite:              g.CipherSuite.String(),
		GroupID:            hex.EncodeToString(g.GroupID),
		Epoch:              g.Epoch,
		JoinerSecret:       hex.EncodeToString(o.JoinerSecret),
		PathSecret:         hex.EncodeToString(o.PathSecret),
		EncryptionKey:      hex.EncodeToString(o.LeafKey),
		EpochAuthenticator: hex.EncodeToString(o.EpochAuthenticator),
		SignatureVerified:  o.SignatureVerified,
		WelcomeDigest:      hex.EncodeToString(o.Record.WelcomeDigest),
		GroupInfo:          hex.EncodeToString(o.GroupInfo.Bytes()),
	}
}

func (w *welcomeJSON) print(u *ui) {
	u.printf("key_package_ref         %s\n", w.Ref)
	u.printf("identity                %s\n", w.Identity)
	u.printf("cipher_suite            %s\n", w.Suite)
	u.printf("group_id                %s\n", w.GroupID)
	u.printf("epoch                   %d\n", w.Epoch)
	u.printf("joiner_secret           %s\n", w.JoinerSecret)
	if w.PathSecret != "" {
		u.printf("path_secret             %s\n", w.PathSecret)
	}
	if w.EncryptionKey != "" {
		u.printf("encryption_private_key  %s\n", w.EncryptionKey)
	}
	u.printf("epoch_authenticator     %s\n", w.EpochAuthenticator)
	u.printf("signature_verified      %v\n", w.SignatureVerified)
	u.printf("welcome_digest          %s\n", w.WelcomeDigest)
	u.printf("group_info              %s\n", w.GroupInfo)
}

// readPSKs reads external pre-shared keys, each ID=FILE.
func readPSKs(texts []string) (func(welcome.PSKID) ([]byte, bool), error) {
	keys := make(map[string][]byte)
	for _, text := range texts {
		digits, path, ok := strings.Cut(text, "=")
		id, err := hex.DecodeString(digits)
		if !ok || err != nil || len(id) == 0 || path == "" {
			return nil, usagef("welcome open: --psk %q is not ID=FILE with the id in hexadecimal", text)
		}
		if keys[string(id)], err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("read pre-shared key: %w", err)
		}
	}
	return func(id welcome.PSKID) ([]byte, bool) {
		key, ok := keys[string(id.ID)]
		return key, ok && id.Type == welcome.PSKExternal
	}, nil
}
