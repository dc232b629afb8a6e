package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// directories are the clients of the config's directories. Runs at once have them in common,
// so that a rate is the directory's, whoever publishes there.
type directories struct {
	*env
	mu       sync.Mutex
	sealer   *inventory.Inventory           // of the tokens of delivery services; nil until one is wanted
	clients  map[string]directory.Publisher // that serve all identities, by directory
	services map[string]*directory.OpenMLS
}

func newDirectories(e *env) *directories {
	return &directories{env: e, clients: make(map[string]directory.Publisher), services: make(map[string]*directory.OpenMLS)}
}

// client returns the client of a directory for an identity.
func (d *directories) client(ctx context.Context, record *store.Identity, dir config.Directory) (directory.Publisher, error) {
	if dir.Type == config.OpenMLS {
		service, err := d.service(&dir)
		if err != nil {
			return nil, err
		}
		return d.member(ctx, service, record, dir.Name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.clients[dir.Name]; ok {
		return c, nil
	}
	var c directory.Publisher
	var err error
	if dir.Type == config.Spool {
		c, err = directory.OpenSpool(dir.Path)
	} else {
		c, err = directory.NewHTTP(directoryOptions(&dir))
	}
	if err == nil {
		d.clients[dir.Name] = c
	}
	return c, err
}

// service returns the client of a delivery service, which all identities have in common.
func (d *directories) service(dir *config.Directory) (*directory.OpenMLS, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.services[dir.Name]; ok {
		return s, nil
	}
	s, err := directory.NewOpenMLS(directoryOptions(dir))
	if err == nil {
		d.services[dir.Name] = s
	}
	return s, err
}

// member returns the Publisher for an identity in a delivery service. Its token is under the
// wrapping key, which takes the token.
func (d *directories) member(ctx context.Context, service *directory.OpenMLS, record *store.Identity, name string) (directory.Publisher, error) {
	id, err := clientID(record)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sealer == nil {
		if d.sealer, err = d.Inventory(ctx); err != nil {
			return nil, err
		}
	}
	return service.For(id, &account{d.sealer, store.Account{Identity: record.Name, Directory: name, Client: id}}), nil
}

// clientID returns what a delivery service knows an identity by: the content of its
// credential.
func clientID(record *store.Identity) ([]byte, error) {
	if _, err := keypackage.ParseCredential(record.Credential); err != nil {
		return nil, fmt.Errorf("read stored credential of %q: %w", record.Name, err)
	}
	r := wire.NewReader(record.Credential)
	r.Uint16() // credential_type
	return r.Vector(), r.Finish()
}

// account keeps the token of an identity in a delivery service in the store, sealed.
type account struct {
	inventory *inventory.Inventory
	record    store.Account
}

// Token implements directory.Account.
func (a *account) Token(ctx context.Context) ([]byte, error) {
	token, err := a.inventory.AccountToken(ctx, a.record.Directory, a.record.Client)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return token, err
}

// Keep implements directory.Account.
func (a *account) Keep(ctx context.Context, token []byte) error {
	record := a.record
	record.CreatedAt = time.Now().UTC()
	return a.inventory.KeepAccount(ctx, record, token)
}
