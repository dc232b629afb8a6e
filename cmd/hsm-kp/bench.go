package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/bench"
)

func benchCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "bench",
		Category: categoryLook,
		Usage:    "measure generate against the limit of the token",
		Description: `For each suite, in turn and in one run: a bare loop of the work that a key
package needs (two HPKE key pairs, two signatures in the token, two
verifications in software, one AES-GCM in the token or, if it has none, one RSA-OAEP
in software), by the calls of the libraries (crypto11, miekg/pkcs11) on the token's own
objects; the same loop by the calls that hsm-kp makes, which are fewer, and with session
copies of keys if they are faster; then generate end to end into a store on disk; then
signatures alone. Keys and store are temporary: they are made for the run and removed
after it. Rates are medians over the rounds, each ratio is the median of the rounds'
ratios. All suites together take about two and a half minutes.

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
				return usagef("bench: --rounds and --duration must be greater than 0")
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
			report, err := e.bench(c.Context, suites, c.Int("rounds"), c.Duration("duration"))
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

// bench measures with temporary keys, and a temporary store beside the configured one.
func (e *env) bench(ctx context.Context, suites []*ciphersuite.Suite, rounds int, duration time.Duration) (*benchJSON, error) {
	t, err := e.Token(ctx)
	if err != nil {
		return nil, err
	}
	coldStart, skipped := e.coldStart()
	report, err := bench.Run(ctx, bench.Config{
		Settings: e.config, Token: t, Parent: filepath.Dir(e.place.beside(e.configPath)), Suites: suites,
		Duration: duration, Rounds: rounds, Processors: processors(), Rand: rand.Reader, ColdStart: coldStart,
		Progress: func(suite ciphersuite.ID, round int) { e.ui.progressf("%v, round %d of %d", suite, round, rounds) },
	})
	if err != nil {
		return nil, err
	}
	info := t.Info()
	out := &benchJSON{
		Token:    fmt.Sprintf("%s %s, %q", info.Manufacturer, info.Model, info.Label),
		Sessions: t.Sessions(), Processors: processors(), Rounds: rounds, Duration: duration.Seconds(),
	}
	out.take(report, skipped)
	return out, nil
}

// coldStart returns a function that runs this program to make one key package, or the reason why
// it cannot be run.
func (e *env) coldStart() (func(ctx context.Context, url, identity string) error, error) {
	if e.config.Token.PIN.Prompt || e.config.Token.PIN.FD != nil {
		return nil, errors.New("the PIN comes from a prompt or a file descriptor, which another process does not have")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, url, identity string) error {
		out, err := exec.CommandContext(ctx, self, "--config", e.configPath, "--store", url,
			"generate", "--identity", identity, "--count", "1").CombinedOutput()
		if err != nil {
			return fmt.Errorf("run %s generate: %w: %s", self, err, out)
		}
		return nil
	}, nil
}

// benchJSON is what `bench --json` prints. Rates are per second.
type benchJSON struct {
	Token       string             `json:"token"`
	Sessions    int                `json:"sessions"`
	Processors  int                `json:"processors"`
	Rounds      int                `json:"rounds"`
	Duration    float64            `json:"duration_seconds"`
	Suites      []benchSuiteJSON   `json:"suites"`
	ColdStart   []float64          `json:"cold_start_ms,omitempty"`
	ColdSkipped string             `json:"cold_start_skipped,omitempty"`
	Skipped     []benchSkippedJSON `json:"skipped,omitempty"`
}

type benchSuiteJSON struct {
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

type benchSkippedJSON struct {
	Suite  string `json:"cipher_suite"`
	Reason string `json:"reason"`
}

// take adds the measurements. coldSkipped says why cold starts were not measured, if the program
// did not try.
func (r *benchJSON) take(report *bench.Report, coldSkipped error) {
	for _, s := range report.Suites {
		r.Suites = append(r.Suites, benchSuiteJSON{
			s.ID.String(), s.Library, s.Limit, s.Generate, s.LibraryRatio, s.Ratio, s.LibraryRatios, s.Ratios, s.Sign,
		})
	}
	for _, s := range report.Skipped {
		r.Skipped = append(r.Skipped, benchSkippedJSON{s.ID.String(), s.Reason.Error()})
	}
	for _, d := range report.ColdStart {
		r.ColdStart = append(r.ColdStart, float64(d.Microseconds())/1000)
	}
	switch {
	case coldSkipped != nil:
		r.ColdSkipped = coldSkipped.Error()
	case report.ColdFault != nil:
		r.ColdSkipped = report.ColdFault.Error()
	}
}

func (r *benchJSON) print(u *ui) {
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
		bench.Median(r.ColdStart), len(r.ColdStart))
}
