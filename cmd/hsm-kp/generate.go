package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/profile"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func generateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "generate",
		Category: categoryMake,
		Usage:    "make key packages: signed in the token, private keys sealed and stored",
		Description: `Nothing is printed or written before it is durable in the store. Ctrl-C ends the
batch under way, stores it and says how many there are; run the command again
for the rest. With --out the key packages are pending until their files are on
the disk, and then published: they have left hsm-kp's hands. What a crash left
pending, "hsm-kp export --pending" writes.

What MLS implementations would refuse to add is told beforehand, by the rules of
"hsm-kp verify --for"; key_packages.peers in the config names those that matter.

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
			&cli.BoolFlag{Name: "if-due", Usage: "with --last-resort: only where the one before was used or is old, and retire it"},
			custodyFlag,
			&cli.StringFlag{Name: "application-id", Usage: "put `TEXT` into the leaf nodes as application_id", DefaultText: "the config's"},
			&cli.StringSliceFlag{Name: "extension", Usage: "add an extension to the key packages: `TYPE=HEX`, as 0xF001=00ff; may be repeated"},
			&cli.StringSliceFlag{Name: "leaf-extension", Usage: "add an extension to the leaf nodes: `TYPE=HEX`; may be repeated"},
			&cli.StringFlag{Name: "for", Usage: "warn of what `PEERS` would refuse: names with commas between them, or all", DefaultText: "the config's, or all"},
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
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			policy, err := generatePolicy(c, e.config)
			if err != nil {
				return err
			}
			peers, err := peersOf(c, e.config)
			if err != nil {
				return err
			}
			return e.generate(c, policy, peers)
		},
	}
}

// generatePolicy is the config's policy with what the command line says.
func generatePolicy(c *cli.Context, cfg *config.Config) (identity.Policy, error) {
	policy, err := operator.PolicyOf(cfg, c.String("identity"), rand.Reader)
	if err != nil {
		return policy, err
	}
	if text := c.String("lifetime"); text != "" {
		d, err := config.ParseDuration(text)
		if err != nil {
			return policy, usagef("generate: --lifetime %v", err)
		}
		if d <= 0 {
			return policy, usagef("generate: --lifetime must be longer than nothing")
		}
		policy.Lifetime = time.Duration(d)
	}
	if c.IsSet("application-id") {
		policy.LeafExtensions = slices.DeleteFunc(policy.LeafExtensions, func(e keypackage.Extension) bool {
			return e.Type == keypackage.ExtensionApplicationID
		})
		policy.LeafExtensions = append(policy.LeafExtensions, keypackage.ApplicationID([]byte(c.String("application-id"))))
	}
	for _, f := range []struct {
		flag string
		list *[]keypackage.Extension
	}{{"leaf-extension", &policy.LeafExtensions}, {"extension", &policy.Extensions}} {
		for _, text := range c.StringSlice(f.flag) {
			e, err := parseExtension(text)
			if err != nil {
				return policy, usagef("generate: --%s %v", f.flag, err)
			}
			*f.list = append(*f.list, e)
		}
	}
	return policy, nil
}

// parseExtension reads TYPE=HEX, where TYPE is decimal or hexadecimal after 0x.
func parseExtension(text string) (keypackage.Extension, error) {
	number, digits, ok := strings.Cut(text, "=")
	if !ok {
		return keypackage.Extension{}, fmt.Errorf("%q is not TYPE=HEX; one without data ends in =", text)
	}
	t, err := parseCodePoint(number)
	if err != nil {
		return keypackage.Extension{}, err
	}
	data, err := hex.DecodeString(digits)
	if err != nil {
		return keypackage.Extension{}, fmt.Errorf("%q must have hexadecimal digits after =, two a byte", text)
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

func (e *env) generate(c *cli.Context, policy identity.Policy, peers []*profile.Profile) error {
	record, err := e.Record(c.Context, c.String("identity"))
	if err == nil {
		err = requireSigning(&record)
	}
	if err != nil {
		return err
	}
	custody, err := custodyOf(c, e.config, c.String("identity"))
	if err != nil {
		return err
	}
	if err := e.Tidy(c.Context); err != nil {
		return err
	}
	old, due := [][]byte(nil), true
	if c.Bool("if-due") {
		old, due, err = e.lastResorts(c.Context, &record, time.Now())
	}
	if err != nil {
		return err
	}
	if due {
		err = e.makeKeyPackages(c, production{
			record: &record, policy: policy, peers: peers, custody: custody, count: c.Uint64("count"), lastResort: c.Bool("last-resort"),
		})
	} else {
		e.ui.notef("the key package of last resort of %q is fresh: nothing to do", record.Name)
	}
	if err != nil {
		return err
	}
	return e.retireOld(c.Context, old)
}

// retireOld retires key packages of last resort that another took the place of.
func (e *env) retireOld(ctx context.Context, old [][]byte) error {
	now := time.Now()
	until := now.Add(time.Duration(e.config.KeyPackages.Grace))
	retired := uint64(0)
	for _, ref := range old {
		err := e.store.Retire(ctx, [][]byte{ref}, until, now)
		if errors.Is(err, store.ErrState) {
			continue // it ended by itself meanwhile
		}
		if err != nil {
			return err
		}
		retired++
	}
	if retired > 0 {
		e.ui.notef("retired %s of last resort", operator.Plural(retired, "key package"))
	}
	return nil
}

// lastResorts returns the key packages of last resort that a new one takes the place of,
// and whether it is due: where none of them is fresh, which is one that is valid after a time.
func (e *env) lastResorts(ctx context.Context, record *store.Identity, after time.Time) (old [][]byte, due bool, err error) {
	now, due := time.Now(), true
	for k, err := range e.store.KeyPackages(ctx, store.Filter{Identity: record.Name, LastResort: true}) {
		if err != nil {
			return nil, false, err
		}
		if !store.Allowed(k.State, store.Retire, store.Retired) && k.State != store.Reserved {
			continue
		}
		used := k.State == store.Reserved || k.Opened > 0
		aged := now.After(k.CreatedAt.Add(time.Duration(e.config.KeyPackages.LastResort.MaxAge))) || after.After(k.NotAfter)
		if !used && !aged && k.Version == record.Version {
			due = false
			continue
		}
		old = append(old, k.Ref)
	}
	return old, due, nil
}

// production is what key packages are made of.
type production struct {
	record     *store.Identity
	policy     identity.Policy
	peers      []*profile.Profile
	custody    string
	count      uint64
	lastResort bool
	mute       bool // nothing on standard output
}

// makeKeyPackages makes key packages.
func (e *env) makeKeyPackages(c *cli.Context, p production) error {
	var out *directory.Spool
	if dir := c.String("out"); dir != "" {
		var err error
		if out, err = directory.OpenSpool(dir); err != nil {
			return err
		}
	}
	id, err := e.OpenIdentity(c.Context, p.record)
	if err != nil {
		return err
	}
	if id.Credential.Type == keypackage.CredentialX509 {
		if p.policy.Roots, err = operator.LoadRoots(e.config.X509.Roots); err != nil {
			return err
		}
	}
	if err := e.RotateWhenDue(c.Context); err != nil {
		return err
	}
	inv, err := e.Inventory(c.Context)
	if err != nil {
		return err
	}
	if err := e.warn(id, p.policy, p.lastResort, p.peers); err != nil {
		return err
	}
	g := &generation{env: e, ctx: context.WithoutCancel(c.Context), out: out, json: c.Bool("json"), mute: p.mute, count: p.count, start: time.Now()}
	stored, err := inv.Generate(c.Context, inventory.Request{
		Identity:   id,
		Version:    p.record.Version,
		Policy:     p.policy,
		Count:      p.count,
		LastResort: p.lastResort,
		Pending:    out != nil,
		Custody:    p.custody,
		Now:        g.start,
	}, g.show)
	return g.finish(context.Cause(c.Context), id, stored, err)
}

// generateVersion makes key packages of a version of an identity that does not sign
// yet.
func (e *env) generateVersion(c *cli.Context, version *store.Identity, custody string, n uint64, lastResort bool) error {
	policy, err := operator.PolicyOf(e.config, version.Name, rand.Reader)
	if err != nil {
		return err
	}
	peers, err := peersOf(c, e.config)
	if err != nil {
		return err
	}
	return e.makeKeyPackages(c, production{
		record: version, policy: policy, peers: peers, custody: custody, count: n, lastResort: lastResort, mute: true,
	})
}

// days shows seconds in days and hours.
func days(seconds uint64) string {
	const day = 24 * 60 * 60
	whole, rest := seconds/day, time.Duration(seconds%day)*time.Second
	if rest == 0 {
		return fmt.Sprintf("%dd", whole)
	}
	return fmt.Sprintf("%dd%v", whole, rest)
}

// warn says what is worth knowing of key packages before they are made: that
// certificates end before the lifetime would, and which MLS implementations would
// refuse them.
func (e *env) warn(id *identity.Identity, p identity.Policy, lastResort bool, peers []*profile.Profile) error {
	if id.Suite.Experimental {
		e.ui.warnf("cipher suite %v (0x%04X) is experimental: its number is not assigned, and peers may take it for another suite", id.Suite.ID, uint16(id.Suite.ID))
	}
	now := time.Now()
	template, err := id.Template(p, now, lastResort)
	if err != nil {
		return fmt.Errorf("prepare key packages: %w", err)
	}
	if end := time.Unix(int64(template.Lifetime.NotAfter), 0).UTC(); end.Before(now.Add(p.Lifetime).Truncate(time.Second)) {
		e.ui.warnf("the certificates of %q end at %s, and so do the key packages: %s", id.Name, end.Format(time.RFC3339), daysLeft(end, now))
	}
	if begin := time.Unix(int64(template.Lifetime.NotBefore), 0).UTC(); begin.After(now.Add(-p.Backdate)) {
		e.ui.warnf("the certificates of %q began at %s, and so do the key packages: peers whose clocks are behind may refuse them", id.Name, begin.Format(time.RFC3339))
	}
	kp := template.Unsigned()
	findings := keypackage.ValidateUnsigned(kp, keypackage.Policy{Now: uint64(now.Unix())})
	for _, w := range refusalWarnings(peers, kp, findings) {
		e.ui.warnf("%s", w)
	}
	if total := template.Lifetime.NotAfter - template.Lifetime.NotBefore; total > uint64(defaultMaxLifetime/time.Second) {
		e.ui.warnf("a total lifetime of %s: openmls declares a maximum of 84d1h, which it does not enforce today", days(total))
	}
	return nil
}

// refusalWarnings says which peers would refuse a key package, a sentence a
// reason.
func refusalWarnings(peers []*profile.Profile, kp *keypackage.KeyPackage, findings []keypackage.Finding) []string {
	var reasons []profile.Refusal
	names := make(map[string][]string)
	for _, p := range peers {
		for _, r := range p.RefusalsUnsigned(kp, findings) {
			if len(names[r.ID]) == 0 {
				reasons = append(reasons, r)
			}
			names[r.ID] = append(names[r.ID], fmt.Sprintf("%s %s", r.Peer, r.Version))
		}
	}
	var out []string
	for _, r := range reasons {
		value := ""
		if r.Value != "" {
			value = " (" + r.Value + ")"
		}
		out = append(out, fmt.Sprintf("refused by %s: %s%s [%s]", strings.Join(names[r.ID], ", "), r.Message, value, r.ID))
	}
	return out
}

// peersOf are the implementations that the command line names, else the config's,
// else all that are known.
func peersOf(c *cli.Context, cfg *config.Config) ([]*profile.Profile, error) {
	if c.IsSet("for") {
		peers, err := parsePeers(c.String("for"))
		if err != nil {
			return nil, usagef("generate: --for %v", err)
		}
		return peers, nil
	}
	if len(cfg.KeyPackages.Peers) > 0 {
		peers, err := operator.LookupPeers(cfg.KeyPackages.Peers)
		if err != nil {
			return nil, usagef("key_packages.peers %v", err)
		}
		return peers, nil
	}
	return profile.All(), nil
}

// generation shows what a run of generate has made so far.
type generation struct {
	*env
	ctx   context.Context // of what must be done to the end
	out   *directory.Spool
	json  bool
	mute  bool
	count uint64
	shown uint64
	start time.Time
}

// show takes a batch that is durable: it writes its public parts, then prints
// them.
func (g *generation) show(batch []store.KeyPackage) error {
	files, err := g.publish(batch)
	if err != nil {
		return err
	}
	if err := g.print(batch, files); err != nil {
		return err
	}
	g.shown += uint64(len(batch))
	elapsed := time.Since(g.start)
	rate := float64(g.shown) / elapsed.Seconds()
	left := time.Duration(float64(g.count-g.shown) / rate * float64(time.Second))
	g.ui.progressf("%d of %s, %.0f a second, %v left", g.shown, operator.Plural(g.count, "key package"), rate, left.Round(time.Second))
	return nil
}

// publish writes a batch to the output folder, where there is one, and records
// it as published once it is on the disk.
func (g *generation) publish(batch []store.KeyPackage) ([]string, error) {
	if g.out == nil {
		return make([]string, len(batch)), nil
	}
	files, err := writeAll(g.out, batch)
	if err != nil {
		return nil, err
	}
	refs := make([][]byte, len(batch))
	for i := range batch {
		refs[i] = batch[i].Ref
		batch[i].State, batch[i].PublishedAt = store.Published, time.Now()
	}
	return files, g.store.Move(g.ctx, refs, []store.State{store.Pending}, store.Published, time.Now())
}

func (g *generation) print(batch []store.KeyPackage, files []string) error {
	if !g.json || g.mute {
		return nil
	}
	for i := range batch {
		if err := g.ui.jsonLine(generatedJSON{recordJSON: recordOf(&batch[i]), File: files[i]}); err != nil {
			return err
		}
	}
	return g.ui.flush()
}

// generatedJSON is a line of generate --json.
type generatedJSON struct {
	recordJSON
	File string `json:"file,omitempty"`
}

// finish says what was done, and what is left to do where it went wrong.
func (g *generation) finish(cause error, id *identity.Identity, stored uint64, err error) error {
	elapsed := time.Since(g.start)
	done := fmt.Sprintf("%s for %q (%v) in %v", operator.Plural(stored, "key package"), id.Name, id.Suite.ID, elapsed.Round(time.Millisecond))
	switch {
	case err != nil && g.out != nil && stored > g.shown:
		g.ui.notef("%s stored; the last %d are pending: `hsm-kp export --pending --out %s` writes them", done, stored-g.shown, g.out.Path())
	case err != nil && (stored > 0 || errors.Is(err, inventory.ErrInterrupted)):
		g.ui.notef("%s stored", done)
	case err != nil: // nothing was begun
	case g.json, g.mute:
	default:
		g.ui.printf("generated %s, %.0f a second\n", done, float64(stored)/elapsed.Seconds())
		if g.out != nil {
			g.ui.printf("wrote them to %s\n", g.out.Path())
		}
		err = g.ui.flush()
		if err != nil {
			g.ui.notef("%s stored", done)
		}
	}
	if errors.Is(err, inventory.ErrInterrupted) {
		return fmt.Errorf("%w: %d of %s are stored: %w", operator.ErrPartial, stored, operator.Plural(g.count, "key package"), cause)
	}
	return err
}
