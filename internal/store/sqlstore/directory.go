package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Lease implements store.Store.
func (a *Acts) Lease(ctx context.Context, name, holder string, until, now time.Time) error {
	return a.db.Concurrent(ctx, func(ctx context.Context, tx Tx) error {
		n, err := tx.Change(ctx, `INSERT INTO leases (name, holder, until) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
				WHERE leases.holder = excluded.holder OR leases.until <= $4`, name, holder, Seconds(until), Seconds(now))
		if err == nil && n == 0 {
			err = fmt.Errorf("%s: %w", name, store.ErrHeld)
		}
		return err
	})
}

// Unlease implements store.Store.
func (a *Acts) Unlease(ctx context.Context, name, holder string) error {
	return a.db.Concurrent(ctx, func(ctx context.Context, tx Tx) error {
		_, err := tx.Change(ctx, "DELETE FROM leases WHERE name = $1 AND holder = $2", name, holder)
		return err
	})
}

const selectAccount = `SELECT i.name, a.directory, a.client, a.wrapping_key, a.sealed, a.created_at
	FROM accounts a JOIN identities i ON i.id = a.identity`

func scanAccount(row Scanner) (a store.Account, err error) {
	var created int64
	err = row.Scan(&a.Identity, &a.Directory, &a.Client, &a.WrappingKeyID, &a.Sealed, &created)
	a.CreatedAt = Date(created)
	return a, err
}

// Account implements store.Store.
func (a *Acts) Account(ctx context.Context, directory string, client []byte) (store.Account, error) {
	account, err := ReadOne(ctx, a.db, scanAccount, selectAccount+" WHERE a.directory = $1 AND a.client = $2", directory, Blob(client))
	if err != nil {
		err = fmt.Errorf("account in directory %q: %w", directory, err)
	}
	return account, err
}

// Accounts implements store.Store.
func (a *Acts) Accounts(ctx context.Context, wrappingKeyID []byte) ([]store.Account, error) {
	return ReadAll(ctx, a.db, scanAccount, selectAccount+" WHERE a.wrapping_key = $1 ORDER BY a.id", Blob(wrappingKeyID))
}

// SetAccount implements store.Store.
func (a *Acts) SetAccount(ctx context.Context, account store.Account) error {
	return a.db.Concurrent(ctx, func(ctx context.Context, tx Tx) error {
		identity, err := One(ctx, tx, Value[int64], "SELECT id FROM identities WHERE name = $1", account.Identity)
		if errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("identity %q: %w", account.Identity, store.ErrNotFound)
		}
		if err == nil {
			err = stampable(ctx, tx, account.WrappingKeyID)
		}
		if err == nil {
			_, err = tx.Change(ctx, `INSERT INTO accounts (identity, directory, client, wrapping_key, sealed, created_at) VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (directory, client) DO UPDATE SET wrapping_key = excluded.wrapping_key, sealed = excluded.sealed`,
				identity, account.Directory, Blob(account.Client), Blob(account.WrappingKeyID), Blob(account.Sealed), Seconds(account.CreatedAt))
		}
		return err
	})
}
