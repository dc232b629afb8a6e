package operator

import (
	"context"
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// client returns the client of a directory for an identity.
func (o *Operator) client(ctx context.Context, record *store.Identity, dir config.Directory) (directory.Publisher, error) {
	if dir.Type != config.OpenMLS {
		return o.directories.Client(&dir)
	}
	service, err := o.directories.Service(&dir)
	if err != nil {
		return nil, err
	}
	return o.member(ctx, service, record, dir.Name)
}

// member returns the Publisher of an identity in a delivery service. Its token there is sealed
// under the wrapping key, so that this opens the PKCS#11 token.
func (o *Operator) member(ctx context.Context, service *directory.OpenMLS, record *store.Identity, name string) (directory.Publisher, error) {
	id, err := clientID(record)
	if err != nil {
		return nil, err
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	return service.For(id, &account{o, inv, store.Account{Identity: record.Name, Directory: name, Client: id}}), nil
}

// clientID returns the id of an identity in a delivery service: the content of its
// credential.
func clientID(record *store.Identity) ([]byte, error) {
	if _, err := keypackage.ParseCredential(record.Credential); err != nil {
		return nil, fmt.Errorf("read stored credential of %q: %w", record.Name, err)
	}
	r := wire.NewReader(record.Credential)
	r.Uint16() // credential_type
	return r.Vector(), r.Finish()
}

// account stores the token of an identity in a delivery service, sealed.
type account struct {
	operator  *Operator
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
	record.CreatedAt = a.operator.now().UTC()
	return a.inventory.KeepAccount(ctx, record, token)
}
