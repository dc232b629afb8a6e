package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func demoCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "demo",
		Category: categoryStart,
		Usage:    "show the life of key packages in a temporary folder, step by step",
		Description: `Makes a private SoftHSM token, an identity and a thousand key packages in a
temporary folder with the commands that it shows, publishes them in a folder, opens
a Welcome for one, rotates the signature key, verifies the audit trail, and removes
the folder. It needs SoftHSM and nothing else.

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
// entry point as the command line.
type demo struct {
	ui    *ui
	ctx   context.Context
	dir   string
	count uint64
	start time.Time
}

func (d *demo) inFolder(keep string) (err error) {
	// The demo has its own store, whatever the environment says.
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

// narrate shows the life of key packages, from the token to a member of a group.
func (d *demo) narrate() error {
	configPath, spool := filepath.Join(d.dir, configName), filepath.Join(d.dir, "spool")
	run := func(say string, args ...string) func() error {
		return func() error { return d.step(say, append([]string{"--config", configPath}, args...)...) }
	}
	for _, step := range []func() error{
		func() error {
			return d.step("A private SoftHSM token, a wrapping key in it, a store and a config. With a real\nHSM the config names its module, and \"hsm-kp init\" does the rest.",
				"init", "--softhsm", d.dir)
		},
		run("What the token can do, found out by doing it.", "doctor"),
		run("An identity. Its signature key is made in the token and can never leave it.", "identity", "create", "alice"),
		run(fmt.Sprintf("%s: two signatures each, made in the token and verified\nbefore anything is kept; two private keys each, sealed under the wrapping key\nbefore they reach the disk.", operator.Plural(d.count, "key package")),
			"generate", "--identity", "alice", "--count", fmt.Sprint(d.count)),
		run("The store knows them by their KeyPackageRef.", "list", "--limit", "3"),
		func() error { return d.addDirectory(configPath) },
		run("They are published where others find them.", "publish"),
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return d.join(run, spool)
}

// addDirectory adds, to the config that init made, a folder to publish to, which is beside the config.
func (d *demo) addDirectory(configPath string) error {
	const group = "directories: [{name: spool, type: spool, path: spool}]"
	d.ui.printf("\n# The config says where key packages are published: with a delivery service or, here, in\n# a folder beside it.\n%s\n", group)
	f, err := os.OpenFile(configPath, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("\n" + group + "\n")
	return errors.Join(err, f.Close())
}

// join shows how a published key package is used: a member of a group adds its client.
func (d *demo) join(run func(string, ...string) func() error, spool string) error {
	files, err := filepath.Glob(filepath.Join(spool, "*.mls"))
	if err != nil || uint64(len(files)) != d.count {
		return fmt.Errorf("%d files in %s, %d were expected (%v)", len(files), spool, d.count, err)
	}
	welcome := filepath.Join(d.dir, "welcome.mls")
	ref := strings.TrimSuffix(filepath.Base(files[0]), ".mls")
	for _, step := range []func() error{
		func() error { return d.step("One of them, in the field names of RFC 9420.", "inspect", files[0]) },
		func() error { return d.verifyAll(files) },
		func() error {
			return d.step("A member of a group takes it from there, adds the client and sends a Welcome: here a\nsample.", "welcome", "sample", files[0], "--out", welcome)
		},
		run("The Welcome opens with the private key that the token unseals, and gives what a member\nis made of.", "welcome", "open", welcome),
		run("The member exists. The private key is erased: no other Welcome opens with it.", "welcome", "confirm", ref[:16]),
		run("Another signature key takes the place of the first, with key packages of its own. Those\nof the first are retired.", "identity", "rotate", "alice", "--count", "3"),
		run("All of that is in the audit trail, an entry for each act on a key. A checkpoint signs it\nwith a key of the token.", "audit", "checkpoint"),
		run("Whoever keeps the checkpoint elsewhere sees whether an entry was changed since.", "audit", "verify"),
	} {
		if err := step(); err != nil {
			return err
		}
	}
	d.ui.printf("\nAll of it in %v.\n", time.Since(d.start).Round(10*time.Millisecond))
	return nil
}

// step prints what the command does, shows the command and runs it.
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
