package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

var directoryFlag = &cli.StringFlag{Name: "directory", Aliases: []string{"d"}, Usage: "publish in the directory `NAME` of the config", DefaultText: "the config's"}

func publishCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "publish",
		Category: categoryKeep,
		Usage:    "publish available key packages in a directory",
		Description: `Sends key packages that are available to a directory of the config: a delivery
service, or a folder. One that is on its way is pending, and nobody else gets it;
it becomes published when the directory has acknowledged it, and not before.

What a run could not send, or was killed with, goes first the next time, to the same
directory and with the same bytes. Key packages of last resort are published as well,
beside those that --count counts; they stay what they are. Those whose private keys
are for a device (custody release) are held back until it has confirmed them.

Several runs may publish at once, on one machine or many: none sends what another
sends. The status is 1 where a directory did not take all of them.

Examples:
   hsm-kp publish
   hsm-kp publish --identity alice --identity bob --count 100
   hsm-kp publish --directory main --suite 2 --json`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "identity", Aliases: []string{"i"}, Usage: "those of `NAME`; may be repeated", DefaultText: "all identities"},
			directoryFlag,
			&cli.IntFlag{Name: "count", Aliases: []string{"n"}, Usage: "at most `N` of each identity", DefaultText: "all"},
			&cli.StringFlag{Name: "suite", Usage: "those of identities with cipher suite `SUITE`, a name or a number", DefaultText: "any"},
			jsonFlag,
		},
		Action: with(u, func(c *cli.Context, e *env) error {
			if c.IsSet("count") && c.Int("count") < 1 {
				return usagef("publish: --count must be at least 1")
			}
			records, err := e.publishers(c)
			if err != nil {
				return err
			}
			return e.publishAll(c, records)
		}),
	}
}

// publishers returns the identities that the command line chooses.
func (e *env) publishers(c *cli.Context) ([]store.Identity, error) {
	var suite *ciphersuite.Suite
	if c.IsSet("suite") {
		var err error
		if suite, err = e.suite(c.String("suite")); err != nil {
			return nil, err
		}
	}
	var records []store.Identity
	for _, name := range c.StringSlice("identity") {
		record, err := e.Record(c.Context, name)
		if err == nil {
			err = requireSigning(&record)
		}
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	if len(records) == 0 {
		var err error
		if records, err = e.store.Identities(c.Context); err != nil {
			return nil, err
		}
	}
	var chosen []store.Identity
	for _, r := range records {
		if r.RetiredAt.IsZero() && (suite == nil || uint16(suite.ID) == r.Suite) {
			chosen = append(chosen, r)
		}
	}
	return chosen, nil
}

// Errors of what names a directory.
var (
	errNoDirectory = errors.New("there is no such directory in the config")
	// errSeveral reports that none is named, and that there are several.
	errSeveral = errors.New("the config has several directories")
)

// directoryOf returns the directory that the command line names, or the identity's.
func (e *env) directoryOf(c *cli.Context, identity string) (config.Directory, error) {
	dir, err := e.directoryNamed(c.String("directory"), identity)
	if errors.Is(err, errSeveral) {
		err = usagef("%s: %v: name one with --directory", c.Command.Name, err)
	}
	return dir, err
}

// directoryNamed returns the directory with a name, or the identity's where it is empty.
func (e *env) directoryNamed(name, identity string) (config.Directory, error) {
	if name == "" {
		name = e.config.ReplenishOf(identity).Directory
	}
	dir, ok := e.config.DirectoryOf(name)
	switch {
	case ok:
		return dir, nil
	case name == "" && len(e.config.Directories) > 1:
		return dir, errSeveral
	case name == "":
		return dir, fmt.Errorf("publish: %w", errNoDirectory)
	}
	return dir, fmt.Errorf("directory %q: %w", name, errNoDirectory)
}

// publishAll publishes what identities have.
func (e *env) publishAll(c *cli.Context, records []store.Identity) error {
	run := newPrinted(e, c.Bool("json"))
	for i := range records {
		dir, err := e.directoryOf(c, records[i].Name)
		if err != nil {
			return err
		}
		err = run.all(c.Context, &records[i], dir, c.Int("count"))
		if err != nil {
			return errors.Join(err, run.giveBack(context.WithoutCancel(c.Context)), e.ui.flush())
		}
	}
	if err := run.finish(c.Context); err != nil {
		return err
	}
	return e.heldBack(c.Context, records)
}

// heldBack says how many key packages of identities are not published yet because their private
// keys are for a device.
func (e *env) heldBack(ctx context.Context, records []store.Identity) error {
	chosen := make(map[string]bool, len(records))
	for i := range records {
		chosen[records[i].Name] = true
	}
	n := 0
	for k, err := range e.store.KeyPackages(ctx, store.Filter{State: store.Available, Unconfirmed: true}) {
		if err != nil {
			return err
		}
		if chosen[k.Identity] {
			n++
		}
	}
	if n > 0 {
		e.ui.warnf("%s held back until the devices confirm that they have the private keys: `hsm-kp list --unconfirmed` shows them", operator.Plural(n, "key package"))
	}
	return nil
}

// finish says what was published, and what was not.
func (p *publication) finish(ctx context.Context) error {
	elapsed := time.Since(p.start)
	if !p.json && !p.mute && (p.published > 0 || p.failed == 0) {
		p.ui.printf("published %s in %v\n", operator.Plural(p.published, "key package"), elapsed.Round(time.Millisecond))
	}
	if err := errors.Join(p.giveBack(context.WithoutCancel(ctx)), p.ui.flush()); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %s published: %w", operator.ErrPartial, operator.Plural(p.published, "key package"), context.Cause(ctx))
	case p.failed > 0:
		return fmt.Errorf("%w: %d of %s: %w", errUnpublished, p.failed, operator.Plural(p.failed+p.published, "key package"), p.cause)
	}
	return nil
}

// errUnpublished ends a command that published less than it was to.
var errUnpublished = errors.New("not published")
