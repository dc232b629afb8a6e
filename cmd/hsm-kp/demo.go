package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func demoCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "demo",
		Category: categoryStart,
		Usage:    "the main job in a temporary folder, narrated",
		Description: `Makes a private SoftHSM token, an identity and a thousand key packages in a
temporary folder with the commands that it shows, checks them, and removes the
folder. Needs SoftHSM, and nothing else.

Examples:
   hsm-kp demo
   hsm-kp demo --keep ~/hsm-kp-demo`,
		Flags: []cli.Flag{
			&cli.Uint64Flag{Name: "count", Aliases: []string{"n"}, Usage: "make `N` key packages", Value: 1000},
			&cli.StringFlag{Name: "keep", Usage: "work in `DIR`, which must not exist, and leave it there"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			if c.Uint64("count") == 0 {
				return usagef("demo: --count must be at least 1")
			}
			d := &demo{ui: u, ctx: c.Context, count: c.Uint64("count"), start: time.Now()}
			return d.inFolder(c.String("keep"))
		},
	}
}

// demo runs the commands that it shows, in this process and through the same
// entry as the command line.
type demo struct {
	ui    *ui
	ctx   context.Context
	dir   string
	count uint64
	start time.Time
}

func (d *demo) inFolder(keep string) (err error) {
	// The demo has a store of its own, whatever the person's shell says.
	if err := os.Unsetenv("HSM_KP_STORE"); err != nil {
		return err
	}
	if keep != "" {
		if err := os.Mkdir(keep, 0o700); err != nil {
			return fmt.Errorf("make folder for the demo: %w", err)
		}
		d.dir = keep
		return d.narrate()
	}
	if d.dir, err = os.MkdirTemp("", "hsm-kp-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	return d.narrate()
}

func (d *demo) narrate() error {
	configPath := filepath.Join(d.dir, "hsm-kp.yaml")
	out := filepath.Join(d.dir, "out")
	count := fmt.Sprint(d.count)
	steps := []struct {
		say  string
		args []string
	}{
		{"A private SoftHSM token, a wrapping key in it, a store and a config. With a real\nHSM the config names its module, and \"hsm-kp init\" does the rest.",
			[]string{"init", "--softhsm", d.dir}},
		{"What the token can do, found out by doing it.",
			[]string{"--config", configPath, "doctor"}},
		{"An identity. Its signature key is made in the token and can never leave it.",
			[]string{"--config", configPath, "identity", "create", "alice"}},
		{fmt.Sprintf("%s: two signatures each, made in the token and verified\nbefore anything is kept; two private keys each, sealed under the wrapping key\nbefore they reach the disk.", operator.Plural(d.count, "key package")),
			[]string{"--config", configPath, "generate", "--identity", "alice", "--count", count, "--out", out}},
		{"The store knows them by their KeyPackageRef.",
			[]string{"--config", configPath, "list", "--limit", "3"}},
	}
	for _, s := range steps {
		if err := d.step(s.say, s.args...); err != nil {
			return err
		}
	}
	files, err := filepath.Glob(filepath.Join(out, "*.mls"))
	if err != nil || uint64(len(files)) != d.count {
		return fmt.Errorf("%d files in %s, %d were expected (%v)", len(files), out, d.count, err)
	}
	if err := d.step("One of them, in the field names of RFC 9420.", "inspect", files[0]); err != nil {
		return err
	}
	if err := d.verifyAll(files); err != nil {
		return err
	}
	return d.custody(configPath)
}

// step says what comes, shows the command and runs it.
func (d *demo) step(say string, args ...string) error {
	return d.stepShown(say, strings.Join(args, " "), args...)
}

func (d *demo) stepShown(say, shown string, args ...string) error {
	d.ui.printf("\n# %s\n$ hsm-kp %s\n", strings.ReplaceAll(say, "\n", "\n# "), shown)
	if err := d.ui.flush(); err != nil {
		return err
	}
	return execute(d.ctx, append([]string{"hsm-kp"}, args...), d.ui)
}

// verifyAll checks the files as any member of a group would.
func (d *demo) verifyAll(files []string) error {
	return d.stepShown("Each file checked as a member of a group would check it.",
		"verify --quiet "+filepath.Join(filepath.Dir(files[0]), "*.mls"),
		append([]string{"verify", "--quiet"}, files...)...)
}

// custody proves with one key package that what is sealed is what was
// published: a message encrypted to the public init_key opens with the private
// half that comes back from the token.
func (d *demo) custody(configPath string) error {
	d.ui.printf("\n# The private half of one, unsealed by the token: it opens what was encrypted to\n# the public init_key.\n")
	cfg, err := loadConfig(configPath)
	if err != nil {
		return err
	}
	e, err := openEnvWith(d.ctx, d.ui, cfg, configPath, "")
	if err != nil {
		return err
	}
	defer e.close()
	ref, opened, err := e.roundTrip(d.ctx)
	if err != nil {
		return err
	}
	d.ui.printf("%v: %q\n", ref, opened)
	d.ui.printf("\nAll of it in %v.\n", time.Since(d.start).Round(10*time.Millisecond))
	return nil
}

// roundTrip encrypts to the init_key of the first stored key package and opens
// the result with its unsealed private key.
func (e *env) roundTrip(ctx context.Context) (keypackage.Ref, []byte, error) {
	record, err := e.firstRecord(ctx)
	if err != nil {
		return nil, nil, err
	}
	kp, err := keypackage.Parse(record.Public)
	if err != nil {
		return nil, nil, err
	}
	inv, err := e.Inventory(ctx)
	if err != nil {
		return nil, nil, err
	}
	keys, err := inv.PrivateKeys(ctx, record.Ref, time.Now())
	if err != nil {
		return nil, nil, err
	}
	defer keys.Clear()
	suite, ok := ciphersuite.Lookup(kp.CipherSuite)
	if !ok {
		return nil, nil, fmt.Errorf("unknown cipher suite %v", kp.CipherSuite)
	}
	secret := []byte(rand.Text())
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(suite, kp.InitKey, "demo", nil, secret)
	if err != nil {
		return nil, nil, err
	}
	opened, err := hpke.DecryptWithLabel(keys.Init, "demo", nil, kemOutput, ciphertext)
	if err == nil && string(opened) != string(secret) {
		err = errors.New("the unsealed private key opened to something else")
	}
	return record.Ref, opened, err
}

// firstRecord returns the oldest stored key package.
func (e *env) firstRecord(ctx context.Context) (store.KeyPackage, error) {
	for record, err := range e.store.KeyPackages(ctx, store.Filter{}) {
		return record, err
	}
	return store.KeyPackage{}, store.ErrNotFound
}
