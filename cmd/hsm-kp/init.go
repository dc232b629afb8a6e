package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Names of what `init --softhsm DIR` puts into DIR.
const (
	configName = "hsm-kp.yaml"
	storeName  = "hsm-kp.db"
)

func initCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "init",
		Category: categoryStart,
		Usage:    "make what is missing: store and wrapping key, or a whole private SoftHSM",
		Description: `With --softhsm DIR it makes a private SoftHSM token, a wrapping key in it, a
store and a config under DIR: a complete installation to evaluate and to test
with. Without, it does the same for the token that the config names: it makes
the store and the wrapping key where they are missing, and never a token. It may
be run again at any time.

The wrapping key seals by AES-GCM, or by RSA-OAEP where the token says that it has no
AES-GCM, as a TPM does. That is decided here, once: it is in the record of the key, and
nothing that comes later takes the one for the other.

Examples:
   hsm-kp init --softhsm ~/hsm-kp
   hsm-kp --config /etc/hsm-kp/hsm-kp.yaml init`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "softhsm", Usage: "make a private SoftHSM token and everything else under `DIR`"},
			mechanismFlag("aes-gcm where the token has it"),
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			k, err := newWrappingKey(c.Command.HelpName, string(store.Seal), c.String("mechanism"), c.IsSet("mechanism"))
			if err != nil {
				return err
			}
			i := &initializer{ui: u, forceLogin: c.Bool(forceLogin), mechanism: k.Mechanism}
			path, _ := configPath(c)
			if dir := c.String("softhsm"); dir != "" {
				if path, err = i.softHSM(c.Context, dir); err != nil {
					return err
				}
			}
			if err := i.complete(c.Context, path, c.String("store")); err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(initJSON{Config: path, Store: i.env.place.String(), Steps: i.steps})
			}
			u.printf("ready: hsm-kp --config %s identity create NAME\n", path)
			return nil
		},
	}
}

// initializer makes what is missing and remembers what it did.
type initializer struct {
	ui         *ui
	env        *env
	forceLogin bool
	mechanism  vault.Mechanism // of the wrapping key that seals; empty: what the token has
	steps      []initStep
}

// initJSON is the JSON form of init.
type initJSON struct {
	Config string     `json:"config"`
	Store  string     `json:"store"`
	Steps  []initStep `json:"steps"`
}

type initStep struct {
	What string `json:"what"`
	Made bool   `json:"made"` // false: it was there
}

func (i *initializer) did(made bool, format string, args ...any) {
	step := initStep{What: fmt.Sprintf(format, args...), Made: made}
	i.steps = append(i.steps, step)
	word := "found"
	if made {
		word = "made"
	}
	i.ui.notef("%-5s  %s", word, step.What)
}

// softHSM makes the token and the config under dir and returns the config's
// path. A token that was begun and has no config yet is taken up again.
func (i *initializer) softHSM(ctx context.Context, dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, configName)
	if _, err := os.Stat(path); err == nil {
		i.did(false, "config %s", path)
		return path, nil
	}
	installation, err := softhsm.Create(ctx, dir, softhsm.Options{Label: "hsm-kp"})
	made := err == nil
	if errors.Is(err, softhsm.ErrExists) {
		installation, err = softhsm.Load(dir)
	}
	if err != nil {
		return "", err
	}
	i.did(made, "SoftHSM token %q, serial %s, in %s", installation.Label, installation.Serial, dir)
	err = config.WriteSoftHSM(path, config.SoftHSM{
		Module: installation.Module,
		Label:  installation.Label,
		Conf:   installation.ConfPath,
		PIN:    installation.PINPath,
		Store:  storeName,
	})
	if err != nil {
		return "", err
	}
	i.did(true, "config %s", path)
	return path, nil
}

// complete makes the store and the wrapping key that the config at path asks
// for, where they are missing.
func (i *initializer) complete(ctx context.Context, path, url string) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	i.env = &env{ui: i.ui, config: cfg, configPath: path, forceLogin: i.forceLogin}
	defer i.env.close()
	if i.env.place, err = placeOf(cfg, url); err != nil {
		return err
	}
	// The token first: a PIN that is wrong leaves no half-made store behind.
	if _, err := i.env.openToken(ctx); err != nil {
		return err
	}
	i.env.store, err = i.env.place.open(ctx, false)
	missing := errors.Is(err, errNoStore)
	if missing {
		i.env.store, err = i.env.place.open(ctx, true)
	}
	if err != nil {
		return err
	}
	i.env.operate()
	i.did(missing, "store %s", i.env.place)
	return i.wrappingKeys(ctx)
}

// wrappingKeys makes the wrapping keys that the config's custody asks for, where the
// store knows none; one that it knows must be in the token, and be the same.
func (i *initializer) wrappingKeys(ctx context.Context) error {
	purposes := []store.Purpose{store.Seal}
	if i.env.config.InToken() {
		purposes = append(purposes, store.Wrap)
	}
	for _, p := range purposes {
		if err := i.wrappingKey(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (i *initializer) wrappingKey(ctx context.Context, p store.Purpose) error {
	label := i.env.token.Info().Label
	current, err := i.env.store.CurrentWrappingKey(ctx, p)
	switch {
	case err == nil:
		if err := recognize(ctx, i.env.token, &current); err != nil {
			return err
		}
		if i.mechanism != "" && p == store.Seal && mechanismName(&current) != string(i.mechanism) {
			return usagef("init: --mechanism %s, and the current wrapping key %x is of %s: `hsm-kp wrap-key rotate --mechanism %s` makes another one",
				i.mechanism, current.ID, mechanismName(&current), i.mechanism)
		}
		i.did(false, "wrapping key %x, %s, in token %q", current.ID, whatFor(&current), label)
		return nil
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	inv, err := i.env.Inventory(ctx)
	if err != nil {
		return err
	}
	m, err := i.mechanismFor(ctx, p)
	if err != nil {
		return err
	}
	key, err := inv.CreateWrappingKey(ctx, m, true, time.Now())
	if err != nil {
		return adviseMechanism(err)
	}
	i.did(true, "wrapping key %x, %s, in token %q", key.ID, whatFor(&key), label)
	return nil
}

// mechanismFor is how the first wrapping key of a purpose is to do what it is for.
func (i *initializer) mechanismFor(ctx context.Context, p store.Purpose) (vault.Mechanism, error) {
	switch {
	case p == store.Wrap:
		return vault.AESKeyWrap, nil
	case i.mechanism != "":
		return i.mechanism, nil
	}
	return sealingOf(ctx, i.env.token)
}

// sealingOf is how the token seals: what it has of the mechanisms for that.
func sealingOf(ctx context.Context, t *token.Token) (vault.Mechanism, error) {
	can, err := t.CanSeal(ctx)
	if err != nil || can {
		return vault.AESGCM, err
	}
	return vault.RSAOAEP, nil
}

// recognize checks that a wrapping key of the store is in the token.
func recognize(ctx context.Context, t *token.Token, key *store.WrappingKey) error {
	_, err := recognized(ctx, t, key)
	if err != nil {
		return fmt.Errorf("recognize wrapping key %x: %w", key.ID, err)
	}
	return nil
}

// recognized opens a wrapping key of the store, and sees that it is the one.
func recognized(ctx context.Context, t *token.Token, key *store.WrappingKey) (vault.Custodian, error) {
	m, err := inventory.MechanismOf(key)
	if err != nil {
		return nil, err
	}
	v, err := operator.NewRing(t, rand.Reader).Open(ctx, key.ID, m)
	if err != nil {
		return nil, err
	}
	return v, v.Recognize(ctx, key.Stamp)
}
