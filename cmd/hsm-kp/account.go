package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/directory"
	"github.com/hsm-kp/hsm-kp/inventory"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/wire"
)

// client returns the client of a directory for an identity.
func (p *publication) client(ctx context.Context, record *store.Identity, dir config.Directory) (directory.Publisher, error) {
	if dir.Type == config.OpenMLS {
		service, err := p.service(&dir)
		if err != nil {
			return nil, err
		}
		return p.member(ctx, service, record, dir.Name)
	}
	if c, ok := p.clients[dir.Name]; ok {
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
		p.clients[dir.Name] = c
	}
	return c, err
}

// service returns the client of a delivery service, which all identities have in common.
func (p *publication) service(dir *config.Directory) (*directory.OpenMLS, error) {
	if s, ok := p.services[dir.Name]; ok {
		return s, nil
	}
	s, err := directory.NewOpenMLS(directoryOptions(dir))
	if err == nil {
		p.services[dir.Name] = s
	}
	return s, err
}

// member returns the Publisher for an identity in a delivery service. Its token is under the
// wrapping key, which takes the token.
func (p *publication) member(ctx context.Context, service *directory.OpenMLS, record *store.Identity, name string) (directory.Publisher, error) {
	id, err := clientID(record)
	if err != nil {
		return nil, err
	}
	if p.sealer == nil {
		if p.sealer, err = p.inventory(ctx); err != nil {
			return nil, err
		}
	}
	return service.For(id, &account{p.sealer, store.Account{Identity: record.Name, Directory: name, Client: id}}), nil
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
