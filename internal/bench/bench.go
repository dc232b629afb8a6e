// Package bench measures how close the generation of key packages comes to the limit of a token.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/policy"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Config is what to measure, and with what. All fields except the functions are required.
type Config struct {
	// Settings is the config file, for the policies and the size of a batch.
	Settings *config.Config
	// Token gets temporary keys, which are destroyed at the end.
	Token *token.Token
	// Parent is the folder in which a temporary store is made, on the disk that is to be measured.
	Parent string
	// Suites are measured one after the other.
	Suites []*ciphersuite.Suite
	// Duration is how long each figure is measured in each of Rounds rounds.
	Duration time.Duration
	Rounds   int
	// Processors is how many processors the process may use at once.
	Processors int
	// Rand is the source of keys and nonces. Several goroutines read it at once.
	Rand io.Reader
	// Progress is called before each round, which counts from 1. It may be nil.
	Progress func(suite ciphersuite.ID, round int)
	// ColdStart starts a process that makes one key package of an identity in the store at url,
	// and waits for its end. Nil: cold starts are not measured.
	ColdStart func(ctx context.Context, url, identity string) error
}

// Report has the measurements. Rates are per second.
type Report struct {
	Suites    []Suite
	ColdStart []time.Duration // of whole processes
	ColdFault error           // why there are none, if that was to be measured
	Skipped   []Skipped
}

// Suite has the measurements of a cipher suite: medians over the rounds.
type Suite struct {
	ID            ciphersuite.ID
	Library       float64 // the bare loop by the calls of the libraries
	Limit         float64 // the bare loop by the calls of this program
	Generate      float64
	LibraryRatio  float64
	Ratio         float64
	LibraryRatios []float64 // of each round; empty if the libraries cannot
	Ratios        []float64
	Sign          float64
}

// Skipped is a suite that could not be measured.
type Skipped struct {
	ID     ciphersuite.ID
	Reason error
}

// run is a measurement in progress.
type run struct {
	Config
	library   *token.Token // by the calls of the libraries alone
	operator  *operator.Operator
	url       string // of the temporary store
	wrapping  vault.KeyID
	mechanism vault.Mechanism // of the wrapping key
}

// Run measures. The error wraps operator.ErrPartial if the context ends; temporary keys and the
// store are removed in any case.
func Run(ctx context.Context, c Config) (report *Report, err error) {
	b := &run{Config: c}
	if b.library, err = c.Token.Beside(token.Quirks{LibraryCalls: true, TokenObjects: true}); err != nil {
		return nil, err
	}
	defer b.library.Close()
	cleanup, err := b.setUp(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cleanup()) }()

	report = new(Report)
	for _, s := range c.Suites {
		result, err := b.suite(ctx, s)
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%w: %w", operator.ErrPartial, context.Cause(ctx))
		case err != nil:
			report.Skipped = append(report.Skipped, Skipped{s.ID, err})
		default:
			report.Suites = append(report.Suites, result)
		}
	}
	if c.ColdStart != nil {
		report.ColdStart, report.ColdFault = b.coldStarts(ctx)
	}
	return report, nil
}

// setUp makes the temporary store and wrapping key; the function that it
// returns removes them.
func (b *run) setUp(ctx context.Context) (func() error, error) {
	dir, err := os.MkdirTemp(b.Parent, ".hsm-kp-bench-*")
	if err != nil {
		return nil, err
	}
	undo := []func() error{func() error { return os.RemoveAll(dir) }}
	cleanup := func() error {
		var faults []error
		for _, f := range slices.Backward(undo) {
			faults = append(faults, f())
		}
		return errors.Join(faults...)
	}
	fail := func(err error) (func() error, error) { return nil, errors.Join(err, cleanup()) }

	path := filepath.Join(dir, "bench.db")
	b.url = "sqlite:" + path
	s, err := sqlite.Open(ctx, path, sqlite.Options{Create: true})
	if err != nil {
		return fail(err)
	}
	undo = append(undo, s.Close)
	b.operator = operator.New(operator.Config{
		Settings: b.Settings, Store: s, OpenToken: func(context.Context) (*token.Token, error) { return b.Token, nil },
		Rand: b.Rand, Now: time.Now, Processors: b.Processors,
	}, operator.Silent{})
	key, err := b.wrappingKey(ctx)
	if err != nil {
		return fail(err)
	}
	b.wrapping = key.ID
	undo = append(undo, func() error {
		return errors.Join(b.destroy(ctx, key.ID), b.destroy(ctx, vault.StampingKeyID(key.ID)))
	})
	return cleanup, nil
}

