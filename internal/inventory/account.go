package inventory

import (
	"context"
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/vault"
)

// kindAccount is the kind of a sealed token of a directory.
const kindAccount = "directory token"

// accountRecord returns what the token of an account is bound to:
//
//	opaque directory<V>
//	opaque client<V>
func accountRecord(a *store.Account) []byte {
	return wire.AppendVector(wire.AppendVector(nil, []byte(a.Directory)), a.Client)
}

// KeepAccount seals the token of an account under the current wrapping key and stores it. It
// replaces the previous token.
func (inv *Inventory) KeepAccount(ctx context.Context, a store.Account, token []byte) error {
	key, err := inv.currentKey(ctx, store.Seal)
	if err != nil {
		return err
	}
	v, err := inv.vault(ctx, key.ID)
	if err != nil {
		return err
	}
	if a.Sealed, err = v.SealSecret(ctx, inv.rand, kindAccount, accountRecord(&a), token); err != nil {
		return err
	}
	a.WrappingKeyID = key.ID
	return inv.store.SetAccount(ctx, a)
}

// AccountToken returns the token by which a directory knows a client; the caller must clear it. The
// error is store.ErrNotFound if there is none or its wrapping key is destroyed, or wraps
// vault.ErrSealed.
func (inv *Inventory) AccountToken(ctx context.Context, directory string, client []byte) ([]byte, error) {
	a, err := inv.store.Account(ctx, directory, client)
	if err != nil {
		return nil, err
	}
	return inv.accountToken(ctx, &a)
}

func (inv *Inventory) accountToken(ctx context.Context, a *store.Account) ([]byte, error) {
	v, err := inv.vault(ctx, a.WrappingKeyID)
	if errors.Is(err, store.ErrWrappingKey) {
		return nil, fmt.Errorf("account in directory %q: %w: %w", a.Directory, store.ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	return v.OpenSecret(ctx, kindAccount, accountRecord(a), a.Sealed)
}

// resealAccounts seals the tokens that are under a wrapping key with the current one. It leaves
// tokens that cannot be opened: under another key they would be of no use either.
func (inv *Inventory) resealAccounts(ctx context.Context, from vault.KeyID) error {
	accounts, err := inv.store.Accounts(ctx, from)
	if err != nil {
		return err
	}
	for _, a := range accounts {
		token, err := inv.accountToken(ctx, &a)
		if errors.Is(err, vault.ErrSealed) {
			continue
		}
		if err == nil {
			err = inv.KeepAccount(ctx, a, token)
		}
		clear(token)
		if err != nil {
			return fmt.Errorf("reseal the token of directory %q: %w", a.Directory, err)
		}
	}
	return nil
}
