package sqlite

import (
	"context"
	"database/sql"

	"github.com/hsm-kp/hsm-kp/store"
)

const wrappingKeyColumns = "key_id, label, token_serial, stamp, current, uses, created_at"

func scanWrappingKey(row scanner) (store.WrappingKey, error) {
	var k store.WrappingKey
	var created int64
	err := row.Scan(&k.ID, &k.Label, &k.TokenSerial, &k.Stamp, &k.Current, &k.Uses, &created)
	k.CreatedAt = date(created)
	return k, translate(err)
}

// AddWrappingKey implements store.Store.
func (s *Store) AddWrappingKey(ctx context.Context, k store.WrappingKey) error {
	return s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE wrapping_keys SET current = 0 WHERE current = 1"); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO wrapping_keys (key_id, label, token_serial, stamp, current, created_at) VALUES (?, ?, ?, ?, 1, ?)",
			blob(k.ID), k.Label, k.TokenSerial, blob(k.Stamp), seconds(k.CreatedAt))
		return err
	})
}

// WrappingKeys implements store.Store.
func (s *Store) WrappingKeys(ctx context.Context) ([]store.WrappingKey, error) {
	return query(ctx, s.db, scanWrappingKey, "SELECT "+wrappingKeyColumns+" FROM wrapping_keys ORDER BY id")
}

// CurrentWrappingKey implements store.Store.
func (s *Store) CurrentWrappingKey(ctx context.Context) (store.WrappingKey, error) {
	return scanWrappingKey(s.db.QueryRowContext(ctx, "SELECT "+wrappingKeyColumns+" FROM wrapping_keys WHERE current = 1"))
}

// query returns all rows of a query.
func query[T any](ctx context.Context, db *sql.DB, scan func(scanner) (T, error), text string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, translate(err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, translate(rows.Err())
}
