package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func generateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "generate",
		Category: categoryMake,
		Usage:    "make key packages: signed in the token, private keys sealed and stored",
		Description: `Nothing is printed or written before it is durable in the store. Ctrl-C ends the
current batch, stores it and prints how many key packages there are; run the
command again for the rest. With --out the key packages are pending until their
files are on the disk, and then published. "hsm-kp export --pending" writes those
that a crash left pending.

The command warns of what MLS implementations would refuse to add to a group, by
the rules of "hsm-kp verify --for"; key_packages.peers in the config names the
implementations that matter.

Examples:
   hsm-kp generate --identity alice --count 1000
   hsm-kp generate --identity alice --count 50 --out spool/
   hsm-kp generate --identity alice --last-resort --if-due
   hsm-kp generate --identity alice --count 10 --custody token
   hsm-kp generate --identity alice --count 10 --json | jq -r .key_package_ref`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "identity", Aliases: []string{"i"}, Usage: "sign as `NAME`"},
			&cli.Uint64Flag{Name: "count", Aliases: []string{"n"}, Usage: "make `N` key packages", Value: 1},
			&cli.StringFlag{Name: "lifetime", Usage: "valid for `DURATION` from now, as 84d or 36h (default: the config's)"},
			&cli.BoolFlag{Name: "last-resort", Usage: "mark them as key packages of last resort"},
			&cli.BoolFlag{Name: "if-due", Usage: "with --last-resort: only if the previous one was used or is old, and retire that one"},
			custodyFlag,
			&cli.StringFlag{Name: "application-id", Usage: "put `TEXT` into the leaf nodes as application_id", DefaultText: "the config's"},
			&cli.StringSliceFlag{Name: "extension", Usage: "add an extension to the key packages: `TYPE=HEX`, as 0xF001=00ff; may be repeated"},
			&cli.StringSliceFlag{Name: "leaf-extension", Usage: "add an extension to the leaf nodes: `TYPE=HEX`; may be repeated"},
			&cli.StringFlag{Name: "for", Usage: "warn of what `PEERS` would refuse: names separated by commas, or all", DefaultText: "the config's, or all"},
			outFlag,
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			if c.String("identity") == "" {
				return usagef("generate: --identity NAME is missing")
			}
			if c.Uint64("count") == 0 {
				return usagef("generate: --count must be at least 1")
			}
			if c.IsSet("out") && c.String("out") == "" {
				return usagef("generate: --out names no folder")
			}
			if c.Bool("if-due") && (!c.Bool("last-resort") || c.Uint64("count") != 1) {
				return usagef("generate: --if-due is for one key package of last resort")
			}
			r := operator.GenerateRequest{
				Identity: c.String("identity"), Count: c.Uint64("count"), LastResort: c.Bool("last-resort"), IfDue: c.Bool("if-due"), Folder: c.String("out"),
			}
			if c.IsSet("application-id") {
				r.ApplicationID = []byte(c.String("application-id"))
			}
			var faults [5]error
			r.Custody, faults[0] = chosenCustody("generate", c.IsSet("custody"), c.String("custody"))
			r.Lifetime, faults[1] = parseLifetime(c.String("lifetime"))
			r.LeafExtensions, faults[2] = parseExtensions("leaf-extension", c.StringSlice("leaf-extension"))
			r.Extensions, faults[3] = parseExtensions("extension", c.StringSlice("extension"))
			if c.IsSet("for") {
				r.Peers, faults[4] = parsePeers("generate", c.String("for"))
			}
			if err := errors.Join(faults[:]...); err != nil {
				return err
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			if c.Bool("json") {
				r.Each = u.printGenerated
			}
			result, err := e.Generate(c.Context, r)
			return u.generated(&r, &result, c.Bool("json"), err)
		},
	}
}

// parseLifetime reads --lifetime. An empty text returns 0.
func parseLifetime(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := config.ParseDuration(text)
	if err != nil {
		return 0, usagef("generate: --lifetime %v", err)
	}
	if d <= 0 {
		return 0, usagef("generate: --lifetime must be longer than 0")
	}
	return time.Duration(d), nil
}

// parseExtensions reads the values of --extension or --leaf-extension.
func parseExtensions(flag string, texts []string) ([]keypackage.Extension, error) {
	var list []keypackage.Extension
	for _, text := range texts {
		e, err := parseExtension(text)
		if err != nil {
			return nil, usagef("generate: --%s %v", flag, err)
		}
		list = append(list, e)
	}
	return list, nil
}

// parseExtension reads TYPE=HEX, where TYPE is decimal or hexadecimal after 0x.
func parseExtension(text string) (keypackage.Extension, error) {
	number, digits, ok := strings.Cut(text, "=")
	if !ok {
		return keypackage.Extension{}, fmt.Errorf("%q is not TYPE=HEX; an extension without data ends in =", text)
	}
	t, err := parseCodePoint(number)
	if err != nil {
		return keypackage.Extension{}, err
	}
	data, err := hex.DecodeString(digits)
	if err != nil {
		return keypackage.Extension{}, fmt.Errorf("%q must have hexadecimal digits after =, two for each byte", text)
	}
	return keypackage.Extension{Type: keypackage.ExtensionType(t), Data: data}, nil
}

// parseCodePoint reads a number of 16 bits, decimal or hexadecimal after 0x.
func parseCodePoint(text string) (uint16, error) {
	digits, base := text, 10
	if after, ok := strings.CutPrefix(strings.ToLower(text), "0x"); ok {
		digits, base = after, 16
	}
	n, err := strconv.ParseUint(digits, base, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number from 0 to 65535, or from 0x0000 to 0xFFFF", text)
	}
	return uint16(n), nil
}

// generatedJSON is a line of generate --json.
type generatedJSON struct {
	recordJSON
	File string `json:"file,omitempty"`
}

// printGenerated prints a batch, one line for each key package.
func (u *ui) printGenerated(batch []operator.Written) error {
	for i := range batch {
		if err := u.jsonLine(generatedJSON{recordJSON: recordOf(&batch[i].KeyPackage), File: batch[i].File}); err != nil {
			return err
		}
	}
	return u.flush()
}

// generated prints what was done and, if err is not nil, what is left to do.
func (u *ui) generated(r *operator.GenerateRequest, g *operator.GenerateResult, asJSON bool, err error) error {
	if g.Identity == nil {
		if err == nil && !g.Due {
			u.notef("the key package of last resort of %q is fresh: nothing to do", r.Identity)
		}
		return err
	}
	done := fmt.Sprintf("%s for %q (%v) in %v", operator.Plural(g.Stored, "key package"), g.Identity.Name, g.Identity.Suite.ID, g.Took.Round(time.Millisecond))
	switch {
	case err != nil && g.Folder != "" && g.Stored > g.Written:
		u.notef("%s stored; the last %d are pending: `hsm-kp export --pending --out %s` writes them", done, g.Stored-g.Written, g.Folder)
	case err != nil && (g.Stored > 0 || errors.Is(err, operator.ErrPartial)):
		u.notef("%s stored", done)
	case err != nil: // before the first key package
	case asJSON:
	default:
		u.printf("generated %s, %.0f a second\n", done, float64(g.Stored)/g.Took.Seconds())
		if g.Folder != "" {
			u.printf("wrote them to %s\n", g.Folder)
		}
		if err = u.flush(); err != nil {
			u.notef("%s stored", done)
		}
	}
	return err
}
