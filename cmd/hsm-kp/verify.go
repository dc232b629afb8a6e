package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func verifyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Category:  categoryLook,
		Usage:     "check key packages against RFC 9420",
		ArgsUsage: "FILE... (- is standard input)",
		Description: `Reports what in RFC 9420 can be decided of a key package without a group, each
finding with its section: keys, signatures, lifetime, capabilities, extensions,
credential. A finding is an error where a member of a group must refuse the key
package, else a warning. The exit status is 1 when any key package has an error
or cannot be decoded.

Examples:
   hsm-kp verify out/*.mls
   hsm-kp verify --json --at 2026-01-31T12:00:00Z keypackage.mls
   base64 -d <kp.txt | hsm-kp verify -`,
		Flags: []cli.Flag{
			&cli.TimestampFlag{Name: "at", Usage: "check the lifetime at `TIME` (RFC 3339) instead of now", Layout: time.RFC3339},
			&cli.StringFlag{Name: "max-lifetime", Usage: "warn of a total lifetime over `DURATION`", Value: "84d1h"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "say nothing of key packages that have no findings"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantSomeArgs(c, "FILE"); err != nil {
				return err
			}
			at := time.Now()
			if t := c.Timestamp("at"); t != nil {
				at = *t
			}
			longest, err := config.ParseDuration(c.String("max-lifetime"))
			if err != nil {
				return usagef("verify: --max-lifetime %v", err)
			}
			v := verifier{ui: u, json: c.Bool("json"), quiet: c.Bool("quiet"), policy: keypackage.Policy{
				Now:         uint64(max(at.Unix(), 0)),
				MaxLifetime: uint64(time.Duration(longest) / time.Second),
			}}
			return v.files(c.Args().Slice())
		},
	}
}

// defaultMaxLifetime is the longest total lifetime that no known peer refuses:
// 84 days and the hour before them.
const defaultMaxLifetime = 84*24*time.Hour + time.Hour

type verifier struct {
	ui     *ui
	json   bool
	quiet  bool
	policy keypackage.Policy
}

// verdict is the JSON form of what was found in one file.
type verdict struct {
	File     string               `json:"file"`
	OK       bool                 `json:"ok"`
	Ref      string               `json:"key_package_ref,omitempty"`
	Error    string               `json:"error,omitempty"`
	Findings []keypackage.Finding `json:"findings"`
}

func (v *verifier) files(names []string) error {
	bad := 0
	for _, name := range names {
		verdict := v.file(name)
		if !verdict.OK {
			bad++
		}
		if v.quiet && verdict.OK && len(verdict.Findings) == 0 {
			continue
		}
		if err := v.print(verdict); err != nil {
			return err
		}
	}
	if len(names) > 1 && !v.json {
		v.ui.printf("%s: %d valid, %d invalid\n", plural(len(names), "file"), len(names)-bad, bad)
	}
	if bad > 0 {
		return errSilent
	}
	return nil
}

// file checks one file. One that cannot be read, or is no key package, is a
// verdict like any other: the rest is checked all the same.
func (v *verifier) file(name string) verdict {
	kp, err := readKeyPackage(v.ui, name)
	if err != nil {
		return verdict{File: name, Error: err.Error(), Findings: []keypackage.Finding{}}
	}
	report := keypackage.Validate(kp.KeyPackage, v.policy)
	out := verdict{File: name, OK: report.OK(), Findings: append([]keypackage.Finding{}, report.Findings...)}
	if ref, err := kp.Ref(); err == nil {
		out.Ref = ref.String()
	}
	return out
}

func (v *verifier) print(d verdict) error {
	if v.json {
		return v.ui.jsonLine(d)
	}
	switch {
	case d.Error != "":
		v.ui.printf("%s\n", printable(d.Error))
	case d.OK:
		v.ui.printf("%s: ok\n", printable(d.File))
	default:
		v.ui.printf("%s: invalid\n", printable(d.File))
	}
	for _, f := range d.Findings {
		value := ""
		if f.Value != "" {
			value = fmt.Sprintf(" (%s)", f.Value)
		}
		v.ui.printf("  %v: %s%s [%s, %s]\n", f.Severity, f.Message, value, f.ID, f.Section)
	}
	return nil
}
