package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

func benchCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "bench",
		Category: categoryLook,
		Usage:    "measure how near generate comes to what the token can do",
		Description: `For each suite, in turn and in one run: a bare loop of the work that a key
package cannot do without (two HPKE key pairs, two signatures in the token, two
verifications in software, one AES-GCM in the token or, where it has none, one RSA-OAEP
in software), by the calls of the libraries (crypto11, miekg/pkcs11) on the token's own
objects; the same loop by the calls that hsm-kp makes, which are fewer, and with session
copies of keys where they are faster; then generate end to end into a store on disk; then
signatures alone. Keys and store are temporary: they are made for the run and removed
after it. Rates are medians over the rounds, each ratio is the median of the rounds'
ratios. All suites take about two minutes and a half.

Examples:
   hsm-kp bench
   hsm-kp bench --suite 2 --rounds 5 --duration 10s
   hsm-kp bench --json >bench.json`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "suite", Aliases: []string{"s"}, Usage: "measure `SUITE`, by name or number; may be repeated", DefaultText: "all"},
			&cli.DurationFlag{Name: "duration", Usage: "measure each for `DURATION` a round", Value: 2 * time.Second},
			&cli.IntFlag{Name: "rounds", Usage: "`N` rounds", Value: 3},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			if c.Int("rounds") < 1 || c.Duration("duration") <= 0 {
				return usagef("bench: --rounds and --duration must be more than nothing")
			}
			suites, err := benchSuites(c.StringSlice("suite"))
			if err != nil {
				return err
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			b := &bench{env: e, duration: c.Duration("duration"), rounds: c.Int("rounds")}
			report, err := b.run(c.Context, suites)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(report)
			}
			report.print(u)
			return nil
		},
	}
}

// benchSuites returns the suites that were named, or all that are served.
func benchSuites(names []string) ([]*ciphersuite.Suite, error) {
	if len(names) == 0 {
		return ciphersuite.All(), nil
	}
	var suites []*ciphersuite.Suite
	for _, name := range names {
		s, err := ciphersuite.Parse(name)
		if err != nil {
			return nil, usagef("bench: %v", err)
		}
		suites = append(suites, s)
	}
	return suites, nil
}

// bench measures on the configured token, with temporary keys and a temporary
// store beside the configured one.
type bench struct {
	*env
	duration time.Duration
	rounds   int

	token   *token.Token
	library *token.Token // by the calls of the libraries alone
	store   *sqlite.Store
	url     string
	vaultID vault.KeyID
	sealing vault.Mechanism
}

// benchReport is what bench prints. Rates are per second.
type benchReport struct {
	Token       string           `json:"token"`
	Sessions    int              `json:"sessions"`
	Processors  int              `json:"processors"`
	Rounds      int              `json:"rounds"`
	Duration    float64          `json:"duration_seconds"`
	Suites      []benchSuite     `json:"suites"`
	ColdStart   []float64        `json:"cold_start_ms,omitempty"`
	ColdSkipped string           `json:"cold_start_skipped,omitempty"`
	Skipped     []benchUnsupport `json:"skipped,omitempty"`
}

type benchSuite struct {
	Suite         string    `json:"cipher_suite"`
	Library       float64   `json:"bare_loop_library"` // by the calls of the libraries
	Limit         float64   `json:"bare_loop"`         // by those of hsm-kp
	Generate      float64   `json:"generate"`
	LibraryRatio  float64   `json:"ratio_library"`
	Ratio         float64   `json:"ratio"`
	LibraryRatios []float64 `json:"ratio_library_rounds"`
	Ratios        []float64 `json:"ratio_rounds"`
	Sign          float64   `json:"token_signatures"`
}

type benchUnsupport struct {
	Suite  string `json:"cipher_suite"`
	Reason string `json:"reason"`
}

