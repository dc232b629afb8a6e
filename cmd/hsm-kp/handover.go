package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func handoverCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "handover",
		Category: categoryKeep,
		Usage:    "complete the handover of private keys to devices (custody release)",
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
		Usage:     "erase private keys after the devices have received them",
		ArgsUsage: "REF... (- takes them from standard input, one a line)",
		Description: `For key packages of custody release whose devices have opened and keep what "hsm-kp
provision" handed over. The command erases the private keys here, so that they cannot be handed
over again; the key packages do not change otherwise. It may be run again: key packages that were
confirmed before stay confirmed.

Until then the private keys stay here, sealed, in case the device did not get them; "hsm-kp list
--unconfirmed" lists these key packages. Confirm what the devices report that they have, not what
was sent: it cannot be handed over again.

The command checks all key packages before it confirms the first. --results reads the lines that
"hsm-kp provision --json" printed, and confirms what they handed over.

Examples:
   hsm-kp handover confirm 3f9a61c2
   hsm-kp handover confirm --results results.jsonl
   jq -c 'select(.name == "tablet-1")' results.jsonl | hsm-kp handover confirm --results -
   ssh device list-refs | hsm-kp handover confirm -`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "results", Usage: "confirm what the results in `FILE` handed over"},
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
			refs, err := e.toConfirm(c.Context, c.Args().Slice(), c.IsSet("results"), c.String("results"))
			if err != nil {
				return err
			}
			done, err := e.ConfirmHandovers(c.Context, refs)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(confirmedJSON(done))
			}
			u.printf("confirmed %s, whose private keys are erased here\n", operator.Plural(done.Confirmed, "key package"))
			if done.Before > 0 {
				u.printf("%d had none left\n", done.Before)
			}
			return nil
		},
	}
}

// toConfirm returns the refs of the results in a file, or those that begin with prefixes, each once.
func (e *env) toConfirm(ctx context.Context, prefixes []string, fromResults bool, results string) ([][]byte, error) {
	if !fromResults {
		if len(prefixes) == 1 && prefixes[0] == "-" {
			var err error
			if prefixes, err = readWords(e.ui.in); err != nil {
				return nil, err
			}
		}
		return e.Resolve(ctx, prefixes)
	}
	in, err := openInput(e.ui, results)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	refs, err := readResults(in)
	if err != nil {
		return nil, usagef("handover confirm: results %s: %v", results, err)
	}
	return once(refs), nil
}

func readWords(in io.Reader) (words []string, err error) {
	s := bufio.NewScanner(in)
	for s.Scan() {
		words = append(words, strings.Fields(s.Text())...)
	}
	return words, s.Err()
}

// errNotResults reports input that is not the output of `provision --json`.
var errNotResults = errors.New("it is not what `hsm-kp provision --json` prints")

// readResults returns the KeyPackageRefs that the results handed over.
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

// once returns each ref once, in the order of first occurrence.
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
