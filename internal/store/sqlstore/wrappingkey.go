package sqlstore

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

func scanWrappingKey(row Scanner) (k store.WrappingKey, err error) {
	var created int64
	var superseded, destroyed sql.NullInt64
	err = row.Scan(&k.ID, &k.Purpose, &k.Label, &k.TokenSerial, &k.Stamp, &k.Current, &k.Uses, &created, &superseded, &destroyed, &k.Condemned)
	k.CreatedAt, k.SupersededAt, k.DestroyedAt = Date(created), OptionalDate(superseded), OptionalDate(destroyed)
	return k, err
}

// AddWrappingKey implements store.Store.
func (a *Acts) AddWrappingKey(ctx context.Context, k store.WrappingKey) error {
	return a.db.Exclusive(ctx, func(ctx context.Context, tx Tx) error {
		if err := succeeds(ctx, tx, k.ID); err != nil {
			return err
		}
		_, err := tx.Change(ctx, "INSERT INTO wrapping_keys (key_id, purpose, label, token_serial, stamp, current, created_at) VALUES ($1, $2, $3, $4, $5, false, $6)",
			Blob(k.ID), string(k.Purpose), k.Label, k.TokenSerial, Blob(k.Stamp), Seconds(k.CreatedAt))
		if err != nil {
			return err
		}
		if err := made(ctx, tx, k.ID); err != nil {
			return err
		}
		if err := tx.Record(ctx, 0, entryOfKey(&k, audit.Created, k.CreatedAt)); err != nil || !k.Current {
			return err
		}
		return makeCurrent(ctx, tx, &k, k.CreatedAt)
	})
}

func entryOfKey(k *store.WrappingKey, act audit.Act, at time.Time) audit.Entry {
	return audit.Entry{Time: at, Act: act, KeyID: k.ID, Detail: "wrapping key, to " + string(k.Purpose)}
}

// makeCurrent makes a wrapping key the current one of its purpose. The first one of all takes no
// other's place.
func makeCurrent(ctx context.Context, tx Tx, k *store.WrappingKey, at time.Time) error {
	before, err := tx.Change(ctx, "UPDATE wrapping_keys SET current = false, superseded_at = $1 WHERE current AND purpose = $2", Seconds(at), string(k.Purpose))
	if err != nil {
		return err
	}
	_, err = tx.Change(ctx, "UPDATE wrapping_keys SET current = true, superseded_at = NULL WHERE key_id = $1", Blob(k.ID))
	if err != nil || before == 0 {
		return err
	}
	return tx.Record(ctx, 0, entryOfKey(k, audit.Rotated, at))
}

