package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// errNotWelcome reports input that is no Welcome in any of the forms that are
// understood.
var errNotWelcome = errors.New("not a Welcome")

func welcomeCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "welcome",
		Category: categoryKeep,
		Usage:    "open a Welcome with the key package that it is for, once",
		Subcommands: []*cli.Command{
			welcomeOpenCommand(u),
			welcomeEndCommand(u, "confirm", "erase the private keys of a key package whose Welcome was opened",
				`The member exists: its key package must never open another Welcome. One of last
resort is only counted, and stays. What is erased is the private init key, and that of the leaf
where "hsm-kp welcome open" handed it over; otherwise that one is kept for "hsm-kp decrypt",
until --leaf says that the member has another leaf, or is in the group no more.`,
				func(ctx context.Context, inv *inventory.Inventory, ref keypackage.Ref, digest []byte) error {
					return inv.Confirm(ctx, ref, digest, time.Now())
				}, &cli.BoolFlag{Name: "leaf", Usage: "erase the private key of the leaf, which was kept: the member has another leaf by now"}),
			welcomeEndCommand(u, "release", "give back a key package whose Welcome is not used after all",
				`The key package is in the state again in which it was before the Welcome was opened.
Whoever has the secrets of the Welcome keeps them.`,
				func(ctx context.Context, inv *inventory.Inventory, ref keypackage.Ref, digest []byte) error {
					return inv.Release(ctx, ref, digest, time.Now())
				}),
			welcomeSampleCommand(u),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("welcome: there is no %q; it has open, confirm, release and sample", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

func welcomeOpenCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "open",
		Usage:     "open a Welcome and print what a member is made of",
		ArgsUsage: "FILE (- is standard input)",
		Description: `Takes a Welcome as an MLSMessage or bare, raw, in hexadecimal or in base64, and finds
the key package that it is for. The key package is reserved while somebody makes a
member of what is printed; then "hsm-kp welcome confirm REF" erases its private keys, or
"hsm-kp welcome release REF" gives it back; with --welcome DIGEST they do so only if nobody
else has taken it since. The reservation ends by itself after
welcome.reservation of the config; until then no other Welcome opens with the key package, and
the same one opens again. --consume does both steps at once.

A Welcome that is forged, damaged, for nobody here, for a key package that was
consumed, or that needs a pre-shared key which was not given, costs nothing.

Printed are the group and its epoch, the joiner secret, the path secret where there is
one, the epoch authenticator and the GroupInfo; with "unwrap: {allow: true}" in the config
also the leaf's private encryption key. All of it but the authenticator is secret.

Examples:
   hsm-kp welcome open --json welcome.mls | my-mls-client join && hsm-kp welcome confirm 3f9a61c2
   hsm-kp welcome open --psk 746f6b656e=psk.bin --ratchet-tree tree.bin welcome.mls
   base64 -d <welcome.txt | hsm-kp welcome open --consume --json -`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "psk", Usage: "an external pre-shared key: `ID=FILE`, the id in hexadecimal; may be repeated"},
			&cli.StringFlag{Name: "ratchet-tree", Usage: "the group's ratchet tree from `FILE`, raw, where the Welcome does not carry it"},
			&cli.StringFlag{Name: "identity", Aliases: []string{"i"}, Usage: "open it as `NAME`, where it is for several identities"},
			&cli.BoolFlag{Name: "consume", Usage: "erase the private keys once all is printed"},
			jsonFlag,
		},
		Action: with(u, func(c *cli.Context, e *env) error {
			return e.openWelcome(c)
		}, "FILE"),
	}
}

// welcomeEndCommand makes a command that ends a reservation.
func welcomeEndCommand(u *ui, name, usage, description string, end func(context.Context, *inventory.Inventory, keypackage.Ref, []byte) error, more ...cli.Flag) *cli.Command {
	return &cli.Command{
		Name:        name,
		Usage:       usage,
		ArgsUsage:   "REF",
		Description: description + "\n\nExamples:\n   hsm-kp welcome " + name + " 3f9a61c2",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "welcome", Usage: "only if it is reserved for the Welcome with this `DIGEST`, or its first digits"},
			jsonFlag,
		}, more...),
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
			inv := e.Records() // no token is needed
			ref, err := inv.Resolve(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			if c.Bool("leaf") {
				return e.confirmLeaf(c.Context, ref, c.Bool("json"))
			}
			record, err := e.store.KeyPackage(c.Context, ref)
			if err != nil {
				return err
			}
			if want := strings.ToLower(c.String("welcome")); !strings.HasPrefix(hex.EncodeToString(record.WelcomeDigest), want) {
				return fmt.Errorf("%s: key package %v: %w: it is not reserved for the Welcome %s", name, ref, store.ErrState, want)
			}
			if err := end(c.Context, inv, ref, record.WelcomeDigest); err != nil {
				return err
			}
			if record, err = e.store.KeyPackage(c.Context, ref); err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(recordOf(&record))
			}
			u.printf("%v is %s\n", ref, record.State)
			if len(record.Leaf) > 0 {
				u.notef("its leaf's private key stays: `hsm-kp welcome confirm --leaf` erases it once the member has another")
			}
			return nil
		},
	}
}

