package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// env is what a command works with: the config, the store, and the token once
// a command asks for it. Commands that only read the store never touch the
// token.
type env struct {
	ui         *ui
	config     *config.Config
	configPath string
	place      place
	forceLogin bool
	store      store.Store
	token      *token.Token
	opened     *opened
	// tokenChange is made to the config of the token before it is opened; nil: none is.
	tokenChange func(*token.Config)
}

// openEnv reads the config that the command line names and opens its store.
func openEnv(c *cli.Context, u *ui) (*env, error) {
	path, named := configPath(c)
	cfg, err := loadConfig(path)
	if configMissing(err) && !named && c.String("store") != "" {
		cfg, err = config.Default(), nil // an auditor has the store, and nothing else
	}
	if err != nil {
		return nil, err
	}
	e, err := openEnvWith(c.Context, u, cfg, path, c.String("store"))
	if err == nil {
		e.forceLogin = c.Bool(forceLogin)
	}
	return e, err
}

// with makes a command's action of f: it wants the arguments that are named, opens the
// store that the config names, and closes what was opened.
func with(u *ui, f func(*cli.Context, *env) error, arguments ...string) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := wantArgs(c, arguments...); err != nil {
			return err
		}
		e, err := openEnv(c, u)
		if err != nil {
			return err
		}
		defer e.close()
		return f(c, e)
	}
}

// openEnvWith opens the store that url names, or the config's where it is
// empty. The store must be there: init makes it.
func openEnvWith(ctx context.Context, u *ui, cfg *config.Config, configPath, url string) (*env, error) {
	e := &env{ui: u, config: cfg, configPath: configPath, opened: &opened{}}
	var err error
	if e.place, err = placeOf(cfg, url); err != nil {
		return nil, err
	}
	if e.store, err = e.place.open(ctx, false); err != nil {
		return nil, err
	}
	return e, nil
}

// close ends what was opened. Errors of closing are shown, not returned: what
// was to be kept is in the store by then.
func (e *env) close() {
	if e.token != nil {
		if err := e.token.Close(); err != nil {
			e.ui.warnf("close token: %v", err)
		}
	}
	if e.store != nil {
		if err := e.store.Close(); err != nil {
			e.ui.warnf("close store: %v", err)
		}
	}
}

// openToken logs in to the configured token, once a command.
func (e *env) openToken(ctx context.Context) (*token.Token, error) {
	if e.token != nil {
		return e.token, nil
	}
	t, err := openToken(ctx, e.ui, e.config, e.place.beside(e.configPath), e.forceLogin, e.tokenChange)
	if err != nil {
		return nil, err
	}
	e.token = t
	return t, nil
}

// inventory opens the token and returns the inventory over both, one a command.
func (e *env) inventory(ctx context.Context) (*inventory.Inventory, error) {
	t, err := e.openToken(ctx)
	if err != nil {
		return nil, err
	}
	e.opened.mu.Lock()
	defer e.opened.mu.Unlock()
	if e.opened.inventory == nil {
		e.opened.inventory = inventoryOver(e.config, e.store, t)
	}
	return e.opened.inventory, nil
}

func inventoryOver(cfg *config.Config, s store.Store, t *token.Token) *inventory.Inventory {
	return inventory.New(inventory.Config{
		Store:   s,
		Ring:    ring{t},
		Rand:    rand.Reader,
		Workers: workers(t),
		Batch:   cfg.Store.Batch,
	})
}

// records is an inventory for what needs no token.
func (e *env) records() *inventory.Inventory { return inventory.New(inventory.Config{Store: e.store}) }

// identityRecord loads an identity, or says that there is none.
func (e *env) identityRecord(ctx context.Context, name string) (store.Identity, error) {
	record, err := e.store.Identity(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return record, fmt.Errorf("identity %q: %w", name, errNoIdentity)
	}
	return record, err
}

// errNoIdentity reports a name that no identity has.
var errNoIdentity = errors.New("there is no such identity")

// openRecord finds the key of an identity's record in the token by CKA_ID. A record
// that was changed, or a key that was swapped, is refused.
func (e *env) openRecord(ctx context.Context, record *store.Identity) (*identity.Identity, error) {
	suite, ok := ciphersuite.Lookup(ciphersuite.ID(record.Suite))
	if !ok {
		return nil, fmt.Errorf("identity %q: cipher suite %v: %w", record.Name, ciphersuite.ID(record.Suite), inventory.ErrSuiteUnknown)
	}
	credential, err := keypackage.ParseCredential(record.Credential)
	if err != nil {
		return nil, fmt.Errorf("read stored credential of %q: %w", record.Name, err)
	}
	inv, err := e.inventory(ctx)
	if err != nil {
		return nil, err
	}
	err = inv.CheckIdentity(ctx, record)
	if errors.Is(err, vault.ErrStamp) {
		err = inv.RefuseKey(ctx, record.Name, record.KeyID, time.Now(), "sign", err)
	}
	if errors.Is(err, vault.ErrStamp) && suite.Experimental {
		err = fmt.Errorf("%w, or cipher suite 0x%04X was described otherwise in the config when the identity was made", err, record.Suite)
	}
	if err != nil {
		return nil, err
	}
	key, err := e.opened.signatureKey(ctx, e.token, record.KeyID, record.WeakKey)
	if err != nil {
		return nil, fmt.Errorf("find signature key of %q: %w", record.Name, err)
	}
	id, err := identity.New(record.Name, suite, credential, record.SignatureKey, key)
	if err != nil {
		return nil, inv.RefuseKey(ctx, record.Name, record.KeyID, time.Now(), "sign", err)
	}
	return id, nil
}

// suite returns the suite that the command line names, or the config's.
func (e *env) suite(name string) (*ciphersuite.Suite, error) {
	if name == "" {
		name = e.config.KeyPackages.Suite
	}
	s, err := ciphersuite.Parse(name)
	if err != nil && e.switchedOff(name) {
		return nil, usagef("cipher suite %s is experimental, and experimental.enabled is not true in the config", name)
	}
	if err != nil {
		return nil, usagef("%v; it has\n%s", err, suiteList())
	}
	return s, nil
}

// switchedOff reports whether name is that of a suite which the config describes and
// has not enabled.
func (e *env) switchedOff(name string) bool {
	return !e.config.Experimental.Enabled && slices.ContainsFunc(e.config.Experimental.Suites, func(s config.Suite) bool {
		number, err := parseCodePoint(name)
		return strings.EqualFold(s.Name, name) || err == nil && number == s.Number
	})
}

// suiteList names the suites, a line each.
func suiteList() string {
	var lines []string
	for _, s := range ciphersuite.All() {
		lines = append(lines, fmt.Sprintf("%d  %s", uint16(s.ID), s.Name))
	}
	return strings.Join(lines, "\n")
}
