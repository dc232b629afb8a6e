package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

const selectWrappingKey = `SELECT key_id, purpose, label, token_serial, stamp, current, uses, created_at, superseded_at, destroyed_at, condemned FROM wrapping_keys`

func scanWrappingKey(row scanner) (store.WrappingKey, error) {
	var k store.WrappingKey
	var created int64
	var superseded, destroyed sql.NullInt64
	err := row.Scan(&k.ID, &k.Purpose, &k.Label, &k.TokenSerial, &k.Stamp, &k.Current, &k.Uses, &created, &superseded, &destroyed, &k.Condemned)
	k.CreatedAt, k.SupersededAt, k.DestroyedAt = date(created), optionalDate(superseded), optionalDate(destroyed)
	return k, translate(err)
}

// AddWrappingKey implements store.Store.
func (s *Store) AddWrappingKey(ctx context.Context, k store.WrappingKey) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		if err := tx.succeeds(ctx, k.ID); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO wrapping_keys (key_id, purpose, label, token_serial, stamp, current, created_at) VALUES (?, ?, ?, ?, ?, 0, ?)",
			blob(k.ID), string(k.Purpose), k.Label, k.TokenSerial, blob(k.Stamp), seconds(k.CreatedAt))
		if err != nil {
			return err
		}
		if err := tx.made(ctx, k.ID); err != nil {
			return err
		}
		if err := tx.record(ctx, 0, audit.Entry{Time: k.CreatedAt, Act: audit.Created, KeyID: k.ID, Detail: "wrapping key, to " + string(k.Purpose)}); err != nil {
			return err
		}
		if !k.Current {
			return nil
		}
		return makeCurrent(ctx, tx, &k, k.CreatedAt)
	})
}

// makeCurrent makes a wrapping key the current one of its purpose. The first one of
// all takes no other's place.
func makeCurrent(ctx context.Context, tx *transaction, k *store.WrappingKey, at time.Time) error {
	before, err := count(tx.ExecContext(ctx, "UPDATE wrapping_keys SET current = 0, superseded_at = ? WHERE current = 1 AND purpose = ?", seconds(at), string(k.Purpose)))
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "UPDATE wrapping_keys SET current = 1, superseded_at = NULL WHERE key_id = ?", blob(k.ID)); err != nil || before == 0 {
		return err
	}
	return tx.record(ctx, 0, audit.Entry{Time: at, Act: audit.Rotated, KeyID: k.ID, Detail: "wrapping key, to " + string(k.Purpose)})
}

// RotateWrappingKey implements store.Store.
func (s *Store) RotateWrappingKey(ctx context.Context, id []byte, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		k, err := wrappingKey(ctx, tx, id)
		switch {
		case err != nil:
			return err
		case k.Condemned:
			return fmt.Errorf("wrapping key %x: %w", id, store.ErrWrappingKey)
		case k.Current:
			return nil
		}
		return makeCurrent(ctx, tx, &k, at)
	})
}

func wrappingKey(ctx context.Context, tx *transaction, id []byte) (store.WrappingKey, error) {
	k, err := scanWrappingKey(tx.QueryRowContext(ctx, selectWrappingKey+" WHERE key_id = ?", blob(id)))
	if err != nil {
		return k, fmt.Errorf("wrapping key %x: %w", id, err)
	}
	return k, nil
}

// WrappingKeys implements store.Store.
func (s *Store) WrappingKeys(ctx context.Context) ([]store.WrappingKey, error) {
	return query(ctx, s.db, scanWrappingKey, selectWrappingKey+" ORDER BY id")
}

// CurrentWrappingKey implements store.Store.
func (s *Store) CurrentWrappingKey(ctx context.Context, p store.Purpose) (store.WrappingKey, error) {
	return scanWrappingKey(s.db.QueryRowContext(ctx, selectWrappingKey+" WHERE current = 1 AND purpose = ?", string(p)))
}

// under is the condition of key packages that have private keys. The index
// key_packages_under has the same one.
const under = "(sealed <> x'' OR leaf <> x'')"

const countDependents = `SELECT
	(SELECT count(*) FROM key_packages WHERE ` + under + ` AND wrapping_key = (SELECT id FROM wrapping_keys WHERE key_id = @key AND NOT condemned)),
	(SELECT count(*) FROM identities WHERE stamp_key = @key) + (SELECT count(*) FROM identity_versions WHERE stamp_key = @key)`

// Dependents implements store.Store.
func (s *Store) Dependents(ctx context.Context, id []byte) (d store.Dependents, err error) {
	err = s.db.QueryRowContext(ctx, countDependents, sql.Named("key", blob(id))).Scan(&d.KeyPackages, &d.Identities)
	return d, translate(err)
}