func (e *env) openWelcome(c *cli.Context) error {
	w, err := readWelcome(e.ui, c.Args().First())
	if err != nil {
		return err
	}
	psk, err := readPSKs(c.StringSlice("psk"))
	if err != nil {
		return err
	}
	request := inventory.WelcomeRequest{Welcome: w, Identity: c.String("identity"), PSK: psk, Now: time.Now(), KeepLeaf: !e.config.Unwrap.Allow}
	request.Until = request.Now.Add(time.Duration(e.config.Welcome.Reservation))
	if path := c.String("ratchet-tree"); path != "" {
		if request.RatchetTree, err = readInput(e.ui, path, maxWelcomeBytes); err != nil {
			return err
		}
	}
	inv, err := e.Inventory(c.Context)
	if err != nil {
		return err
	}
	opened, err := inv.OpenWelcome(c.Context, request)
	if err != nil {
		return err
	}
	defer opened.Clear()
	out, err := e.welcomeOf(c.Context, opened)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if !c.Bool("consume") {
			out.ReservedUntil = opened.Record.ReservedUntil.UTC().Format(time.RFC3339)
		}
		err = e.ui.json(out)
	} else {
		out.print(e.ui)
	}
	if err == nil {
		err = e.ui.flush() // whoever asked has it, before anything is erased
	}
	ref := keypackage.Ref(opened.Record.Ref)
	if err == nil && opened.Record.LastResort {
		e.ui.notef("it is a key package of last resort: `hsm-kp generate --identity %s --last-resort --if-due` makes another in its place", printable(opened.Record.Identity))
	}
	switch {
	case err != nil:
		return err
	case c.Bool("consume"):
		return inv.Confirm(context.WithoutCancel(c.Context), ref, opened.Record.WelcomeDigest, time.Now())
	}
	e.ui.notef("reserved until %s: `hsm-kp welcome confirm %.16v` or `hsm-kp welcome release %.16v`",
		opened.Record.ReservedUntil.Format(time.RFC3339), ref, ref)
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

// welcomeOf is what is printed. That the leaf's private key is shown is in the trail
// first.
func (e *env) welcomeOf(ctx context.Context, o *inventory.OpenedWelcome) (welcomeJSON, error) {
	g := &o.GroupInfo.GroupContext
	out := welcomeJSON{
		Ref:                hex.EncodeToString(o.Record.Ref),
		Identity:           o.Record.Identity,
		Suite:              g.CipherSuite.String(),
		GroupID:            hex.EncodeToString(g.GroupID),
		Epoch:              g.Epoch,
		JoinerSecret:       hex.EncodeToString(o.JoinerSecret),
		PathSecret:         hex.EncodeToString(o.PathSecret),
		EpochAuthenticator: hex.EncodeToString(o.EpochAuthenticator),
		SignatureVerified:  o.SignatureVerified,
		WelcomeDigest:      hex.EncodeToString(o.Record.WelcomeDigest),
		GroupInfo:          hex.EncodeToString(o.GroupInfo.Bytes()),
	}
	if secret, ok := o.Keys.Secret(); ok && e.config.Unwrap.Allow {
		key := secret.Encryption.Bytes()
		out.EncryptionKey = hex.EncodeToString(key)
		clear(key)
		return out, e.store.Record(ctx, audit.Entry{
			Time: time.Now(), Act: audit.Unwrapped, Identity: o.Record.Identity, Ref: o.Record.Ref, KeyID: o.Record.WrappingKeyID, Detail: "the leaf's key",
		})
	}
	return out, nil
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

// readWelcome reads a Welcome from the file called name, or from standard input
// where that is "-".
func readWelcome(u *ui, name string) (*keypackage.Welcome, error) {
	data, err := readInput(u, name, maxWelcomeBytes)
	if err != nil {
		return nil, err
	}
	w, err := decodeWelcome(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return w, nil
}

// decodeWelcome takes what begins with no zero byte, and is no text, for raw: the number
// of an experimental cipher suite may begin so.
func decodeWelcome(data []byte) (*keypackage.Welcome, error) {
	raw, _, err := decodeText(data)
	if err != nil {
		raw = data
	}
	w, err := keypackage.DecodeWelcome(raw)
	message, messageErr := keypackage.ParseMessage(raw)
	switch {
	case err != nil && messageErr == nil && message.WireFormat != keypackage.WireFormatWelcome:
		return nil, fmt.Errorf("%w: it is an MLSMessage that holds %v", errNotWelcome, message.WireFormat)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNotWelcome, err)
	}
	return w, nil
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
