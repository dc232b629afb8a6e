package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/manifest"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

func provisionCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "provision",
		Category: categoryMake,
		Usage:    "give the devices of a manifest their identities and key packages",
		Description: `The manifest has a JSON object a line, or is CSV with a line of column names where
its name ends in .csv or --csv is given; - is standard input. Of a device it says

   name            of the device, and of its identity here
   identity        what the basic credential holds (default: the name)
   suite           by name or number (default: the config's)
   credential      basic or x509 (default: basic)
   certificate     a file with its chain, in PEM, from the manifest's folder
   subject, dns_names, emails, uris
                   what a certificate is asked for
   count           how many key packages (default: 1)
   last_resort     true: one of last resort besides
   custody         wrapped, token, device or release (default: the config's)
   init_key, encryption_key
                   custody device: its HPKE public keys, in base64; no private half is here
   release_key     custody release: a public key of the device, in base64
   labels          anything, which comes back with the result (CSV: columns label.X)

All of it is checked before anything is made. There is a line of result for each
device, in the same order; --json gives refs, expiries and errors. What fails for one
device stops no other.

A device that has its identity and its key packages already is given the same again, so
that the command may be run again after it was interrupted, or after devices were added to
the manifest. Key packages count until they expire or are retired, also once they were used.

With custody release the private keys are made here, and are the device's: --json has them, sealed by
HPKE (RFC 9180) to release_key with the algorithms of the device's cipher suite, which any HPKE library
opens. They stay here, for nobody else, and are handed over by each run, until "hsm-kp handover confirm"
erases them. Another release_key for a device that is there is refused.

With credential x509 and no certificate, the enrolment command of the config
(x509.enroll) gets a certification request, signed in the token, and answers with the
chain; without one, the result is "awaiting certificate" and has the request.

Examples:
   hsm-kp provision --manifest devices.jsonl --check
   hsm-kp provision --manifest devices.jsonl --json >results.jsonl
   hsm-kp provision --manifest devices.csv --out spool/
   jq -r 'select(.csr) | .csr' results.jsonl`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "manifest", Aliases: []string{"m"}, Usage: "read the devices from `FILE`"},
			&cli.BoolFlag{Name: "csv", Usage: "the manifest is CSV"},
			&cli.BoolFlag{Name: "check", Usage: "only check the manifest"},
			&cli.IntFlag{Name: "parallel", Usage: "work on `N` devices at once", DefaultText: "four for each of the token's sessions"},
			outFlag,
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			lines, err := readManifest(c, u)
			if err != nil {
				return err
			}
			if c.IsSet("out") && c.String("out") == "" {
				return usagef("provision: --out names no folder")
			}
			if c.IsSet("parallel") && c.Int("parallel") < 1 {
				return usagef("provision: --parallel must be at least 1")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			p := &provisioner{env: e, json: c.Bool("json"), lines: lines, folder: filepath.Dir(c.String("manifest"))}
			if err := p.check(); err != nil {
				return err
			}
			if c.Bool("check") {
				u.notef("%s: ok", operator.Plural(len(lines), "device"))
				return nil
			}
			return p.run(c)
		},
	}
}

// maxManifest bounds a manifest, in bytes.
const maxManifest = 1 << 30

func readManifest(c *cli.Context, u *ui) ([]manifest.Line, error) {
	name := c.String("manifest")
	if name == "" {
		return nil, usagef("provision: --manifest FILE is missing")
	}
	in := u.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	parse := manifest.ParseJSONLines
	if c.Bool("csv") || strings.EqualFold(filepath.Ext(name), ".csv") {
		parse = manifest.ParseCSV
	}
	lines, err := parse(io.LimitReader(in, maxManifest))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", name, err)
	}
	return lines, nil
}

