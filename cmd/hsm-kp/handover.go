package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
)

func handoverCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "handover",
		Category: categoryKeep,
		Usage:    "end the handing over of private keys to devices (custody release)",
		Subcommands: []*cli.Command{
			handoverConfirmCommand(u),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("handover: there is no %q; it has confirm", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

func handoverConfirmCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "confirm",
		Usage:     "erase the private keys of key packages whose devices have them",
		ArgsUsage: "REF... (- takes them from standard input, one a line)",
		Description: `For key packages of custody release: their devices have opened what "hsm-kp provision"
handed over, and keep it. The private keys here are erased, and are handed over no more; the key
package stays as it is. What was confirmed before stays so: the command may be run again.

Until then the private keys are here, sealed, for the case that the device did not get them;
"hsm-kp list --unconfirmed" shows of which key packages. Confirm what devices say that they have, and
not what was sent: nobody can hand it over again.

All are looked at before the first is confirmed. --results takes the lines that "hsm-kp provision
--json" printed, and confirms what was handed over in them.

Examples:
   hsm-kp handover confirm 3f9a61c2
   hsm-kp handover confirm --results results.jsonl
   jq -c 'select(.name == "tablet-1")' results.jsonl | hsm-kp handover confirm --results -
   ssh device list-refs | hsm-kp handover confirm -`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "results", Usage: "what was handed over by the results in `FILE`"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if c.IsSet("results") {
				if c.NArg() > 0 {
					return usagef("handover confirm: --results takes no REF")
				}
			} else if err := wantSomeArgs(c, "REF"); err != nil {
				return err
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			refs, err := e.toConfirm(c)
			if err != nil {
				return err
			}
			return e.confirmHandovers(c, refs)
		},
	}
}

// toConfirm returns what the command line names, each once.
func (e *env) toConfirm(c *cli.Context) ([][]byte, error) {
	if name := c.String("results"); c.IsSet("results") {
		in, err := openInput(e.ui, name)
		if err != nil {
			return nil, err
		}
		defer in.Close()
		refs, err := readResults(in)
		if err != nil {
			return nil, usagef("handover confirm: results %s: %v", name, err)
		}
		return once(refs), nil
	}
	prefixes := c.Args().Slice()
	if len(prefixes) == 1 && prefixes[0] == "-" {
		var err error
		if prefixes, err = readWords(e.ui.in); err != nil {
			return nil, err
		}
	}
	inv := e.Records()
	var refs [][]byte
	var faults []error
	for _, prefix := range prefixes {
		ref, err := inv.Resolve(c.Context, prefix)
		faults = append(faults, err)
		refs = append(refs, ref)
	}
	return once(refs), errors.Join(faults...)
}

// openInput opens a file, or standard input where its name is "-".
func openInput(u *ui, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(u.in), nil
	}
	return os.Open(name)
}

func readWords(in io.Reader) (words []string, err error) {
	s := bufio.NewScanner(in)
	for s.Scan() {
		words = append(words, strings.Fields(s.Text())...)
	}
	return words, s.Err()
}

// errNotResults reports input that `provision --json` did not print.
var errNotResults = errors.New("it is not what `hsm-kp provision --json` prints")

// readResults returns the KeyPackageRefs of what results say was handed over.
func readResults(in io.Reader) ([][]byte, error) {
	var refs [][]byte
	d := json.NewDecoder(in)
	for n := 1; ; n++ {
		var device struct {
			Name        *string `json:"name"`
			Status      *string `json:"status"`
			KeyPackages []struct {
				Ref      string          `json:"key_package_ref"`
				Released json.RawMessage `json:"released"`
			} `json:"key_packages"`
		}
		err := d.Decode(&device)
		if errors.Is(err, io.EOF) {
			return refs, nil
		}
		if err != nil || device.Name == nil || device.Status == nil && device.KeyPackages == nil { // such as a manifest
			return nil, fmt.Errorf("result %d: %w", n, errNotResults)
		}
		for _, k := range device.KeyPackages {
			if len(k.Released) == 0 || string(k.Released) == "null" {
				continue
			}
			ref, err := hex.DecodeString(k.Ref)
			if err != nil || len(ref) == 0 {
				return nil, fmt.Errorf("result %d: %w", n, errNotResults)
			}
			refs = append(refs, ref)
		}
	}
}

// once returns each ref once, in the order in which it came first.
func once(refs [][]byte) [][]byte {
	seen := make(map[string]bool, len(refs))
	var out [][]byte
	for _, ref := range refs {
		if !seen[string(ref)] {
			seen[string(ref)] = true
			out = append(out, ref)
		}
	}
	return out
}

// confirmedJSON is what `handover confirm --json` prints.
type confirmedJSON struct {
	Confirmed uint64 `json:"confirmed"`
	Before    uint64 `json:"confirmed_before"` // or erased otherwise
}

func (e *env) confirmHandovers(c *cli.Context, refs [][]byte) error {
	if err := e.checkHandovers(c.Context, refs); err != nil {
		return err
	}
	inv, all := e.Records(), uint64(len(refs))
	var done confirmedJSON
	for len(refs) > 0 {
		if c.Context.Err() != nil {
			return fmt.Errorf("%w: %d of %s are confirmed: %w", operator.ErrPartial, done.Confirmed+done.Before, operator.Plural(all, "key package"), context.Cause(c.Context))
		}
		batch := refs[:min(max(e.config.Store.Batch, 1), len(refs))]
		refs = refs[len(batch):]
		n, err := inv.ConfirmHandover(context.WithoutCancel(c.Context), batch, time.Now())
		if err != nil {
			return err
		}
		done.Confirmed += n
		done.Before += uint64(len(batch)) - n
	}
	if c.Bool("json") {
		return e.ui.json(done)
	}
	e.ui.printf("confirmed %s, whose private keys are erased here\n", operator.Plural(done.Confirmed, "key package"))
	if done.Before > 0 {
		e.ui.printf("%d had none any more\n", done.Before)
	}
	return nil
}

// errNotHandedOver reports a key package that no device can have.
var errNotHandedOver = errors.New("it was not handed over to a device")

// shownRefs is how many refs an error names.
const shownRefs = 20

// checkHandovers refuses all where one cannot be confirmed: what is erased does not come back.
func (e *env) checkHandovers(ctx context.Context, refs [][]byte) error {
	var faults []error
	for _, ref := range refs {
		record, err := e.store.KeyPackage(ctx, ref)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return err
		case record.HandedOverAt.IsZero():
			err = errNotHandedOver
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("key package %v: %w", keypackage.Ref(ref), err))
		}
	}
	if more := len(faults) - shownRefs; more > 0 {
		faults = append(faults[:shownRefs], fmt.Errorf("and %d more", more))
	}
	return errors.Join(faults...)
}

// releasedJSON is what a device gets of one key package: docs/FORMATS.md has it byte by byte.
// Bytes are in base64.
type releasedJSON struct {
	KEM        uint16 `json:"kem_id"` // these three as in RFC 9180, Section 7
	KDF        uint16 `json:"kdf_id"`
	AEAD       uint16 `json:"aead_id"`
	Info       []byte `json:"info"`
	Enc        []byte `json:"enc"`
	Ciphertext []byte `json:"ciphertext"`
}

func releasedOf(id ciphersuite.ID, r *vault.Released) *releasedJSON {
	out := &releasedJSON{Info: r.Info, Enc: r.Enc, Ciphertext: r.Ciphertext}
	if s, ok := ciphersuite.Lookup(id); ok {
		out.KEM, out.KDF, out.AEAD = s.KEM, s.KDF, s.AEAD
	}
	return out
}
