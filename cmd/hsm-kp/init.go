package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Names of the files that `init --softhsm DIR` makes in DIR.
const (
	configName = "hsm-kp.yaml"
	storeName  = "hsm-kp.db"
)

func initCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "init",
		Category: categoryStart,
		Usage:    "make the store and the wrapping key if they are missing, or a complete private SoftHSM",
		Description: `With --softhsm DIR it makes a private SoftHSM token, a wrapping key in it, a
store and a config under DIR: a complete installation to evaluate and to test
with. Without it, the command makes the store and, in the token that the config
names, the wrapping key, if they are missing; it never makes a token. It may be
run again at any time.

The wrapping key seals by AES-GCM, or by RSA-OAEP if the token says that it has no
AES-GCM, as a TPM does. The choice is made here, once, and recorded with the key: no later
command confuses the two.

Examples:
   hsm-kp init --softhsm ~/hsm-kp
   hsm-kp --config /etc/hsm-kp/hsm-kp.yaml init`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "softhsm", Usage: "make a private SoftHSM token and everything else under `DIR`"},
			mechanismFlag("aes-gcm if the token has it"),
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

// initializer makes what is missing and records what it did.
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
// path. If an earlier run made a token and no config, it continues with that token.
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

// complete makes the store and the wrapping keys that the config at path asks
// for, if they are missing.
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
	// The token comes first, so that a wrong PIN leaves no incomplete store.
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
	err = i.env.SetUp(ctx, operator.SetUpRequest{Sealing: i.mechanism, Each: func(key store.WrappingKey, made bool) error {
		i.did(made, "wrapping key %x, %s, in token %q", key.ID, whatFor(&key), i.env.token.Info().Label)
		return nil
	}})
	return adviseMechanism(err)
}