// Rewrap implements store.Store.
func (s *Store) Rewrap(ctx context.Context, batch []store.Rewrapped, at time.Time) (moved uint64, err error) {
	err = s.write(ctx, func(ctx context.Context, tx *transaction) error {
		moved = 0
		for i := range batch {
			done, err := rewrap(ctx, tx, &batch[i], at)
			if err != nil {
				return err
			}
			if done {
				moved++
			}
		}
		return nil
	})
	if err != nil {
		return 0, err // what was done is undone
	}
	return moved, nil
}

func rewrap(ctx context.Context, tx *transaction, r *store.Rewrapped, at time.Time) (bool, error) {
	to, err := wrappingKey(ctx, tx, r.WrappingKeyID)
	if err == nil && to.Condemned {
		err = store.ErrWrappingKey
	}
	if err != nil {
		return false, err
	}
	was, err := tx.keyPackage(ctx, r.Ref, at)
	if err != nil {
		return false, err
	}
	if !was.As(r) {
		return false, nil
	}
	_, err = tx.ExecContext(ctx, "UPDATE key_packages SET sealed = ?, leaf = ?, wrapping_key = (SELECT id FROM wrapping_keys WHERE key_id = ?) WHERE id = ?",
		blob(r.Sealed), blob(r.Leaf), blob(r.WrappingKeyID), was.ID)
	if err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, "UPDATE wrapping_keys SET uses = uses + 1 WHERE key_id = ?", blob(r.WrappingKeyID)); err != nil {
		return false, err
	}
	was.WrappingKeyID = r.WrappingKeyID
	return true, tx.record(ctx, was.ID, record.EntryOf(&was.KeyPackage, audit.Rewrapped, at))
}

// CondemnWrappingKey implements store.Store.
func (s *Store) CondemnWrappingKey(ctx context.Context, i store.Intent, shred bool) (erasing store.Backlog, err error) {
	err = s.write(ctx, func(ctx context.Context, tx *transaction) error {
		k, err := wrappingKey(ctx, tx, i.KeyID)
		switch {
		case err != nil:
			return err
		case k.Condemned:
			erasing, err = tx.unfinished(ctx, "b.wrapping_key = (SELECT id FROM wrapping_keys WHERE key_id = ?)", blob(i.KeyID))
			if err == nil && erasing.ID == 0 && !k.DestroyedAt.IsZero() {
				err = fmt.Errorf("wrapping key %x: %w", i.KeyID, store.ErrWrappingKey)
			}
			if err != nil || !k.DestroyedAt.IsZero() {
				return err
			}
			if err = tx.intend(ctx, i); errors.Is(err, store.ErrExists) {
				err = nil // begun before
			}
			return err
		case k.Current:
			return fmt.Errorf("wrapping key %x: %w: it is the current one to %s", i.KeyID, store.ErrState, k.Purpose)
		}
		erasing, err = condemn(ctx, tx, &k, shred, i.CreatedAt)
		if err != nil {
			return err
		}
		return tx.intend(ctx, i)
	})
	return erasing, err
}

// condemn condemns a wrapping key that nothing depends on, or with shred, what is under it
// too.
func condemn(ctx context.Context, tx *transaction, k *store.WrappingKey, shred bool, at time.Time) (erasing store.Backlog, err error) {
	var d store.Dependents
	if err := tx.QueryRowContext(ctx, countDependents, sql.Named("key", blob(k.ID))).Scan(&d.KeyPackages, &d.Identities); err != nil {
		return erasing, err
	}
	if d.Identities > 0 || d.KeyPackages > 0 && !shred {
		return erasing, fmt.Errorf("wrapping key %x: %w: %s", k.ID, store.ErrInUse, record.Dependents(d))
	}
	var unfinished uint64
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM intents WHERE substr(stamp, 6, 16) = @key AND key_id <> @key", sql.Named("key", blob(k.ID))).Scan(&unfinished); err != nil {
		return erasing, err
	}
	if unfinished > 0 {
		return erasing, fmt.Errorf("wrapping key %x: %w: %d unfinished acts have its stamp, which a sweep ends", k.ID, store.ErrInUse, unfinished)
	}
	if _, err := tx.ExecContext(ctx, "UPDATE wrapping_keys SET condemned = 1 WHERE key_id = ?", blob(k.ID)); err != nil || d.KeyPackages == 0 {
		return erasing, err
	}
	err = tx.record(ctx, 0, audit.Entry{Time: at, Act: audit.Condemned, KeyID: k.ID, Detail: "wrapping key, to " + string(k.Purpose)})
	if err != nil {
		return erasing, err
	}
	return beginErasing(ctx, tx, k.ID, at)
}

// query returns all rows of a query.
func query[T any](ctx context.Context, db *sql.DB, scan func(scanner) (T, error), text string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, text, args...)
	return collect(rows, err, scan)
}

// queryTx is query within a transaction.
func queryTx[T any](ctx context.Context, tx *transaction, scan func(scanner) (T, error), text string, args ...any) ([]T, error) {
	rows, err := tx.QueryContext(ctx, text, args...)
	return collect(rows, err, scan)
}

func collect[T any](rows *sql.Rows, err error, scan func(scanner) (T, error)) ([]T, error) {
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
