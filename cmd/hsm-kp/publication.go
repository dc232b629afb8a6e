package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// publication is a run that publishes, in one directory after the other.
type publication struct {
	*directories
	told    func(dir config.Directory, k *store.Dispatched, err error) error // what became of a key package
	start   time.Time
	down    map[string]bool      // directories that take nothing
	refused map[string]time.Time // refs that were refused, with the end of their lease

	json, mute bool // of printed: in JSON; nothing of single key packages on standard output

	published, failed uint64
	cause             error // of the first that failed
}

func newPublication(d *directories) *publication {
	return &publication{directories: d, start: time.Now(), down: make(map[string]bool), refused: make(map[string]time.Time)}
}

// newPrinted returns a run that prints what becomes of key packages.
func newPrinted(e *env, json bool) *publication {
	p := newPublication(newDirectories(e))
	p.json, p.told = json, p.print
	return p
}

// publishedJSON is a line of publish --json.
type publishedJSON struct {
	Ref        string `json:"key_package_ref"`
	Identity   string `json:"identity"`
	Directory  string `json:"directory"`
	LastResort bool   `json:"last_resort"`
	Published  bool   `json:"published"`
	Error      string `json:"error,omitempty"`
}

// all publishes at most n key packages of an identity, or all where n is 0, and those of
// last resort. An error ends the run; what a directory did not take is counted.
func (p *publication) all(ctx context.Context, record *store.Identity, dir config.Directory, n int) error {
	err := p.some(ctx, dir, store.Dispatch{Identity: record.Name, N: n}, record)
	if err == nil {
		err = p.some(ctx, dir, store.Dispatch{Identity: record.Name, LastResort: true}, record)
	}
	return err
}

// some publishes the key packages that d chooses, at most d.N or all where that is 0, in
// batches. It stops where the directory takes nothing more.
func (p *publication) some(ctx context.Context, dir config.Directory, d store.Dispatch, record *store.Identity) error {
	most := d.N
	for sent := 0; ctx.Err() == nil && !p.down[dir.Name] && (most == 0 || sent < most); {
		d.N = batchSize(dir)
		if most > 0 {
			d.N = min(d.N, most-sent)
		}
		took, going, err := p.batch(ctx, record, dir, d)
		if err != nil || !going {
			return err
		}
		sent += took
	}
	return nil
}

// batchSize is how many key packages are leased at once: no more than a quarter of the lease
// lets through.
func batchSize(dir config.Directory) int {
	if dir.Rate == 0 {
		return dir.Batch
	}
	return max(1, min(dir.Batch, dir.Rate*int(time.Duration(dir.Lease).Seconds())/4))
}

// batch leases key packages, sends them and records what was acknowledged. It returns how
// many it sent, and whether it makes sense to go on.
func (p *publication) batch(ctx context.Context, record *store.Identity, dir config.Directory, d store.Dispatch) (int, bool, error) {
	client, err := p.client(ctx, record, dir)
	if err != nil {
		return 0, false, fmt.Errorf("directory %q: %w", dir.Name, err)
	}
	now := time.Now()
	d.Directory, d.Now, d.Until = dir.Name, now, now.Add(time.Duration(dir.Lease))
	leased, err := p.store.Dispatch(ctx, d)
	if err != nil || len(leased) == 0 {
		return 0, false, err
	}
	// The lease must not end while something is on its way.
	sending, cancel := context.WithDeadline(ctx, now.Add(time.Duration(dir.Lease)*9/10))
	defer cancel()
	results := p.send(sending, client, leased)
	going, err := p.settle(context.WithoutCancel(ctx), dir, leased, results, d.Until)
	return len(leased), going, err
}

// send sends key packages. A record that is at fault is not sent.
func (p *publication) send(ctx context.Context, client directory.Publisher, leased []store.Dispatched) []error {
	results := make([]error, len(leased))
	var items []directory.Item
	var of []int
	for i := range leased {
		kp, err := inventory.Public(&leased[i].KeyPackage)
		if err != nil {
			results[i] = err
			continue
		}
		items, of = append(items, directory.Item{Ref: leased[i].Ref, KeyPackage: kp, Again: leased[i].Again}), append(of, i)
	}
	for j, err := range client.Publish(ctx, items) {
		results[of[j]] = err
	}
	return results
}