// provisioned is what became of a device.
type provisioned struct {
	Line         int                     `json:"line"`
	Name         string                  `json:"name"`
	Status       string                  `json:"status"`
	CipherSuite  string                  `json:"cipher_suite,omitempty"`
	KeyID        string                  `json:"key_id,omitempty"`
	SignatureKey string                  `json:"signature_key,omitempty"`
	ValidUntil   *time.Time              `json:"certificates_valid_until,omitempty"`
	CSR          string                  `json:"csr,omitempty"`
	Made         int                     `json:"made"`
	KeyPackages  []provisionedKeyPackage `json:"key_packages,omitempty"`
	Labels       map[string]string       `json:"labels,omitempty"`
	Error        string                  `json:"error,omitempty"`

	waiting int // key packages whose private keys wait to be handed over
}

// The statuses of a device.
const (
	statusReady    = "ready"
	statusAwaiting = "awaiting certificate"
	statusFailed   = "failed"
)

// provisionedKeyPackage is one of a device's key packages.
type provisionedKeyPackage struct {
	Ref        string    `json:"key_package_ref"`
	State      string    `json:"state"`
	NotAfter   time.Time `json:"not_after"`
	LastResort bool      `json:"last_resort,omitempty"`
	Custody    string    `json:"custody"`
	File       string    `json:"file,omitempty"`
	// Of custody release:
	Confirmed *bool         `json:"confirmed,omitempty"`   // whether the device has its private keys, and they are erased here
	Message   []byte        `json:"mls_message,omitempty"` // what goes to the device with them
	Released  *releasedJSON `json:"released,omitempty"`
}

func provisionedOf(r *store.KeyPackage, file string) provisionedKeyPackage {
	p := provisionedKeyPackage{
		Ref: hex.EncodeToString(r.Ref), State: string(r.State), NotAfter: r.NotAfter, LastResort: r.LastResort, Custody: r.Custody, File: file,
	}
	if r.Custody == vault.CustodyRelease {
		confirmed := !r.Unconfirmed()
		p.Confirmed = &confirmed
	}
	return p
}

// provisioner gives devices what their lines say.
type provisioner struct {
	*env
	lines  []manifest.Line
	folder string // from which certificates are named
	out    *directory.Spool
	json   bool

	mu      sync.Mutex
	results []*provisioned // by line; those before next are printed
	waiting int            // key packages that are to be handed over, and were not without --json
	next    int
	tally   map[string]int
	made    int
	start   time.Time
}

// errDevices reports a run in which devices failed.
var errDevices = errors.New("devices failed")

// waiting is how many devices are worked on at once for each session of the token: each waits for
// the store, for other sessions or for its certificate while others have the token, and those that
// wait for the store share its transactions.
const waiting = 4

func (p *provisioner) run(c *cli.Context) error {
	if dir := c.String("out"); dir != "" {
		var err error
		if p.out, err = directory.OpenSpool(dir); err != nil {
			return err
		}
	}
	if err := p.prepare(c.Context); err != nil {
		return err
	}
	parallel := c.Int("parallel")
	if parallel == 0 {
		parallel = waiting * p.token.Sessions()
	}
	err := p.devices(c.Context, parallel)
	p.summarize()
	switch {
	case err != nil:
		return err
	case c.Context.Err() != nil:
		return fmt.Errorf("%w: %d of %s are done: %w", operator.ErrPartial, p.next, operator.Plural(len(p.lines), "device"), context.Cause(c.Context))
	case p.tally[statusFailed] > 0:
		return fmt.Errorf("%d of %d %w", p.tally[statusFailed], len(p.lines), errDevices)
	}
	return nil
}

// prepare does what each verb that makes key packages does first, once for all devices.
func (p *provisioner) prepare(ctx context.Context) error {
	if _, err := p.openToken(ctx); err != nil { // once: devices share it
		return err
	}
	if err := p.Tidy(ctx); err != nil {
		return err
	}
	if err := p.RotateWhenDue(ctx); err != nil {
		return err
	}
	for i := range p.lines {
		if p.lines[i].Credential == manifest.X509 && p.config.X509.Roots == "" {
			p.ui.warnf("the config names no x509.roots: nobody vouches for the ends of the chains")
			break
		}
	}
	return nil
}

