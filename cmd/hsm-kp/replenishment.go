package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// replenishment sees to it that one identity has enough in one directory.
type replenishment struct {
	*publication
	record *store.Identity
	dir    config.Directory
	goal   config.Replenish
	now    time.Time
	after  time.Time // when what counts is still valid

	level   store.Level
	bound   bool     // its private keys are a device's: nothing is made for it here
	old     [][]byte // of last resort, that another takes the place of
	making  uint64
	sending uint64
	done    replenishedJSON
}

// setAfter sets when what counts is still valid. It is no later than half of what a key
// package made now would last: otherwise nothing new would count, and each run would make more.
func (r *replenishment) setAfter() error {
	end := r.now.Add(time.Duration(r.config.KeyPackages.Lifetime))
	credential, err := keypackage.ParseCredential(r.record.Credential)
	if err != nil {
		return fmt.Errorf("read stored credential of %q: %w", r.record.Name, err)
	}
	if len(credential.Certificates) > 0 {
		chain, err := credential.Chain()
		if err != nil {
			return err
		}
		if _, ends := chain.Validity(); ends.Before(end) {
			end = ends
		}
	}
	r.after = r.now.Add(min(time.Duration(r.goal.Ending), max(end.Sub(r.now)/2, 0)))
	return nil
}

// run does what there is to do.
func (r *replenishment) run(c *cli.Context) error {
	if err := r.some(c.Context, r.dir, store.Dispatch{Identity: r.record.Name, Resume: true}, r.record); err != nil {
		return err
	}
	if err := r.measure(c.Context); err != nil {
		return err
	}
	r.plan()
	r.done.Generated, r.done.Published = 0, 0
	if r.down[r.dir.Name] {
		r.done.LastResort = false
		return nil // nothing is made for a directory that takes nothing
	}
	before := r.published
	if r.making > 0 {
		if err := r.make(c, r.making, false); err != nil {
			return err
		}
		r.done.Generated = r.making
	}
	if r.sending > 0 {
		d := store.Dispatch{Identity: r.record.Name, Ending: r.after, N: int(r.sending)}
		if err := r.some(c.Context, r.dir, d, r.record); err != nil {
			return err
		}
	}
	r.done.Published = r.published - before
	if !r.goal.LastResort {
		return nil
	}
	return r.lastResort(c)
}

// measure finds out what there is.
func (r *replenishment) measure(ctx context.Context) error {
	err := r.setAfter()
	if err != nil {
		return err
	}
	if r.level, err = r.store.Level(ctx, r.record.Name, r.dir.Name, r.after); err != nil {
		return err
	}
	if r.dir.Type == config.OpenMLS && r.level.Published > 0 {
		if r.level.Published, err = r.left(ctx); err != nil {
			r.down[r.dir.Name] = takesNothing(r.dir, err)
			return fmt.Errorf("directory %q: %w", r.dir.Name, err)
		}
	}
	if r.goal.LastResort {
		if r.old, r.done.LastResort, err = r.lastResorts(ctx, r.record, r.after); err != nil {
			return err
		}
	}
	if r.level.Published+r.level.Underway >= uint64(r.goal.Low) && !r.done.LastResort {
		return nil
	}
	stock, err := r.store.Stock(ctx, r.record.Name)
	r.bound = ofDevice(stock)
	if len(stock) == 0 { // nobody knows better than who made it; its key packages may be under way
		r.bound = r.record.ForDevice()
	}
	if r.bound {
		r.old, r.done.LastResort = nil, false
	}
	return err
}

// ofDevice reports whether the key packages that an identity has, or had last where it has none, have
// their private keys at a device, or for one: no other can be made of use without it.
func ofDevice(stock []store.Stock) bool {
	var version uint64
	live := false
	for _, s := range stock {
		version, live = max(version, s.Version), live || isLive(s.State)
	}
	found := false
	for _, s := range stock {
		if live && !isLive(s.State) || !live && s.Version < version {
			continue
		}
		if isKept(s.Custody) {
			return false
		}
		found = true
	}
	return found
}

