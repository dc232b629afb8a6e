package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func replenishCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "replenish",
		Category: categoryKeep,
		Usage:    "see to it that identities have enough key packages published",
		Description: `The level of an identity is how many of its key packages a directory has, or is being
sent: of the current version, not of last resort, valid for longer than replenish.ending
of the config, and not known to be used. A delivery service that tells how many it
has left is asked; otherwise the store knows of those that a Welcome came for, and of
no others.

Where the level is below replenish.low, key packages are published until it is at
replenish.high: those that are available first, then new ones. What was on its way when
an earlier run ended is sent first of all. With replenish.last_resort there is a key
package of last resort beside them, which is replaced once it was used or is old. For an identity whose
private keys are a device's (custody device or release) nothing is made: "hsm-kp provision" does that.
Nor is anything for one that has no certificate yet.

It is made to be run from cron, on several machines at once: of two runs that find the
same identity low, one fills it up. It prints nothing where there was nothing to do.

Examples:
   hsm-kp replenish
   hsm-kp replenish --dry-run
   hsm-kp replenish --identity alice --directory main --json`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "identity", Aliases: []string{"i"}, Usage: "`NAME`; may be repeated", DefaultText: "all identities"},
			directoryFlag,
			&cli.StringFlag{Name: "suite", Usage: "identities with cipher suite `SUITE`, a name or a number", DefaultText: "any"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be done, and do nothing"},
			jsonFlag,
		},
		Action: with(u, func(c *cli.Context, e *env) error {
			records, err := e.publishers(c)
			if err != nil {
				return err
			}
			if !c.Bool("dry-run") {
				if err := e.Tidy(c.Context); err != nil {
					return err
				}
			}
			return e.replenishAll(c, records)
		}),
	}
}

// replenishAll sees to all identities. One that it cannot see to does not hold up the others,
// unless the token is the reason.
func (e *env) replenishAll(c *cli.Context, records []store.Identity) error {
	run := newPrinted(e, false)
	run.mute = true
	var faults []error
	for i := range records {
		if waiting, err := awaitsCertificate(&records[i]); err != nil || waiting {
			if err != nil {
				faults = append(faults, err)
			}
			continue
		}
		err := e.replenishOne(c, run, &records[i])
		if err != nil {
			faults = append(faults, fmt.Errorf("identity %q: %w", records[i].Name, err))
		}
		if c.Context.Err() != nil || err != nil && exitStatus(err) != exitFailed {
			break
		}
	}
	return errors.Join(append(faults, run.finish(c.Context))...)
}

// awaitsCertificate reports an identity that signs nothing yet, until it has a certificate.
func awaitsCertificate(record *store.Identity) (bool, error) {
	credential, err := keypackage.ParseCredential(record.Credential)
	if err != nil {
		return false, fmt.Errorf("read stored credential of %q: %w", record.Name, err)
	}
	return credential.Type == keypackage.CredentialX509 && len(credential.Certificates) == 0, nil
}

// replenishedJSON is a line of replenish --json.
type replenishedJSON struct {
	Identity   string `json:"identity"`
	Directory  string `json:"directory"`
	Level      uint64 `json:"level"` // before
	Available  uint64 `json:"available"`
	Low        uint64 `json:"low"`
	High       uint64 `json:"high"`
	Generated  uint64 `json:"generated"` // with --dry-run: would be
	Published  uint64 `json:"published"`
	LastResort bool   `json:"last_resort_due"`
	Elsewhere  bool   `json:"elsewhere"` // another run is at it
}

// replenishOne sees to one identity, while it has the lease for that.
func (e *env) replenishOne(c *cli.Context, run *publication, record *store.Identity) error {
	dir, err := e.directoryOf(c, record.Name)
	if err != nil {
		return err
	}
	if run.down[dir.Name] {
		return nil // which was told
	}
	r := &replenishment{publication: run, record: record, dir: dir, goal: e.config.ReplenishOf(record.Name), now: time.Now()}
	if c.Bool("dry-run") {
		if err := r.measure(c.Context); err != nil {
			return err
		}
		r.plan()
		return r.tellPlan(c.Bool("json"))
	}
	ctx, giveBack, err := e.lease(c.Context, fmt.Sprintf("replenish %q in %q", record.Name, dir.Name))
	if errors.Is(err, store.ErrHeld) {
		r.done.Elsewhere = true
		return r.tellDone(c.Bool("json"))
	}
	if err != nil {
		return err
	}
	defer giveBack()
	was := c.Context
	c.Context = ctx // all of it ends with the lease
	defer func() { c.Context = was }()
	if err := r.run(c); err != nil {
		return err
	}
	if was.Err() == nil && ctx.Err() != nil {
		return context.Cause(ctx) // somebody else may be at it by now
	}
	return r.tellDone(c.Bool("json"))
}

// How long a lease is, and how often it is prolonged.
const (
	leaseTime  = time.Minute
	leaseAgain = 15 * time.Second
)

// lease takes the lease of a name, and prolongs it until it is given back. Where that fails
// for so long that somebody else may have it, the context ends. The error is store.ErrHeld
// where somebody else has it.
func (e *env) lease(ctx context.Context, name string) (context.Context, func(), error) {
	holder := rand.Text()
	take := func() error {
		now := time.Now()
		return e.store.Lease(ctx, name, holder, now.Add(leaseTime), now)
	}
	if err := take(); err != nil {
		return nil, nil, err
	}
	holding, stop := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		again := time.NewTicker(leaseAgain)
		defer again.Stop()
		for last := time.Now(); ; {
			select {
			case <-holding.Done():
				return
			case <-again.C:
			}
			switch err := take(); {
			case err == nil:
				last = time.Now()
			case time.Since(last) > leaseTime/2:
				stop(fmt.Errorf("prolong the lease to %s: %w", name, err))
			}
		}
	}()
	giveBack := func() {
		stop(nil)
		<-ended
		if err := e.store.Unlease(context.WithoutCancel(ctx), name, holder); err != nil {
			e.ui.warnf("give back the lease to %s: %v", name, err)
		}
	}
	return holding, giveBack, nil
}
