package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

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
	return k, err
}

// AddWrappingKey implements store.Store.
func (s *Store) AddWrappingKey(ctx context.Context, k store.WrappingKey) error {
	return s.write(ctx, alone, func(ctx context.Context, tx *transaction) error {
		if err := tx.succeeds(ctx, k.ID); err != nil {
			return err
		}
		_, err := tx.change(ctx, "INSERT INTO wrapping_keys (key_id, purpose, label, token_serial, stamp, current, created_at) VALUES ($1, $2, $3, $4, $5, false, $6)",
			blob(k.ID), string(k.Purpose), k.Label, k.TokenSerial, blob(k.Stamp), seconds(k.CreatedAt))
		if err != nil {
			return err
		}
		if err := tx.made(ctx, k.ID); err != nil {
			return err
		}
		if err := tx.record(0, audit.Entry{Time: k.CreatedAt, Act: audit.Created, KeyID: k.ID, Detail: "wrapping key, to " + string(k.Purpose)}); err != nil {
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
	before, err := tx.change(ctx, "UPDATE wrapping_keys SET current = false, superseded_at = $1 WHERE current AND purpose = $2", seconds(at), string(k.Purpose))
	if err != nil {
		return err
	}
	if _, err := tx.change(ctx, "UPDATE wrapping_keys SET current = true, superseded_at = NULL WHERE key_id = $1", blob(k.ID)); err != nil || before == 0 {
		return err
	}
	return tx.record(0, audit.Entry{Time: at, Act: audit.Rotated, KeyID: k.ID, Detail: "wrapping key, to " + string(k.Purpose)})
}

// RotateWrappingKey implements store.Store.
func (s *Store) RotateWrappingKey(ctx context.Context, id []byte, at time.Time) error {
	return s.write(ctx, alone, func(ctx context.Context, tx *transaction) error {
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
	k, err := queryOne(ctx, tx, scanWrappingKey, selectWrappingKey+" WHERE key_id = $1", blob(id))
	if err != nil {
		return k, fmt.Errorf("wrapping key %x: %w", id, err)
	}
	return k, nil
}

// WrappingKeys implements store.Store.
func (s *Store) WrappingKeys(ctx context.Context) ([]store.WrappingKey, error) {
	return readAll(ctx, s, scanWrappingKey, selectWrappingKey+" ORDER BY id")
}

// CurrentWrappingKey implements store.Store.
func (s *Store) CurrentWrappingKey(ctx context.Context, p store.Purpose) (store.WrappingKey, error) {
	return readOne(ctx, s, scanWrappingKey, selectWrappingKey+" WHERE current AND purpose = $1", string(p))
}

// under is the condition of key packages that have private keys. The index
// contents_under has the same one.
const under = "(sealed <> '' OR leaf <> '')"

const countDependents = `SELECT
	(SELECT count(*) FROM contents WHERE ` + under + ` AND wrapping_key = (SELECT id FROM wrapping_keys WHERE key_id = @key AND NOT condemned)),
	(SELECT count(*) FROM identities WHERE stamp_key = @key) + (SELECT count(*) FROM identity_versions WHERE stamp_key = @key)`

func scanDependents(s scanner) (d store.Dependents, err error) {
	err = s.Scan(&d.KeyPackages, &d.Identities)
	return d, err
}

// Dependents implements store.Store.
func (s *Store) Dependents(ctx context.Context, id []byte) (store.Dependents, error) {
	return readOne(ctx, s, scanDependents, countDependents, pgx.NamedArgs{"key": blob(id)})
}

// Rewrap implements store.Store.
func (s *Store) Rewrap(ctx context.Context, batch []store.Rewrapped, at time.Time) (moved uint64, err error) {
	refs := make([][]byte, len(batch))
	for i := range batch {
		refs[i] = batch[i].Ref
	}
	err = s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		moved = 0
		rows, err := tx.keyPackages(ctx, refs, at)
		for i := range batch {
			done := false
			if err == nil {
				done, err = tx.rewrap(ctx, rows[i], &batch[i], at)
			}
			if done {
				moved++
			}
		}
		return err
	})
	if err != nil {
		return 0, err // what was done is undone
	}
	return moved, nil
}

func (tx *transaction) rewrap(ctx context.Context, was *row, r *store.Rewrapped, at time.Time) (bool, error) {
	to, err := tx.usable(ctx, r.WrappingKeyID)
	if err != nil || !was.As(r) {
		return false, err
	}
	tx.later("UPDATE contents SET sealed = $1, leaf = $2, wrapping_key = $3 WHERE id = $4", blob(r.Sealed), blob(r.Leaf), to, was.ID)
	tx.uses[to]++
	was.Sealed, was.Leaf, was.WrappingKeyID = r.Sealed, r.Leaf, r.WrappingKeyID
	return true, tx.record(was.ID, record.EntryOf(&was.KeyPackage, audit.Rewrapped, at))
}

// usable returns the row of a wrapping key that private keys may be put under. The error is
// store.ErrNotFound, or store.ErrWrappingKey where it is condemned.
func (tx *transaction) usable(ctx context.Context, id []byte) (int64, error) {
	if row := tx.wrappingKeys[string(id)]; row != 0 {
		return row, nil
	}
	type found struct {
		row       int64
		condemned bool
	}
	scan := func(s scanner) (f found, err error) { err = s.Scan(&f.row, &f.condemned); return f, err }
	f, err := queryOne(ctx, tx, scan, "SELECT id, condemned FROM wrapping_keys WHERE key_id = $1", blob(id))
	if err == nil && f.condemned {
		err = store.ErrWrappingKey
	}
	if err != nil {
		return 0, fmt.Errorf("wrapping key %x: %w", id, err)
	}
	tx.wrappingKeys[string(id)] = f.row
	return f.row, nil
}

// CondemnWrappingKey implements store.Store.
func (s *Store) CondemnWrappingKey(ctx context.Context, i store.Intent, shred bool) (erasing store.Backlog, err error) {
	err = s.write(ctx, alone, func(ctx context.Context, tx *transaction) error {
		k, err := wrappingKey(ctx, tx, i.KeyID)
		switch {
		case err != nil:
			return err
		case k.Condemned:
			erasing, err = tx.unfinished(ctx, "b.wrapping_key = (SELECT id FROM wrapping_keys WHERE key_id = $1)", blob(i.KeyID))
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
	d, err := queryOne(ctx, tx, scanDependents, countDependents, pgx.NamedArgs{"key": blob(k.ID)})
	if err != nil {
		return erasing, err
	}
	if d.Identities > 0 || d.KeyPackages > 0 && !shred {
		return erasing, fmt.Errorf("wrapping key %x: %w: %s", k.ID, store.ErrInUse, record.Dependents(d))
	}
	var unfinished uint64
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM intents WHERE substring(stamp FROM 6 FOR 16) = @key AND key_id <> @key", pgx.NamedArgs{"key": blob(k.ID)}).Scan(&unfinished); err != nil {
		return erasing, err
	}
	if unfinished > 0 {
		return erasing, fmt.Errorf("wrapping key %x: %w: %d unfinished acts have its stamp, which a sweep ends", k.ID, store.ErrInUse, unfinished)
	}
	if _, err := tx.change(ctx, "UPDATE wrapping_keys SET condemned = true WHERE key_id = $1", blob(k.ID)); err != nil || d.KeyPackages == 0 {
		return erasing, err
	}
	err = tx.record(0, audit.Entry{Time: at, Act: audit.Condemned, KeyID: k.ID, Detail: "wrapping key, to " + string(k.Purpose)})
	if err != nil {
		return erasing, err
	}
	return beginErasing(ctx, tx, k.ID, at)
}
