package sqlite

import (
	"context"
	"fmt"

	"github.com/hsm-kp/hsm-kp/store"
)

const identityColumns = "name, cipher_suite, credential, signature_key, key_id, key_label, token_serial, weak_key, stamp, created_at"

// scanner is a row or the rows of a query.
type scanner interface{ Scan(...any) error }

func scanIdentity(row scanner) (store.Identity, error) {
	var id store.Identity
	var created int64
	err := row.Scan(&id.Name, &id.Suite, &id.Credential, &id.SignatureKey, &id.KeyID, &id.KeyLabel, &id.TokenSerial, &id.WeakKey, &id.Stamp, &created)
	id.CreatedAt = date(created)
	return id, translate(err)
}

// AddIdentity implements store.Store.
func (s *Store) AddIdentity(ctx context.Context, id store.Identity) error {
	_, err := s.w.ExecContext(ctx, "INSERT INTO identities ("+identityColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		id.Name, id.Suite, blob(id.Credential), blob(id.SignatureKey), blob(id.KeyID), id.KeyLabel, id.TokenSerial, id.WeakKey, blob(id.Stamp), seconds(id.CreatedAt))
	return translate(err)
}

// Identity implements store.Store.
func (s *Store) Identity(ctx context.Context, name string) (store.Identity, error) {
	return scanIdentity(s.db.QueryRowContext(ctx, "SELECT "+identityColumns+" FROM identities WHERE name = ?", name))
}

// ChangeIdentity implements store.Store.
func (s *Store) ChangeIdentity(ctx context.Context, id store.Identity, was []byte) error {
	result, err := s.w.ExecContext(ctx, "UPDATE identities SET credential = ?, stamp = ? WHERE name = ? AND stamp = ?",
		blob(id.Credential), blob(id.Stamp), id.Name, blob(was))
	if err != nil {
		return translate(err)
	}
	if n, err := result.RowsAffected(); err != nil || n == 1 {
		return translate(err)
	}
	if _, err := s.Identity(ctx, id.Name); err != nil {
		return err
	}
	return fmt.Errorf("identity %q was changed meanwhile: %w", id.Name, store.ErrState)
}

// Identities implements store.Store.
func (s *Store) Identities(ctx context.Context) ([]store.Identity, error) {
	return query(ctx, s.db, scanIdentity, "SELECT "+identityColumns+" FROM identities ORDER BY name")
}