// devices works on all lines, so many at once, until one fails for a reason that the others
// would fail for too.
func (p *provisioner) devices(ctx context.Context, parallel int) error {
	p.results, p.tally, p.start = make([]*provisioned, len(p.lines)), make(map[string]int), time.Now()
	single, err := p.forOne(ctx, parallel)
	if err != nil {
		return err
	}
	g, running := errgroup.WithContext(ctx)
	next := make(chan int)
	g.Go(func() error {
		defer close(next)
		for i := range p.lines {
			select {
			case next <- i:
			case <-running.Done():
				return nil
			}
		}
		return nil
	})
	for range min(parallel, len(p.lines)) {
		g.Go(func() error {
			for i := range next {
				result, err := single.provision(running, &p.lines[i])
				if err != nil && (running.Err() != nil || isCommon(err)) {
					return err
				}
				if err := p.show(i, result); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	if ctx.Err() != nil { // what was interrupted is told in one sentence
		return nil
	}
	return err
}

// isCommon reports whether an error of one device is one that others would meet too: of the
// token as such, of the store or of the folder.
func isCommon(err error) bool {
	var call *token.Error
	return isAny(err, token.ErrModule, token.ErrNoToken, token.ErrPIN, token.ErrPINAtRisk, token.ErrClosed, token.ErrStuck, token.ErrKeyChanged,
		store.ErrBusy, store.ErrFull, store.ErrReadOnly, store.ErrDamaged, errFolder) ||
		errors.As(err, &call) && !isAny(err, token.CKR_MECHANISM_INVALID, vault.ErrSealed, vault.ErrStamp, vault.ErrMixedUp)
}

// errFolder reports an output folder that takes nothing any more.
var errFolder = errors.New("write to output folder")

// show prints results in the order of the manifest, as far as they are there.
func (p *provisioner) show(i int, r *provisioned) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results[i] = r
	for p.next < len(p.results) && p.results[p.next] != nil {
		ready := p.results[p.next]
		p.results[p.next] = nil
		p.next++
		p.tally[ready.Status]++
		p.made += ready.Made
		p.waiting += ready.waiting
		if err := p.print(ready); err != nil {
			return err
		}
	}
	rate := float64(p.next) / time.Since(p.start).Seconds()
	p.ui.progressf("%s %d of %s, %.0f a second", bar(p.next, len(p.lines)), p.next, operator.Plural(len(p.lines), "device"), rate)
	return nil
}

// bar draws how far a work is.
func bar(done, all int) string {
	const width = 20
	full := done * width / max(all, 1)
	return "[" + strings.Repeat("#", full) + strings.Repeat(".", width-full) + "]"
}

func (p *provisioner) print(r *provisioned) error {
	if p.json {
		if err := p.ui.jsonLine(r); err != nil {
			return err
		}
		return p.ui.flush() // what is told is durable, and somebody may wait for it
	}
	p.ui.printf("%-20s  %-20s  %s\n", r.Status, r.summary(), r.Name)
	return p.ui.flush()
}

// summary says of a device how many key packages it has, or what is wrong.
func (r *provisioned) summary() string {
	if r.Error != "" {
		return r.Error
	}
	text := operator.Plural(len(r.KeyPackages), "key package")
	if r.Made < len(r.KeyPackages) {
		text += fmt.Sprintf(", %d new", r.Made)
	}
	return text
}

func (p *provisioner) summarize() {
	took := time.Since(p.start)
	p.ui.notef("%d ready, %d awaiting a certificate, %d failed; %s made in %v", p.tally[statusReady], p.tally[statusAwaiting],
		p.tally[statusFailed], operator.Plural(p.made, "key package"), took.Round(time.Millisecond))
	if p.waiting > 0 {
		p.ui.notef("the private keys of %s wait for their devices: --json hands them over", operator.Plural(p.waiting, "key package"))
	}
}