func (b *bench) run(ctx context.Context, suites []*ciphersuite.Suite) (report *benchReport, err error) {
	if b.token, err = b.openToken(ctx); err != nil {
		return nil, err
	}
	if b.library, err = b.token.Beside(token.Quirks{LibraryCalls: true, TokenObjects: true}); err != nil {
		return nil, err
	}
	defer b.library.Close()
	cleanup, err := b.setUp(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, cleanup()) }()

	info := b.token.Info()
	report = &benchReport{
		Token:      fmt.Sprintf("%s %s, %q", info.Manufacturer, info.Model, info.Label),
		Sessions:   b.token.Sessions(),
		Processors: processors(),
		Rounds:     b.rounds,
		Duration:   b.duration.Seconds(),
	}
	for _, s := range suites {
		result, err := b.suite(ctx, s)
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%w: %w", operator.ErrPartial, context.Cause(ctx))
		case err != nil:
			report.Skipped = append(report.Skipped, benchUnsupport{s.ID.String(), err.Error()})
		default:
			report.Suites = append(report.Suites, result)
		}
	}
	report.ColdStart, err = b.coldStarts(ctx)
	if err != nil {
		report.ColdSkipped, err = err.Error(), nil
	}
	return report, nil
}

// setUp makes the temporary store and wrapping key; the function that it
// returns removes them.
func (b *bench) setUp(ctx context.Context) (func() error, error) {
	dir, err := os.MkdirTemp(filepath.Dir(b.place.beside(b.configPath)), ".hsm-kp-bench-*")
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
	if b.store, err = sqlite.Open(ctx, path, sqlite.Options{Create: true}); err != nil {
		return fail(err)
	}
	undo = append(undo, b.store.Close)
	if b.sealing, err = sealingOf(ctx, b.token); err != nil {
		return fail(err)
	}
	key, err := b.InventoryOver(b.store, b.token).CreateWrappingKey(ctx, b.sealing, true, time.Now())
	if err != nil {
		return fail(err)
	}
	b.vaultID = key.ID
	object := store.ObjectSealingKey
	if b.sealing == vault.RSAOAEP {
		object = store.ObjectSealingPair
	}
	undo = append(undo, func() error {
		return operator.NewRing(b.token, rand.Reader).Destroy(context.WithoutCancel(ctx), object, key.ID)
	})
	return cleanup, nil
}

// suite measures one suite in all rounds, the figures in turn, so that a
// machine that changes its pace changes it for all of them.
func (b *bench) suite(ctx context.Context, s *ciphersuite.Suite) (result benchSuite, err error) {
	id, key, err := b.identity(ctx, s)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, key.Delete(context.WithoutCancel(ctx))) }()
	same, err := b.bareLoop(ctx, b.token, key.ID(), s)
	if err != nil {
		return result, err
	}
	library, err := b.bareLoop(ctx, b.library, key.ID(), s)
	if err != nil {
		return result, err
	}
	var libraries, limits, generates, signs []float64
	lets := library.keyPackage(ctx) == nil // NSS does not tell the libraries how long its outputs are
	for round := range b.rounds {
		b.ui.progressf("%v, round %d of %d", s.ID, round+1, b.rounds)
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
		generate := of(func() (float64, error) { return b.measureGenerate(ctx, id) }, &generates)
		of(func() (float64, error) { return b.perSecond(ctx, same.signature) }, &signs)
		if err != nil {
			return result, err
		}
		result.Ratios = append(result.Ratios, generate/limit)
		if lets {
			result.LibraryRatios = append(result.LibraryRatios, generate/slow)
		}
	}
	result.Suite = s.ID.String()
	result.Library, result.Limit, result.Generate, result.Sign = median(libraries), median(limits), median(generates), median(signs)
	result.Ratio, result.LibraryRatio = median(result.Ratios), median(result.LibraryRatios)
	return result, nil
}

// identity makes a temporary signature key and an identity for it.
func (b *bench) identity(ctx context.Context, s *ciphersuite.Suite) (*identity.Identity, *signer.Key, error) {
	key, err := signer.Generate(ctx, b.token, s.Signature, nil, "hsm-kp bench")
	if err != nil {
		return nil, nil, err
	}
	name := fmt.Sprintf("bench-%d", uint16(s.ID))
	credential := keypackage.BasicCredential([]byte(name))
	id, err := identity.New(name, s, credential, key.PublicKey(), key)
	if err == nil {
		err = b.addIdentity(ctx, name, s, key)
	}
	if err != nil {
		return nil, nil, errors.Join(err, key.Delete(context.WithoutCancel(ctx)))
	}
	return id, key, nil
}

