package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

const intentColumns = "key_id, object, token_serial, destroy, stamp, created_at, instead"

func scanIntent(s scanner) (i store.Intent, err error) {
	var created int64
	err = s.Scan(&i.KeyID, &i.Object, &i.TokenSerial, &i.Destroy, &i.Stamp, &created, &i.Instead)
	i.CreatedAt, i.Succeeds = date(created), i.Instead != nil
	return i, translate(err)
}

func (tx *transaction) intend(ctx context.Context, i store.Intent) error {
	var instead []byte // NULL
	if i.Succeeds {
		if err := tx.stillCurrent(ctx, i.Object, i.Instead); err != nil {
			return err
		}
		instead = blob(i.Instead)
	}
	_, err := tx.ExecContext(ctx, "INSERT INTO intents ("+intentColumns+") VALUES (?, ?, ?, ?, ?, ?, ?)",
		blob(i.KeyID), string(i.Object), i.TokenSerial, i.Destroy, blob(i.Stamp), seconds(i.CreatedAt), instead)
	return translate(err)
}

// currentOf finds the current key of a kind.
var currentOf = map[store.Object]string{
	store.ObjectSealingKey:  "SELECT key_id FROM wrapping_keys WHERE current = 1 AND purpose = 'seal'",
	store.ObjectSealingPair: "SELECT key_id FROM wrapping_keys WHERE current = 1 AND purpose = 'seal'",
	store.ObjectWrappingKey: "SELECT key_id FROM wrapping_keys WHERE current = 1 AND purpose = 'wrap'",
	store.ObjectAuditKey:    "SELECT key_id FROM audit_keys ORDER BY id DESC LIMIT 1",
}

// stillCurrent fails where a key is not the current one of its kind; an empty id is that of
// none.
func (tx *transaction) stillCurrent(ctx context.Context, o store.Object, id []byte) error {
	var current []byte
	query, ok := currentOf[o]
	if !ok {
		return fmt.Errorf("%s: %w: none takes the place of another", o, store.ErrState)
	}
	if err := tx.QueryRowContext(ctx, query).Scan(&current); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if !bytes.Equal(current, id) {
		return fmt.Errorf("%s: %w: %x is the current one by now", o, store.ErrState, current)
	}
	return nil
}

// succeeds fails for a key that was made to take the place of another, where somebody else
// was quicker.
func (tx *transaction) succeeds(ctx context.Context, keyID []byte) error {
	i, err := scanIntent(tx.QueryRowContext(ctx, "SELECT "+intentColumns+" FROM intents WHERE key_id = ? AND destroy = 0", blob(keyID)))
	if errors.Is(err, store.ErrNotFound) || err == nil && !i.Succeeds {
		return nil
	}
	if err != nil {
		return err
	}
	return tx.stillCurrent(ctx, i.Object, i.Instead)
}

// made settles the intent to make a key, where there was one.
func (tx *transaction) made(ctx context.Context, keyID []byte) error {
	n, err := count(tx.ExecContext(ctx, "DELETE FROM intents WHERE key_id = ? AND destroy = 0", blob(keyID)))
	if err == nil && n == 0 && store.Intended(ctx, keyID) {
		err = fmt.Errorf("key %x: %w: a sweep took it for unfinished, and has destroyed it", keyID, store.ErrState)
	}
	return err
}

// Intend implements store.Store.
func (s *Store) Intend(ctx context.Context, i store.Intent) error {
	return s.share(ctx, func(ctx context.Context, tx *transaction) error { return tx.intend(ctx, i) })
}

// Intents implements store.Store.
func (s *Store) Intents(ctx context.Context) ([]store.Intent, error) {
	return query(ctx, s.db, scanIntent, "SELECT "+intentColumns+" FROM intents ORDER BY id")
}

// InUse implements store.Store.
func (s *Store) InUse(ctx context.Context, keyID []byte) (used bool, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM identities WHERE key_id = @key AND destroyed_at IS NULL)
		OR EXISTS (SELECT 1 FROM identity_versions WHERE key_id = @key AND destroyed_at IS NULL)
		OR EXISTS (SELECT 1 FROM wrapping_keys WHERE key_id = @key AND NOT condemned)
		OR EXISTS (SELECT 1 FROM audit_keys WHERE key_id = @key)`, sql.Named("key", blob(keyID))).Scan(&used)
	return used, translate(err)
}

// condemned fails where a key is about to be destroyed: nothing may be made to depend on
// it.
func (tx *transaction) condemned(ctx context.Context, keyID []byte) error {
	var going bool
	err := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM intents WHERE key_id = ? AND destroy = 1)", blob(keyID)).Scan(&going)
	if err == nil && going {
		err = fmt.Errorf("key %x: %w: it is about to be destroyed", keyID, store.ErrState)
	}
	return err
}

// Settle implements store.Store.
func (s *Store) Settle(ctx context.Context, keyID []byte, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		i, err := scanIntent(tx.QueryRowContext(ctx, "SELECT "+intentColumns+" FROM intents WHERE key_id = ?", blob(keyID)))
		if err != nil {
			return fmt.Errorf("intent for key %x: %w", keyID, err)
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM intents WHERE key_id = ?", blob(keyID)); err != nil {
			return err
		}
		if !i.Destroy {
			return tx.record(ctx, 0, audit.Entry{Time: at, Act: audit.Repaired, KeyID: keyID, Detail: string(i.Object) + " that was begun and not recorded"})
		}
		for _, table := range []string{"wrapping_keys", "identities", "identity_versions"} {
			if _, err := tx.ExecContext(ctx, "UPDATE "+table+" SET destroyed_at = ? WHERE key_id = ? AND token_serial = ?", seconds(at), blob(keyID), i.TokenSerial); err != nil {
				return err
			}
		}
		return tx.record(ctx, 0, audit.Entry{Time: at, Act: audit.Destroyed, KeyID: keyID, Detail: string(i.Object)})
	})
}
