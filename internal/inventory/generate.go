package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
)

// MaxSealings is how many times one wrapping key may seal. Nonces are 96 random bits, for which
// NIST SP 800-38D, Section 8.3, allows 2^32 uses of a key; half of that leaves room for batches
// under way in other processes.
const MaxSealings = 1 << 31

// ErrWrappingKeySpent reports a wrapping key that has sealed as often as it may.
var ErrWrappingKeySpent = errors.New("the wrapping key has sealed as often as it may")

// ErrTooMany reports a request for more key packages than one wrapping key may seal.
var ErrTooMany = errors.New("too many at once")

// ErrInterrupted reports that the caller's context ended before all key
// packages were made. Those that were made are stored.
var ErrInterrupted = errors.New("interrupted")

// Request asks for key packages.
type Request struct {
	// Identity signs them.
	Identity *identity.Identity
	// Policy determines lifetime and capabilities.
	Policy identity.Policy
	// Count is how many key packages are made.
	Count uint64
	// LastResort makes them key packages of last resort.
	LastResort bool
	// Pending stores them as pending, for a caller that first writes them where others may take
	// them and then marks them as published. A crash in between leaves key packages that are known
	// to be in doubt and can be written again, and never one that is handed out twice.
	Pending bool
	// Custody is where the private keys are kept: vault.CustodyWrapped, which is the default,
	// vault.CustodyToken, or vault.CustodyRelease, until HandOver and ConfirmHandover.
	Custody string
	// ReleaseKey is the public key of the device, for the suite's KEM. Private keys of custody
	// vault.CustodyRelease may be released to it alone.
	ReleaseKey []byte
	// Version is the version of the identity; 0 means the first.
	Version uint64
	// Now is the time from which lifetimes are counted.
	Now time.Time
	// Workers is how many key packages are made at once, and Batch how many are stored at once; 0
	// takes the Inventory's number.
	Workers, Batch int
}

// Generate makes the key packages of r and calls stored with each batch when it is durable. All
// calls come from one goroutine; the order within a batch is arbitrary, and the slice is reused
// after stored returns. Generate returns how many key packages are durable, even if it fails.
//
// When ctx ends, Generate begins nothing new, completes and stores what is under way, and returns
// ErrInterrupted. An error of stored stops it in the same way. Memory is bounded by the batch,
// whatever the count.
func (inv *Inventory) Generate(ctx context.Context, r Request, stored func([]store.KeyPackage) error) (uint64, error) {
	line, err := inv.newLine(ctx, r)
	switch {
	case err != nil && ctx.Err() != nil:
		return 0, fmt.Errorf("generate key packages: %w: %w", ErrInterrupted, err)
	case err != nil:
		return 0, err
	}
	// The calls themselves outlive ctx: a key package that was begun is completed.
	uncut := context.WithoutCancel(ctx)
	stopping, stop := context.WithCancel(ctx)
	defer stop()

	made := newCollector(int(max(min(uint64(cmp.Or(r.Batch, inv.batch)), r.Count), 1)), maxWait)
	var begun atomic.Uint64
	workers, running := errgroup.WithContext(stopping)
	for range max(cmp.Or(r.Workers, inv.workers), 1) {
		workers.Go(func() error {
			for running.Err() == nil && begun.Add(1) <= r.Count {
				record, err := line.make(uncut)
				if err != nil {
					return err
				}
				made.add(record)
			}
			return nil
		})
	}
	ended := make(chan error, 1)
	go func() {
		err := workers.Wait()
		made.end()
		ended <- err
	}()

	n, err := inv.keep(uncut, made, stored)
	stop()
	made.end() // nobody has seen what is dropped
	makeErr := <-ended
	switch {
	case err != nil:
		return n, err
	case makeErr != nil:
		return n, makeErr
	case n < r.Count:
		return n, fmt.Errorf("generate key packages: %w", ErrInterrupted)
	}
	return n, nil
}

// maxWait is how long a key package waits for its batch to fill: even a token that makes twenty a
// second shows progress, and a crash loses the work of one second.
const maxWait = time.Second

// keep stores what is made, batch by batch.
func (inv *Inventory) keep(ctx context.Context, made *collector, stored func([]store.KeyPackage) error) (uint64, error) {
	var n uint64
	for {
		batch := made.take()
		if len(batch) == 0 {
			return n, nil
		}
		if err := inv.store.AddKeyPackages(ctx, batch); err != nil {
			return n, fmt.Errorf("store a batch of %d: %w", len(batch), err)
		}
		n += uint64(len(batch))
		if err := stored(batch); err != nil {
			return n, err
		}
	}
}

// line makes key packages of one kind. It is safe for concurrent use.
type line struct {
	inv     *Inventory
	builder *keypackage.Builder
	vault   vault.Custodian
	record  store.KeyPackage // what all of them share
	request Request
	start   time.Time // this machine's clock at Request.Now
}