// settle records what was acknowledged, gives back what was not, and tells both. It reports
// whether the directory takes more.
func (p *publication) settle(ctx context.Context, dir config.Directory, leased []store.Dispatched, results []error, until time.Time) (bool, error) {
	var acknowledged, left [][]byte
	for i, err := range results {
		switch {
		case err == nil:
			acknowledged = append(acknowledged, leased[i].Ref)
		case errors.Is(err, directory.ErrRefused), errors.Is(err, inventory.ErrMixedUp):
			p.refused[string(leased[i].Ref)] = until // this run does not send it again
		default:
			left = append(left, leased[i].Ref)
			p.down[dir.Name] = p.down[dir.Name] || takesNothing(dir, err)
		}
	}
	if err := p.store.Acknowledge(ctx, acknowledged, dir.Name, time.Now()); err != nil {
		return false, fmt.Errorf("record what directory %q has: %w", dir.Name, err)
	}
	if err := p.store.Return(ctx, left, until); err != nil {
		return false, err
	}
	for i, err := range results {
		if err := p.tell(dir, &leased[i], err); err != nil {
			return false, err
		}
	}
	return len(left) == 0, nil
}

// takesNothing reports whether an error says that a directory takes nothing of anybody.
func takesNothing(dir config.Directory, err error) bool {
	return errors.Is(err, directory.ErrUnreachable) || dir.Type == config.HTTP && errors.Is(err, directory.ErrUnauthorized)
}

// giveBack ends the leases on what was refused: the next run sends it again.
func (p *publication) giveBack(ctx context.Context) error {
	for ref, until := range p.refused {
		if err := p.store.Return(ctx, [][]byte{[]byte(ref)}, until); err != nil {
			return err
		}
	}
	clear(p.refused)
	return nil
}

// tell counts what became of a key package, and tells it.
func (p *publication) tell(dir config.Directory, k *store.Dispatched, err error) error {
	if err == nil {
		p.published++
	} else {
		p.failed++
		if p.cause == nil {
			p.cause = fmt.Errorf("directory %q: %w", dir.Name, err)
		}
	}
	return p.told(dir, k, err)
}

// print shows what became of a key package.
func (p *publication) print(dir config.Directory, k *store.Dispatched, err error) error {
	line := publishedJSON{Ref: keypackage.Ref(k.Ref).String(), Identity: k.Identity, Directory: dir.Name, LastResort: k.LastResort, Published: err == nil}
	if err != nil {
		line.Error = err.Error()
		if !p.refused[string(k.Ref)].IsZero() {
			p.ui.warnf("key package %v of %q: directory %q: %v", keypackage.Ref(k.Ref), k.Identity, dir.Name, err)
		}
	}
	p.ui.progressf("%s published, %.0f a second", operator.Plural(p.published, "key package"), float64(p.published)/time.Since(p.start).Seconds())
	if !p.json {
		return nil
	}
	return p.ui.jsonLine(line)
}

// directoryOptions are those of the config.
func directoryOptions(dir *config.Directory) directory.Options {
	return directory.Options{
		URL: dir.URL, Headers: dir.Headers, Bearer: bearer(dir.Bearer), CA: dir.CA, Certificate: dir.Certificate, Key: dir.Key,
		Timeout: time.Duration(dir.Timeout), Deadline: time.Duration(dir.Deadline), Rate: float64(dir.Rate), Burst: dir.Burst,
		Concurrency: dir.Concurrency, MaxResponse: int64(dir.MaxResponse), UserAgent: "hsm-kp/" + version(),
	}
}

// bearer reads a bearer token from where the config says, as PINs are read.
func bearer(s config.Secret) func(context.Context) (string, error) {
	source := pinSource(config.PIN{Env: s.Env, File: s.File, Systemd: s.Systemd})
	if source == nil {
		return nil
	}
	return func(ctx context.Context) (string, error) {
		secret, err := source.Read(ctx)
		if err != nil {
			return "", err
		}
		defer secret.Clear()
		return string(secret.Reveal()), nil
	}
}
