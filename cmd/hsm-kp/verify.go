package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/policy"
	"github.com/hsm-kp/hsm-kp/internal/profile"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func verifyCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Category:  categoryLook,
		Usage:     "check key packages against RFC 9420",
		ArgsUsage: "FILE... (- is standard input)",
		Description: `Checks what RFC 9420 says about a key package that can be checked without a group,
and reports each finding with its section: keys, signatures, lifetime, capabilities,
extensions, credential, X.509 chain. The exit status is 1 if any key package has an
error or cannot be decoded.

The policy decides which findings are errors:
   strict   all: for your own key packages before they are published
   rfc      what RFC 9420 requires those who add a client to refuse (the default)
   lenient  what leaves a key package without meaning or protection

With --for it also reports which MLS implementations would refuse to add the key package
to a group, and why; a refusal counts as an error. "all" names every implementation
whose rules are known: ` + strings.Join(profile.Names(), ", ") + `.

Experimental cipher suites come from the config that --config or HSM_KP_CONFIG names;
nothing else in it is used.

Examples:
   hsm-kp verify out/*.mls
   hsm-kp verify --for openmls,mls-rs out/*.mls
   hsm-kp verify --policy strict --roots roots.pem out/*.mls
   hsm-kp verify --rules
   hsm-kp verify --json --at 2026-01-31T12:00:00Z keypackage.mls
   base64 -d <kp.txt | hsm-kp verify -`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "policy", Aliases: []string{"p"}, Usage: "be `strict`, rfc or lenient", Value: "rfc"},
			&cli.TimestampFlag{Name: "at", Usage: "check lifetime and certificates at `TIME` (RFC 3339) instead of now", Layout: time.RFC3339},
			&cli.StringFlag{Name: "max-lifetime", Usage: "warn of a total lifetime over `DURATION`", Value: "84d1h"},
			&cli.StringFlag{Name: "roots", Usage: "require X.509 chains to lead to a root in `FILE` (PEM)"},
			&cli.StringSliceFlag{Name: "require-extension", Usage: "require the extension `TYPE` in capabilities; may be repeated"},
			&cli.StringSliceFlag{Name: "require-proposal", Usage: "require the proposal `TYPE` in capabilities; may be repeated"},
			&cli.StringSliceFlag{Name: "require-credential", Usage: "require the credential `TYPE` in capabilities; may be repeated"},
			&cli.StringFlag{Name: "for", Usage: "check the rules of `PEERS`: names separated by commas, or all"},
			&cli.BoolFlag{Name: "rules", Usage: "list the rules instead of checking files"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print nothing for key packages that have no findings"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if c.Bool("rules") {
				if err := wantArgs(c); err != nil {
					return err
				}
				return u.printRules(c.Bool("json"))
			}
			if err := wantSomeArgs(c, "FILE"); err != nil {
				return err
			}
			path, named := configPath(c)
			knowSuites(path, named, u)
			policy, err := verifyPolicy(c.Timestamp("at"), c.String("max-lifetime"), c.String("policy"), c.String("roots"))
			if err != nil {
				return err
			}
			if policy.Required, err = requiredOf(c.StringSlice("require-extension"), c.StringSlice("require-proposal"), c.StringSlice("require-credential")); err != nil {
				return err
			}
			var peers []*profile.Profile
			if c.IsSet("for") { // an empty value is refused: it may be an unset variable
				if peers, err = parsePeers("verify", c.String("for")); err != nil {
					return err
				}
			}
			v := verifier{ui: u, peers: peers, json: c.Bool("json"), quiet: c.Bool("quiet"), policy: policy}
			return v.files(c.Args().Slice())
		},
	}
}

// printRules prints every rule with its severity at each policy.
func (u *ui) printRules(asJSON bool) error {
	const row = "%-30s  %-7s  %-7s  %-7s  %-24s  %s\n"
	if !asJSON {
		u.printf(row, "FINDING", "STRICT", "RFC", "LENIENT", "SECTION", "MEANS THAT")
	}
	for _, r := range keypackage.Rules() {
		if asJSON {
			if err := u.jsonLine(r); err != nil {
				return err
			}
			continue
		}
		u.printf(row, r.ID, r.Strict, r.RFC, r.Lenient, r.Section, r.Message)
	}
	return nil
}

