package operator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/manifest"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// ProvisionRequest says which devices get identities and key packages.
type ProvisionRequest struct {
	// Lines are the lines of a manifest, one a device.
	Lines []manifest.Line
	// Chain returns the chain that a line names as its Certificate, or fs.ErrNotExist if it is not
	// there yet. The act opens no file that a line names. It is called by several goroutines at
	// once, and may be nil if no line names a chain.
	Chain func(name string) (certificate.Chain, error)
	// Folder is where the public parts of the key packages are written; empty: nowhere.
	Folder string
	// HandOver puts the private keys of custody release into the results, sealed for their devices,
	// and records that they are handed over. Otherwise the results only count them.
	HandOver bool
	// Parallel is how many devices are processed at once; 0: four for each session of the token.
	Parallel int
	// Each receives the result of each line, one at a time and in the order of Lines. What a result
	// says is durable. An error ends the run, and Each is not called again. It may be nil.
	Each func(*Provisioned) error
}

// DeviceStatus says whether a device has what its line says.
type DeviceStatus string

// The statuses of a device.
const (
	DeviceReady    DeviceStatus = "ready"
	DeviceAwaiting DeviceStatus = "awaiting certificate"
	DeviceFailed   DeviceStatus = "failed"
)

// Provisioned is the result of one line of a manifest.
type Provisioned struct {
	Line   int    // number of the line
	Name   string // of the device, and of its identity
	Labels map[string]string
	Status DeviceStatus
	Err    error // of a device that failed

	// Suite, KeyID and SignatureKey are the identity's: zero if it could not be made.
	Suite               ciphersuite.ID
	KeyID, SignatureKey []byte

	ValidUntil time.Time // end of its certificates; zero: it has none
	Request    []byte    // certification request in PEM, of a device that awaits its certificate
	Made       int       // key packages that this run made
	// KeyPackages are those that count for the line, whoever made them.
	KeyPackages []ProvisionedKeyPackage
	// Waiting is how many private keys of custody release are for the device, and were not handed
	// over because the request does not ask for it.
	Waiting int
}

// ProvisionedKeyPackage is a key package of a device.
type ProvisionedKeyPackage struct {
	Ref        keypackage.Ref
	State      store.State
	NotAfter   time.Time
	LastResort bool
	Custody    string
	File       string // that this run has written; or empty

	// Confirmed says, of custody release, that the device has its private keys and that they are
	// erased here.
	Confirmed bool
	// Released are the private keys, sealed for the device, and Message is the key package as an
	// MLSMessage (RFC 9420, Section 6) that goes with them. Both are nil if they are not handed over.
	Released *vault.Released
	Message  []byte
}

// ProvisionResult counts what a run of Provision has done, even if it failed.
type ProvisionResult struct {
	Ready, Awaiting, Failed int // devices whose results were given to Each
	Made                    int // key packages of these devices that this run made
	Waiting                 int // key packages of custody release that are to be handed over
}

// Done is how many devices have a result that was given to Each.
func (r *ProvisionResult) Done() int { return r.Ready + r.Awaiting + r.Failed }

// ErrDevices reports a run in which devices failed.
var ErrDevices = errors.New("devices failed")

// waiting is how many devices are processed at once for each session of the token: each waits for
// the store, for other sessions or for its certificate while others use the token, and those that
// wait for the store share its transactions.
const waiting = 4

// Provision gives each device of a manifest its identity, its certificates and its key packages,
// except for those that it already has: the next run continues an interrupted one. The
// manifest is checked as a whole before anything is made; the error is then a *manifest.Error.
//
// An error that would occur for other devices too ends the run. Other errors are in the result of
// their device, and Provision returns ErrDevices in the end. If ctx ends, the error is ErrPartial.
func (o *Operator) Provision(ctx context.Context, r ProvisionRequest) (ProvisionResult, error) {
	if err := o.CheckManifest(r.Lines); err != nil {
		return ProvisionResult{}, err
	}
	p := &provisioner{Operator: o.Reporting(Silent{}), outer: o.report, request: &r, results: make([]*Provisioned, len(r.Lines))}
	if err := p.prepare(ctx, o); err != nil {
		return ProvisionResult{}, err
	}
	err := p.run(ctx)
	switch done := p.result.Done(); {
	case ctx.Err() != nil:
		return p.result, fmt.Errorf("%w: %d of %s are done: %w", ErrPartial, done, Plural(len(r.Lines), "device"), context.Cause(ctx))
	case err != nil:
		return p.result, err
	case p.result.Failed > 0:
		return p.result, fmt.Errorf("%d of %d %w", p.result.Failed, len(r.Lines), ErrDevices)
	}
	return p.result, nil
}

