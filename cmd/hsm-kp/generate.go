package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/identity"
	"github.com/hsm-kp/hsm-kp/inventory"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/store"
)

func generateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "generate",
		Category: categoryMake,
		Usage:    "make key packages: signed in the token, private keys sealed and stored",
		Description: `Nothing is printed or written before it is durable in the store. Ctrl-C ends the
batch under way, stores it and says how many there are; run the command again
for the rest. With --out the key packages count as published: they have left
hsm-kp's hands.

Examples:
   hsm-kp generate --identity alice --count 1000
   hsm-kp generate --identity alice --count 50 --out spool/
   hsm-kp generate --identity alice --count 1 --last-resort
   hsm-kp generate --identity alice --count 10 --json | jq -r .key_package_ref`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "identity", Aliases: []string{"i"}, Usage: "sign as `NAME`"},
			&cli.Uint64Flag{Name: "count", Aliases: []string{"n"}, Usage: "make `N` key packages", Value: 1},
			&cli.StringFlag{Name: "lifetime", Usage: "valid for `DURATION` from now, as 84d or 36h (default: the config's)"},
			&cli.BoolFlag{Name: "last-resort", Usage: "mark them as key packages of last resort"},
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
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			policy, err := generatePolicy(e.config, c.String("lifetime"))
			if err != nil {
				return err
			}
			return e.generate(c, policy)
		},
	}
}

// generatePolicy is the config's policy with the lifetime of the command line.
func generatePolicy(cfg *config.Config, lifetime string) (identity.Policy, error) {
	policy, err := policyOf(cfg)
	if err != nil || lifetime == "" {
		return policy, err
	}
	d, err := config.ParseDuration(lifetime)
	if err != nil {
		return policy, usagef("generate: --lifetime %v", err)
	}
	if d <= 0 {
		return policy, usagef("generate: --lifetime must be longer than nothing")
	}
	policy.Lifetime = time.Duration(d)
	return policy, nil
}

func (e *env) generate(c *cli.Context, policy identity.Policy) error {
	warnLifetime(e.ui, policy)
	var out *outFolder
	if dir := c.String("out"); dir != "" {
		var err error
		if out, err = openOutFolder(dir); err != nil {
			return err
		}
	}
	id, err := e.openIdentity(c.Context, c.String("identity"))
	if err != nil {
		return err
	}
	inv, err := e.inventory(c.Context)
	if err != nil {
		return err
	}
	g := &generation{ui: e.ui, out: out, json: c.Bool("json"), count: c.Uint64("count"), start: time.Now()}
	stored, err := inv.Generate(c.Context, inventory.Request{
		Identity:   id,
		Policy:     policy,
		Count:      g.count,
		LastResort: c.Bool("last-resort"),
		Published:  out != nil,
		Now:        g.start,
	}, g.show)
	return g.finish(c.Context, id, stored, err)
}

// warnLifetime names what refuses a lifetime that is longer than every known
// peer takes.
func warnLifetime(u *ui, p identity.Policy) {
	const day = 24 * time.Hour
	total := p.Lifetime + p.Backdate
	switch {
	case total > 90*day:
		u.warnf("a total lifetime of %s: go-mls refuses to join with more than 90d; OpenMLS declares a maximum of 84d and 1h", days(total))
	case total > defaultMaxLifetime:
		u.warnf("a total lifetime of %s: OpenMLS declares a maximum of 84d and 1h, which its present version does not enforce", days(total))
	}
}

// days shows a duration in days and hours.
func days(d time.Duration) string {
	whole := d / (24 * time.Hour)
	rest := d % (24 * time.Hour)
	if rest == 0 {
		return fmt.Sprintf("%dd", whole)
	}
	return fmt.Sprintf("%dd%v", whole, rest.Round(time.Second))
}

// generation shows what a run of generate has made so far.
type generation struct {
	ui    *ui
	out   *outFolder
	json  bool
	count uint64
	shown uint64
	start time.Time
}

// show takes a batch that is durable: it writes and prints its public parts.
func (g *generation) show(batch []store.KeyPackage) error {
	for i := range batch {
		if err := g.showOne(&batch[i]); err != nil {
			return err
		}
	}
	if g.json {
		if err := g.ui.flush(); err != nil {
			return err
		}
	}
	g.shown += uint64(len(batch))
	elapsed := time.Since(g.start)
	rate := float64(g.shown) / elapsed.Seconds()
	left := time.Duration(float64(g.count-g.shown) / rate * float64(time.Second))
	g.ui.progressf("%d of %s, %.0f a second, %v left", g.shown, plural(g.count, "key package"), rate, left.Round(time.Second))
	return nil
}

func (g *generation) showOne(record *store.KeyPackage) error {
	file := ""
	if g.out != nil {
		var err error
		if file, err = g.out.write(record); err != nil {
			return err
		}
	}
	if !g.json {
		return nil
	}
	return g.ui.jsonLine(generatedJSON{recordJSON: recordOf(record), File: file})
}

// generatedJSON is a line of generate --json.
type generatedJSON struct {
	recordJSON
	File string `json:"file,omitempty"`
}

// finish says what was done, and what is left to do where it went wrong.
func (g *generation) finish(ctx context.Context, id *identity.Identity, stored uint64, err error) error {
	if g.out != nil {
		err = errors.Join(err, g.out.sync())
	}
	elapsed := time.Since(g.start)
	done := fmt.Sprintf("%s for %q (%v) in %v", plural(stored, "key package"), id.Name, id.Suite.ID, elapsed.Round(time.Millisecond))
	switch {
	case err != nil && g.out != nil && stored > g.shown:
		g.ui.notef("%s stored; the last %d may not all be in %s", done, stored-g.shown, g.out.path)
	case err != nil:
		g.ui.notef("%s stored", done)
	case g.json:
	default:
		g.ui.printf("generated %s, %.0f a second\n", done, float64(stored)/elapsed.Seconds())
		if g.out != nil {
			g.ui.printf("wrote them to %s\n", g.out.path)
		}
	}
	if errors.Is(err, inventory.ErrInterrupted) {
		return fmt.Errorf("%w: %d of %s are stored: %w", errPartial, stored, plural(g.count, "key package"), context.Cause(ctx))
	}
	return err
}

// errPartial ends a command that was told to stop before it had done all.
var errPartial = errors.New("stopped early")

// messageOf returns the MLSMessage around a stored key package.
func messageOf(record *store.KeyPackage) ([]byte, error) {
	kp, err := keypackage.Parse(record.Public)
	if err != nil {
		return nil, fmt.Errorf("read stored key package %x: %w", record.Ref, err)
	}
	return kp.Message(), nil
}