// newLine prepares the line for r. It refuses whatever can be refused, before a key is made.
func (inv *Inventory) newLine(ctx context.Context, r Request) (*line, error) {
	template, err := r.Identity.Template(r.Policy, r.Now, r.LastResort)
	if err != nil {
		return nil, fmt.Errorf("prepare key packages: %w", err)
	}
	builder, err := keypackage.NewBuilder(template, r.Identity.Signer)
	if err != nil {
		return nil, fmt.Errorf("prepare key packages of %q: %w", r.Identity.Name, err)
	}
	release, err := r.releasing()
	if err != nil {
		return nil, fmt.Errorf("prepare key packages of %q: %w", r.Identity.Name, err)
	}
	v, err := inv.custodianFor(ctx, r)
	if err != nil {
		return nil, err
	}
	custody := v.Custody()
	if release != nil {
		custody = vault.CustodyRelease
	}
	state := store.Available
	if r.Pending {
		state = store.Pending
	}
	record := store.KeyPackage{
		Identity:      r.Identity.Name,
		Suite:         uint16(r.Identity.Suite.ID),
		State:         state,
		LastResort:    template.Unsigned().LastResort(), // by request, or by its type in the policy
		Custody:       custody,
		ReleaseDigest: release,
		WrappingKeyID: v.KeyID(),
		Version:       max(r.Version, 1),
		NotBefore:     time.Unix(int64(template.Lifetime.NotBefore), 0).UTC(),
		NotAfter:      time.Unix(int64(template.Lifetime.NotAfter), 0).UTC(),
	}
	return &line{inv: inv, builder: builder, vault: v, record: record, request: r, start: time.Now()}, nil
}

// Keeps fails unless the private keys of a suite's key packages can be kept in a custody. If the
// token cannot keep them, the error is vault.ErrCustody, with the reason.
func (inv *Inventory) Keeps(ctx context.Context, name, custody string, suite *ciphersuite.Suite) error {
	_, err := inv.custodianFor(ctx, Request{Identity: &identity.Identity{Name: name, Suite: suite}, Custody: custody, Count: 1})
	return err
}

// custodianFor returns the custodian of the private keys of r's key packages. If the token cannot
// keep them, the error is vault.ErrCustody, with the reason.
func (inv *Inventory) custodianFor(ctx context.Context, r Request) (vault.Custodian, error) {
	purpose := store.Seal
	if r.Custody == vault.CustodyToken {
		purpose = store.Wrap
		if err := vault.Keepable(r.Identity.Suite); err != nil {
			return nil, fmt.Errorf("prepare key packages of %q: %w", r.Identity.Name, err)
		}
	}
	key, err := inv.currentKey(ctx, purpose)
	if err != nil {
		return nil, err
	}
	m, err := MechanismOf(&key)
	if err != nil {
		return nil, err
	}
	// The others have no nonces to run out of.
	switch {
	case m != vault.AESGCM:
	case r.Count > MaxSealings:
		return nil, fmt.Errorf("%d key packages: %w: a wrapping key seals %d times", r.Count, ErrTooMany, MaxSealings)
	case key.Uses >= MaxSealings || r.Count > MaxSealings-key.Uses:
		return nil, fmt.Errorf("wrapping key %v has sealed %d times: %w", vault.KeyID(key.ID), key.Uses, ErrWrappingKeySpent)
	}
	v, err := inv.custodian(ctx, key.ID)
	if err != nil {
		return nil, err
	}
	if err := v.Serves(ctx, r.Identity.Suite); err != nil {
		return nil, fmt.Errorf("prepare key packages of %q: %w", r.Identity.Name, err)
	}
	return v, nil
}

// make makes one key package: it makes two key pairs, makes and verifies two signatures, and seals
// the private keys.
func (l *line) make(ctx context.Context) (store.KeyPackage, error) {
	suite := l.request.Identity.Suite
	keys, err := l.vault.Generate(ctx, l.inv.rand, suite)
	if err != nil {
		return store.KeyPackage{}, err
	}
	defer keys.Clear()
	kp, err := l.builder.Build(l.inv.rand, keys.InitKey(), keys.EncryptionKey())
	if err != nil {
		return store.KeyPackage{}, fmt.Errorf("build key package: %w", err)
	}
	sealed, err := keys.Seal(ctx, l.inv.rand, vault.Binding{Ref: kp.Ref(), Suite: suite, Release: l.record.ReleaseDigest})
	if err != nil {
		return store.KeyPackage{}, fmt.Errorf("seal private keys: %w", err)
	}
	record := l.of(kp)
	record.Sealed = sealed
	return record, nil
}

// of returns the record of a key package, without its private keys.
func (l *line) of(kp *keypackage.Verified) store.KeyPackage {
	record := l.record
	record.CreatedAt = l.request.Now.Add(time.Since(l.start)).UTC().Truncate(time.Second)
	record.Ref, record.Public = kp.Ref(), kp.Bytes()
	return record
}