// provisioner gives devices what their lines say. Its Operator is silent: each warning
// is reported once for all devices.
type provisioner struct {
	*Operator
	outer     Report // for progress
	request   *ProvisionRequest
	out       *directory.Spool // nil: no folder
	inventory *inventory.Inventory
	parallel  int
	workers   int // for the key packages of one device
	start     time.Time

	mu      sync.Mutex
	results []*Provisioned // by line; those before next were given to Each
	next    int
	result  ProvisionResult
	refused error // of Each, which is not called again
}

// prepare does, once for all devices, what each act that makes key packages does first.
func (p *provisioner) prepare(ctx context.Context, o *Operator) (err error) {
	if p.request.Folder != "" {
		if p.out, err = directory.OpenSpool(p.request.Folder); err != nil {
			return err
		}
	}
	t, err := o.Token(ctx)
	if err != nil {
		return err
	}
	if err := o.tidy(ctx); err != nil {
		return err
	}
	if err := o.RotateWhenDue(ctx); err != nil {
		return err
	}
	for i := range p.request.Lines {
		if p.request.Lines[i].Credential == manifest.X509 && o.settings.X509.Roots == "" {
			o.warnf("the config names no x509.roots: the ends of the chains are not checked")
			break
		}
	}
	if p.parallel = p.request.Parallel; p.parallel <= 0 {
		p.parallel = waiting * t.Sessions()
	}
	p.parallel = min(p.parallel, len(p.request.Lines))
	p.workers = max(Workers(t, o.processors)/max(p.parallel, 1), 1)
	p.inventory, err = o.Inventory(ctx)
	p.start = o.now()
	return err
}

// run processes all lines, several at once, until one fails with an error that would occur for the
// others too.
func (p *provisioner) run(ctx context.Context) error {
	g, running := errgroup.WithContext(ctx)
	next := make(chan int)
	g.Go(func() error {
		defer close(next)
		for i := range p.request.Lines {
			select {
			case next <- i:
			case <-running.Done():
				return nil
			}
		}
		return nil
	})
	for range p.parallel {
		g.Go(func() error {
			for i := range next {
				result, err := p.provision(running, &p.request.Lines[i])
				if err != nil && (running.Err() != nil || isCommon(err)) {
					return err
				}
				if err := p.give(i, result); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// errFolder reports an output folder that cannot be written to.
var errFolder = errors.New("write to output folder")

// isCommon reports whether an error of one device would occur for others too: an error of the
// token itself, of the store or of the folder.
func isCommon(err error) bool {
	var call *token.Error
	return isAny(err, token.ErrModule, token.ErrNoToken, token.ErrPIN, token.ErrPINAtRisk, token.ErrClosed, token.ErrStuck, token.ErrKeyChanged,
		store.ErrBusy, store.ErrFull, store.ErrReadOnly, store.ErrDamaged, store.ErrAway, store.ErrLogin, store.ErrNoDatabase, errFolder) ||
		errors.As(err, &call) && !isAny(err, token.CKR_MECHANISM_INVALID, vault.ErrSealed, vault.ErrStamp, vault.ErrMixedUp)
}

// give passes results to Each, in the order of the lines, up to the first that is missing.
func (p *provisioner) give(i int, r *Provisioned) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results[i] = r
	for p.refused == nil && p.next < len(p.results) && p.results[p.next] != nil {
		ready := p.results[p.next]
		p.results[p.next] = nil
		p.next++
		p.result.count(ready)
		if p.request.Each != nil {
			p.refused = p.request.Each(ready)
		}
	}
	if p.refused != nil {
		return p.refused
	}
	p.outer.Progress(Progress{Done: uint64(p.next), Of: uint64(len(p.results)), Noun: "device", Since: p.start})
	return nil
}

// count counts the result of a device.
func (r *ProvisionResult) count(d *Provisioned) {
	switch d.Status {
	case DeviceReady:
		r.Ready++
	case DeviceAwaiting:
		r.Awaiting++
	case DeviceFailed:
		r.Failed++
	}
	r.Made += d.Made
	r.Waiting += d.Waiting
}