// wrappingKey makes a wrapping key that seals by a mechanism of the token.
func (b *run) wrappingKey(ctx context.Context) (store.WrappingKey, error) {
	b.mechanism = vault.AESGCM
	can, err := b.Token.CanSeal(ctx)
	if err != nil {
		return store.WrappingKey{}, err
	}
	if !can {
		b.mechanism = vault.RSAOAEP
	}
	return b.operator.CreateWrappingKey(ctx, operator.NewWrappingKey{Purpose: store.Seal, Mechanism: b.mechanism})
}

// destroy destroys the objects in the token with a CKA_ID.
func (b *run) destroy(ctx context.Context, id []byte) error {
	_, err := b.Token.DestroyByID(context.WithoutCancel(ctx), id, token.ClassSecretKey, token.ClassPrivateKey, token.ClassPublicKey)
	return err
}

// suite measures one suite in all rounds, the figures in turn, so that a change
// of the machine's speed affects all of them.
func (b *run) suite(ctx context.Context, s *ciphersuite.Suite) (result Suite, err error) {
	record, err := b.identity(ctx, fmt.Sprintf("bench-%d", uint16(s.ID)), s)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, b.destroy(ctx, record.KeyID)) }()
	id, err := b.operator.OpenIdentity(ctx, &record)
	if err != nil {
		return result, err
	}
	same, err := b.bareLoop(ctx, b.Token, record.KeyID, s)
	if err != nil {
		return result, err
	}
	library, err := b.bareLoop(ctx, b.library, record.KeyID, s)
	if err != nil {
		return result, err
	}
	var libraries, limits, generates, signs []float64
	lets := library.keyPackage(ctx) == nil // NSS does not report the length of its outputs as the libraries expect
	for round := range b.Rounds {
		if b.Progress != nil {
			b.Progress(s.ID, round+1)
		}
		of := func(measure func() (float64, error), to *[]float64) (rate float64) {
			if err == nil {
				rate, err = measure()
				*to = append(*to, rate)
			}
			return rate
		}
		var slow float64
		if lets {
			slow = of(func() (float64, error) { return b.perSecond(ctx, library.keyPackage) }, &libraries)
		}
		limit := of(func() (float64, error) { return b.perSecond(ctx, same.keyPackage) }, &limits)
		generate := of(func() (float64, error) { return b.generate(ctx, id) }, &generates)
		of(func() (float64, error) { return b.perSecond(ctx, same.signature) }, &signs)
		if err != nil {
			return result, err
		}
		result.Ratios = append(result.Ratios, generate/limit)
		if lets {
			result.LibraryRatios = append(result.LibraryRatios, generate/slow)
		}
	}
	result.ID = s.ID
	result.Library, result.Limit, result.Generate, result.Sign = Median(libraries), Median(limits), Median(generates), Median(signs)
	result.Ratio, result.LibraryRatio = Median(result.Ratios), Median(result.LibraryRatios)
	return result, nil
}

// identity makes a temporary identity with a signature key.
func (b *run) identity(ctx context.Context, name string, s *ciphersuite.Suite) (store.Identity, error) {
	return b.operator.CreateIdentity(ctx, operator.CreateIdentityRequest{Name: name, Suite: fmt.Sprint(uint16(s.ID))})
}

// generate generates key packages until the time is over, and returns how many a second are
// durable by then.
func (b *run) generate(ctx context.Context, id *identity.Identity) (float64, error) {
	p, err := policy.Of(b.Settings, "", b.Rand)
	if err != nil {
		return 0, err
	}
	inv, err := b.operator.Inventory(ctx)
	if err != nil {
		return 0, err
	}
	timed, cancel := context.WithTimeout(ctx, b.Duration)
	defer cancel()
	start := time.Now()
	n, err := inv.Generate(timed, inventory.Request{Identity: id, Policy: p, Count: inventory.MaxSealings / 4, Now: start},
		func([]store.KeyPackage) error { return nil })
	if err != nil && (!errors.Is(err, inventory.ErrInterrupted) || ctx.Err() != nil) {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// coldStarts times whole processes, from their start to their end.
func (b *run) coldStarts(ctx context.Context) (times []time.Duration, err error) {
	s, _ := ciphersuite.Lookup(ciphersuite.MLS_128_DHKEMP256_AES128GCM_SHA256_P256)
	record, err := b.identity(ctx, "cold", s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.destroy(ctx, record.KeyID)) }()
	for range 5 {
		start := time.Now()
		if err := b.ColdStart(ctx, b.url, "cold"); err != nil {
			return nil, err
		}
		times = append(times, time.Since(start))
	}
	return times, nil
}

// Median returns the middle of values, or 0 if there are none.
func Median[N float64 | time.Duration](values []N) N {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