// left counts the key packages that a delivery service has of the identity, and that count.
func (r *replenishment) left(ctx context.Context) (n uint64, err error) {
	service, err := r.service(&r.dir)
	if err != nil {
		return 0, err
	}
	id, err := clientID(r.record)
	if err != nil {
		return 0, err
	}
	refs, err := service.Left(ctx, id)
	for _, ref := range refs {
		k, err := r.store.KeyPackage(ctx, ref)
		if errors.Is(err, store.ErrNotFound) {
			continue // somebody else's doing
		}
		if err != nil {
			return 0, err
		}
		if k.State == store.Published && k.Identity == r.record.Name && k.Version == r.record.Version && !k.LastResort && k.NotAfter.After(r.after) {
			n++
		}
	}
	return n, err
}

// plan decides how many key packages to make and to send.
func (r *replenishment) plan() {
	low, high := uint64(r.goal.Low), uint64(r.goal.High)
	level := r.level.Published + r.level.Underway
	if level < low {
		r.sending = high - level
		if r.bound {
			r.sending = min(r.sending, r.level.Available)
		}
		r.making = r.sending - min(r.sending, r.level.Available)
	}
	r.done.Identity, r.done.Directory = r.record.Name, r.dir.Name
	r.done.Level, r.done.Available, r.done.Low, r.done.High = level, r.level.Available, low, high
	r.done.Generated, r.done.Published = r.making, r.sending
}

// make makes key packages as `hsm-kp generate` does.
func (r *replenishment) make(c *cli.Context, n uint64, lastResort bool) error {
	policy, err := operator.PolicyOf(r.config, r.record.Name, rand.Reader)
	if err != nil {
		return err
	}
	custody, err := custodyOf(c, r.config, r.record.Name)
	if err != nil {
		return err
	}
	peers, err := peersOf(c, r.config)
	if err != nil {
		return err
	}
	return r.makeKeyPackages(c, production{record: r.record, policy: policy, peers: peers, custody: custody, count: n, lastResort: lastResort, mute: true})
}

// lastResort makes a key package of last resort where one is due, publishes it, and only then
// retires those that it takes the place of.
func (r *replenishment) lastResort(c *cli.Context) error {
	if r.done.LastResort {
		if err := r.make(c, 1, true); err != nil {
			return err
		}
	}
	failed := r.failed
	if err := r.some(c.Context, r.dir, store.Dispatch{Identity: r.record.Name, LastResort: true, Ending: r.after}, r.record); err != nil {
		return err
	}
	if r.failed > failed || r.down[r.dir.Name] || len(r.old) == 0 {
		return nil
	}
	return r.retireOld(c.Context, r.old)
}

// tellPlan says what would be done, where there is anything.
func (r *replenishment) tellPlan(asJSON bool) error {
	if asJSON {
		return r.ui.jsonLine(r.done)
	}
	if r.sending > 0 {
		r.ui.printf("%s: level %d in %q is below %d: would make %s and publish %d\n", r.record.Name, r.done.Level, r.dir.Name, r.done.Low, operator.Plural(r.making, "key package"), r.sending)
	}
	if r.done.LastResort {
		r.ui.printf("%s: would make a key package of last resort\n", r.record.Name)
	}
	return nil
}

// tellDone says what was done, where there was anything.
func (r *replenishment) tellDone(asJSON bool) error {
	switch {
	case asJSON:
		return r.ui.jsonLine(r.done)
	case r.done.Published > 0:
		r.ui.printf("%s: level was %d in %q, below %d: made %s and published %d\n", r.record.Name, r.done.Level, r.dir.Name, r.done.Low, operator.Plural(r.done.Generated, "key package"), r.done.Published)
	}
	if r.done.LastResort {
		r.ui.printf("%s: made a key package of last resort\n", r.record.Name)
	}
	return nil
}