// levels are the policies that --policy names.
var levels = map[string]keypackage.Level{
	"strict":  keypackage.LevelStrict,
	"rfc":     keypackage.LevelRFC,
	"lenient": keypackage.LevelLenient,
}

// verifyPolicy returns the policy of the command line. A nil time is now.
func verifyPolicy(at *time.Time, maxLifetime, level, roots string) (keypackage.Policy, error) {
	var p keypackage.Policy
	if at == nil {
		now := time.Now()
		at = &now
	}
	p.Now = uint64(max(at.Unix(), 0))
	longest, err := config.ParseDuration(maxLifetime)
	if err != nil {
		return p, usagef("verify: --max-lifetime %v", err)
	}
	p.MaxLifetime = uint64(time.Duration(longest) / time.Second)
	var ok bool
	if p.Level, ok = levels[level]; !ok {
		return p, usagef("verify: --policy must be strict, rfc or lenient, not %q", level)
	}
	p.Roots, err = policy.Roots(roots)
	return p, err
}

// requiredOf reads --require-extension and the like.
func requiredOf(extensions, proposals, credentials []string) (keypackage.RequiredCapabilities, error) {
	var r config.Required
	for _, f := range []struct {
		flag  string
		texts []string
		list  *[]uint16
	}{{"require-extension", extensions, &r.Extensions}, {"require-proposal", proposals, &r.Proposals}, {"require-credential", credentials, &r.Credentials}} {
		for _, text := range f.texts {
			n, err := parseCodePoint(text)
			if err != nil {
				return keypackage.RequiredCapabilities{}, usagef("verify: --%s %v", f.flag, err)
			}
			*f.list = append(*f.list, n)
		}
	}
	return policy.Required(r), nil
}

// parsePeers reads the value of a verb's --for: names of profiles, separated by commas.
func parsePeers(verb, text string) ([]*profile.Profile, error) {
	peers, err := policy.Peers(strings.Split(text, ","))
	if err != nil {
		return nil, usagef("%s: --for %v", verb, err)
	}
	return peers, nil
}

type verifier struct {
	ui     *ui
	peers  []*profile.Profile
	json   bool
	quiet  bool
	policy keypackage.Policy
}

// verdict is the JSON form of the findings about one file.
type verdict struct {
	File     string               `json:"file"`
	OK       bool                 `json:"ok"`
	Ref      string               `json:"key_package_ref,omitempty"`
	Error    string               `json:"error,omitempty"`
	Findings []keypackage.Finding `json:"findings"`
	Refusals []profile.Refusal    `json:"refusals,omitempty"`
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
		v.ui.printf("%s: %d valid, %d invalid\n", operator.Plural(len(names), "file"), len(names)-bad, bad)
	}
	if bad > 0 {
		return errSilent
	}
	return nil
}

// file checks one file. If it cannot be read, or is not a key package, that is a
// verdict like any other: the other files are still checked.
func (v *verifier) file(name string) verdict {
	kp, err := readKeyPackage(v.ui, name)
	if err != nil {
		return verdict{File: name, Error: err.Error(), Findings: []keypackage.Finding{}}
	}
	report := keypackage.Validate(kp.KeyPackage, v.policy)
	out := verdict{File: name, OK: report.OK(), Findings: append([]keypackage.Finding{}, report.Findings...)}
	for _, p := range v.peers {
		out.Refusals = append(out.Refusals, p.Refusals(kp.KeyPackage, report.Findings)...)
	}
	out.OK = out.OK && len(out.Refusals) == 0
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
	for _, r := range d.Refusals {
		value := ""
		if r.Value != "" {
			value = fmt.Sprintf(" (%s)", r.Value)
		}
		v.ui.printf("  %s refuses it: %s%s [%s, %s with %s]\n", r.Peer, r.Message, value, r.ID, r.Basis, r.Version)
	}
	return nil
}