// RotateWrappingKey implements store.Store.
func (a *Acts) RotateWrappingKey(ctx context.Context, id []byte, at time.Time) error {
	return a.db.Exclusive(ctx, func(ctx context.Context, tx Tx) error {
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

func wrappingKey(ctx context.Context, tx Tx, id []byte) (store.WrappingKey, error) {
	k, err := One(ctx, tx, scanWrappingKey, selectWrappingKey+" WHERE key_id = $1", Blob(id))
	if err != nil {
		return k, fmt.Errorf("wrapping key %x: %w", id, err)
	}
	return k, nil
}

// WrappingKeys implements store.Store.
func (a *Acts) WrappingKeys(ctx context.Context) ([]store.WrappingKey, error) {
	return ReadAll(ctx, a.db, scanWrappingKey, selectWrappingKey+" ORDER BY id")
}

// CurrentWrappingKey implements store.Store.
func (a *Acts) CurrentWrappingKey(ctx context.Context, p store.Purpose) (store.WrappingKey, error) {
	return ReadOne(ctx, a.db, scanWrappingKey, selectWrappingKey+" WHERE current AND purpose = $1", string(p))
}

func scanDependents(row Scanner) (d store.Dependents, err error) {
	return d, row.Scan(&d.KeyPackages, &d.Identities)
}

// Dependents implements store.Store.
func (a *Acts) Dependents(ctx context.Context, id []byte) (store.Dependents, error) {
	return ReadOne(ctx, a.db, scanDependents, a.layout.countDependents(), Blob(id))
}

// Rewrap implements store.Store.
func (a *Acts) Rewrap(ctx context.Context, batch []store.Rewrapped, at time.Time) (moved uint64, err error) {
	refs := make([][]byte, len(batch))
	for i := range batch {
		refs[i] = batch[i].Ref
	}
	err = a.db.Concurrent(ctx, func(ctx context.Context, tx Tx) error {
		moved = 0
		rows, err := tx.KeyPackages(ctx, refs, at)
		for i := range rows {
			done := false
			if err == nil {
				done, err = a.rewrap(ctx, tx, rows[i], &batch[i], at)
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

func (a *Acts) rewrap(ctx context.Context, tx Tx, was *record.Row, r *store.Rewrapped, at time.Time) (bool, error) {
	to, err := tx.Counters().Usable(ctx, tx, r.WrappingKeyID)
	if err != nil || !was.As(r) {
		return false, err
	}
	err = tx.Later(ctx, "UPDATE "+a.layout.Contents+" SET sealed = $1, leaf = $2, wrapping_key = $3 WHERE id = $4", Blob(r.Sealed), Blob(r.Leaf), to, was.ID)
	if err != nil {
		return false, err
	}
	tx.Counters().Use(to)
	was.Sealed, was.Leaf, was.WrappingKeyID = r.Sealed, r.Leaf, r.WrappingKeyID
	return true, tx.Record(ctx, was.ID, record.EntryOf(&was.KeyPackage, audit.Rewrapped, at))
}

// CondemnWrappingKey implements store.Store.
func (a *Acts) CondemnWrappingKey(ctx context.Context, i store.Intent, shred bool) (erasing store.Backlog, err error) {
	err = a.db.Exclusive(ctx, func(ctx context.Context, tx Tx) error {
		k, err := wrappingKey(ctx, tx, i.KeyID)
		switch {
		case err != nil:
			return err
		case k.Condemned:
			erasing, err = condemnAgain(ctx, tx, &k, i)
			return err
		case k.Current:
			return fmt.Errorf("wrapping key %x: %w: it is the current one to %s", i.KeyID, store.ErrState, k.Purpose)
		}
		erasing, err = a.condemn(ctx, tx, &k, shred, i.CreatedAt)
		if err != nil {
			return err
		}
		return intend(ctx, tx, i)
	})
	return erasing, err
}

// condemnAgain returns the unfinished backlog of a wrapping key that is condemned already, and
// records the intent unless the key is destroyed. The error is store.ErrWrappingKey if the key is
// destroyed and nothing is left to do.
func condemnAgain(ctx context.Context, tx Tx, k *store.WrappingKey, i store.Intent) (store.Backlog, error) {
	erasing, err := unfinished(ctx, tx, "b.wrapping_key = (SELECT id FROM wrapping_keys WHERE key_id = $1)", Blob(k.ID))
	switch {
	case err != nil:
		return erasing, err
	case !k.DestroyedAt.IsZero() && erasing.ID == 0:
		return erasing, fmt.Errorf("wrapping key %x: %w", k.ID, store.ErrWrappingKey)
	case !k.DestroyedAt.IsZero():
		return erasing, nil
	}
	if err = intend(ctx, tx, i); errors.Is(err, store.ErrExists) {
		err = nil // begun before
	}
	return erasing, err
}

// condemn condemns a wrapping key that nothing depends on. With shred, private keys that are under
// it are condemned with it.
func (a *Acts) condemn(ctx context.Context, tx Tx, k *store.WrappingKey, shred bool, at time.Time) (erasing store.Backlog, err error) {
	d, err := One(ctx, tx, scanDependents, a.layout.countDependents(), Blob(k.ID))
	if err != nil {
		return erasing, err
	}
	if d.Identities > 0 || d.KeyPackages > 0 && !shred {
		return erasing, fmt.Errorf("wrapping key %x: %w: %s", k.ID, store.ErrInUse, record.Dependents(d))
	}
	// A stamp has the id of its wrapping key, 16 bytes, after five others: see vault.Blob.
	stamped, err := One(ctx, tx, Value[uint64], "SELECT count(*) FROM intents WHERE substr(stamp, 6, 16) = $1 AND key_id <> $1", Blob(k.ID))
	if err != nil {
		return erasing, err
	}
	if stamped > 0 {
		return erasing, fmt.Errorf("wrapping key %x: %w: %d unfinished acts have its stamp; a sweep ends them", k.ID, store.ErrInUse, stamped)
	}
	if _, err := tx.Change(ctx, "UPDATE wrapping_keys SET condemned = true WHERE key_id = $1", Blob(k.ID)); err != nil || d.KeyPackages == 0 {
		return erasing, err
	}
	if err := tx.Record(ctx, 0, entryOfKey(k, audit.Condemned, at)); err != nil {
		return erasing, err
	}
	return beginErasing(ctx, tx, k.ID, at)
}
