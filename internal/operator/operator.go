// Package operator holds the acts: what a person with authority does to identities,
// certificates, key packages, wrapping keys, audit keys and the store as a whole. The
// command line, the network service and scheduled work call the same acts.
//
// An act is a method that takes a context and a request, and returns a result. It prints
// nothing and knows no flag, no terminal and no exit status. What a person should read while
// it runs goes to a Report. The actor of the audit trail is in the context (store.WithActor).
//
// A request that cannot be carried out as it was made fails with a RequestError before
// anything is changed.
package operator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directories"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Config is what an Operator works with. All fields are required.
type Config struct {
	// Settings is the config file: policies, custody, schedules, directories.
	Settings *config.Config
	// Store keeps the records. The caller closes it. It may be nil for Diagnose alone.
	Store store.Store
	// OpenToken logs in to the token. It is called once, by the first act that needs the
	// token: acts that only read the store never touch it. The caller closes the token.
	OpenToken func(context.Context) (*token.Token, error)
	// Rand is the source of private keys, nonces and CKA_IDs. Several goroutines read it at once.
	Rand io.Reader
	// Now is the clock.
	Now func() time.Time
	// Processors is how many processors the process may use at once, 1 or more.
	Processors int
	// Scheduled says that the caller runs Sweep and RotateWhenDue at intervals. Otherwise acts that
	// make key packages call them first.
	Scheduled bool
	// Version is the program's, for the logs of directories.
	Version string
}

// Operator carries out acts. It is safe for concurrent use.
type Operator struct {
	*core
	report Report
}

// core is what all Operators over one store share, whatever their Reports.
type core struct {
	settings   *config.Config
	store      store.Store
	login      func(context.Context) (*token.Token, error)
	rand       io.Reader
	now        func() time.Time
	processors int
	scheduled  bool

	records     *inventory.Inventory // for acts that need no token
	directories *directories.Clients

	mu        sync.Mutex
	token     *token.Token         // nil until an act needs it
	inventory *inventory.Inventory // over the token
	keys      map[openedKey]*signer.Key
	signers   map[string]opened // by name
}

// New returns an Operator over c that reports to r.
func New(c Config, r Report) *Operator {
	records := inventory.New(inventory.Config{Store: c.Store, Batch: c.Settings.Store.Batch})
	return &Operator{&core{
		settings: c.Settings, store: c.Store, login: c.OpenToken, rand: c.Rand, now: c.Now, processors: c.Processors, scheduled: c.Scheduled,
		records: records, directories: directories.New(c.Version), signers: make(map[string]opened),
	}, r}
}

// Reporting returns an Operator that carries out the same acts, over the same store and token,
// and reports to r.
func (o *Operator) Reporting(r Report) *Operator { return &Operator{o.core, r} }

// Token returns the token, which it opens if no act has needed it yet.
func (o *Operator) Token(ctx context.Context) (*token.Token, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.openToken(ctx)
}

// openToken opens the token once. The caller holds mu.
func (c *core) openToken(ctx context.Context) (*token.Token, error) {
	if c.token != nil {
		return c.token, nil
	}
	t, err := c.login(ctx)
	if err == nil {
		c.token = t
	}
	return t, err
}

// Inventory returns the inventory over the store and the token, which it opens if no act has
// needed it yet.
func (o *Operator) Inventory(ctx context.Context) (*inventory.Inventory, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	t, err := o.openToken(ctx)
	if err != nil {
		return nil, err
	}
	if o.inventory == nil {
		o.inventory = o.inventoryOver(t)
	}
	return o.inventory, nil
}

func (c *core) inventoryOver(t *token.Token) *inventory.Inventory {
	return inventory.New(inventory.Config{
		Store:   c.store,
		Ring:    ring{t, c.rand},
		Rand:    c.rand,
		Workers: Workers(t, c.processors),
		Batch:   c.settings.Store.Batch,
	})
}

// Workers returns how many key packages are made at once: one for each session, so that the token
// never waits, and eight for each processor, so that software never waits for a session. With one for each
// processor, processors were idle for a tenth of the time (docs/BENCHMARKS.md).
func Workers(t *token.Token, processors int) int { return t.Sessions() + 8*processors }

// ErrNoIdentity reports a name that no identity has.
var ErrNoIdentity = errors.New("there is no such identity")

// record returns the record of an identity. The error is ErrNoIdentity if there is none.
func (o *Operator) record(ctx context.Context, name string) (store.Identity, error) {
	record, err := o.store.Identity(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return record, fmt.Errorf("identity %q: %w", name, ErrNoIdentity)
	}
	return record, err
}

// OpenIdentity finds the signature key of an identity's record in the token, by its CKA_ID. It
// refuses a record that was changed and a key that was swapped, and records the refusal.
func (o *Operator) OpenIdentity(ctx context.Context, record *store.Identity) (*identity.Identity, error) {
	suite, ok := ciphersuite.Lookup(ciphersuite.ID(record.Suite))
	if !ok {
		return nil, fmt.Errorf("identity %q: cipher suite %v: %w", record.Name, ciphersuite.ID(record.Suite), inventory.ErrSuiteUnknown)
	}
	credential, err := keypackage.ParseCredential(record.Credential)
	if err != nil {
		return nil, fmt.Errorf("read stored credential of %q: %w", record.Name, err)
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	err = inv.CheckIdentity(ctx, record)
	if errors.Is(err, vault.ErrStamp) {
		err = inv.RefuseKey(ctx, record.Name, record.KeyID, o.now(), "sign", err)
	}
	if errors.Is(err, vault.ErrStamp) && suite.Experimental {
		err = fmt.Errorf("%w, or cipher suite 0x%04X was described otherwise in the config when the identity was made", err, record.Suite)
	}
	if err != nil {
		return nil, err
	}
	key, err := o.signatureKey(ctx, record.KeyID, record.WeakKey)
	if err != nil {
		return nil, fmt.Errorf("find signature key of %q: %w", record.Name, err)
	}
	id, err := identity.New(record.Name, suite, credential, record.SignatureKey, key)
	if err != nil {
		return nil, inv.RefuseKey(ctx, record.Name, record.KeyID, o.now(), "sign", err)
	}
	return id, nil
}