// addIdentity records an identity in the temporary store.
func (b *bench) addIdentity(ctx context.Context, name string, s *ciphersuite.Suite, key *signer.Key) error {
	record := store.Identity{
		Name: name, Suite: uint16(s.ID), Credential: keypackage.BasicCredential([]byte(name)).Bytes(), SignatureKey: key.PublicKey(),
		KeyID: key.ID(), KeyLabel: key.Label(), TokenSerial: b.token.Info().Serial, CreatedAt: time.Now(),
	}
	if err := b.InventoryOver(b.store, b.token).StampIdentity(ctx, &record); err != nil {
		return err
	}
	return b.store.AddIdentity(ctx, record)
}

// measureGenerate runs the pipeline of `hsm-kp generate` until the time is up
// and counts what is durable by then.
func (b *bench) measureGenerate(ctx context.Context, id *identity.Identity) (float64, error) {
	policy, err := operator.PolicyOf(b.config, "", rand.Reader)
	if err != nil {
		return 0, err
	}
	inv := b.InventoryOver(b.store, b.token)
	timed, cancel := context.WithTimeout(ctx, b.duration)
	defer cancel()
	start := time.Now()
	n, err := inv.Generate(timed, inventory.Request{Identity: id, Policy: policy, Count: inventory.MaxSealings / 4, Now: start},
		func([]store.KeyPackage) error { return nil })
	if err != nil && (!errors.Is(err, inventory.ErrInterrupted) || ctx.Err() != nil) {
		return 0, err
	}
	return float64(n) / time.Since(start).Seconds(), nil
}

// coldStarts times whole processes, from their start to the end of `generate
// --count 1`, in milliseconds.
func (b *bench) coldStarts(ctx context.Context) ([]float64, error) {
	if b.config.Token.PIN.Prompt || b.config.Token.PIN.FD != nil {
		return nil, errors.New("the PIN comes from a prompt or a file descriptor, which another process does not have")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s, _ := ciphersuite.Lookup(ciphersuite.MLS_128_DHKEMP256_AES128GCM_SHA256_P256)
	key, err := signer.Generate(ctx, b.token, s.Signature, nil, "hsm-kp bench")
	if err != nil {
		return nil, err
	}
	defer key.Delete(context.WithoutCancel(ctx))
	if err := b.addIdentity(ctx, "cold", s, key); err != nil {
		return nil, err
	}
	var times []float64
	for range 5 {
		start := time.Now()
		out, err := exec.CommandContext(ctx, self, "--config", b.configPath, "--store", b.url,
			"generate", "--identity", "cold", "--count", "1").CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("run %s generate: %w: %s", self, err, out)
		}
		times = append(times, float64(time.Since(start).Microseconds())/1000)
	}
	return times, nil
}

func (r *benchReport) print(u *ui) {
	u.printf("token       %s\n", r.Token)
	u.printf("sessions    %d, processors %d\n", r.Sessions, r.Processors)
	u.printf("figures     per second, medians of %d rounds of %v each\n\n", r.Rounds, time.Duration(r.Duration*float64(time.Second)))
	u.printf("%-51s %10s %7s %10s %7s %10s %12s\n", "CIPHER SUITE", "BY LIBRARY", "RATIO", "BARE LOOP", "RATIO", "GENERATE", "SIGNATURES")
	for _, s := range r.Suites {
		library, ratio := "-", "-"
		if len(s.LibraryRatios) > 0 {
			library, ratio = fmt.Sprintf("%.0f", s.Library), fmt.Sprintf("%.2f", s.LibraryRatio)
		}
		u.printf("%-51s %10s %7s %10.0f %7.2f %10.0f %12.0f\n", s.Suite, library, ratio, s.Limit, s.Ratio, s.Generate, s.Sign)
	}
	for _, s := range r.Skipped {
		u.printf("%-51s not measured: %s\n", s.Suite, s.Reason)
	}
	if r.ColdSkipped != "" {
		u.printf("\ncold start  not measured: %s\n", r.ColdSkipped)
		return
	}
	u.printf("\ncold start  %.0f ms from the start of the process to the end of `generate --count 1` (median of %d; suite 2)\n",
		median(r.ColdStart), len(r.ColdStart))
}

// median returns the middle of values, which are not empty.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
