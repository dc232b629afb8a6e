package sqlstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

const (
	intentColumns = "key_id, object, token_serial, destroy, stamp, created_at, instead"
	selectIntent  = "SELECT " + intentColumns + " FROM intents"
)

func scanIntent(row Scanner) (i store.Intent, err error) {
	var created int64
	err = row.Scan(&i.KeyID, &i.Object, &i.TokenSerial, &i.Destroy, &i.Stamp, &created, &i.Instead)
	i.CreatedAt, i.Succeeds = Date(created), i.Instead != nil
	return i, err
}

// Intend implements store.Store. The intent to make a key that takes no other's place decides
// nothing for others.
func (a *Acts) Intend(ctx context.Context, i store.Intent) error {
	run := a.db.Grouped
	if i.Succeeds || i.Destroy {
		run = a.db.Exclusive
	}
	return run(ctx, func(ctx context.Context, tx Tx) error { return intend(ctx, tx, i) })
}

// intend records an intent. The error is store.ErrExists if the key has one, or if another key is
// to take the place of the same one.
func intend(ctx context.Context, tx Tx, i store.Intent) error {
	var instead []byte // NULL
	if i.Succeeds {
		if err := stillCurrent(ctx, tx, i.Object, i.Instead); err != nil {
			return err
		}
		instead = Blob(i.Instead)
	}
	added, err := tx.Change(ctx, "INSERT INTO intents ("+intentColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
		Blob(i.KeyID), string(i.Object), i.TokenSerial, i.Destroy, Blob(i.Stamp), Seconds(i.CreatedAt), instead)
	if err == nil && added == 0 {
		err = store.ErrExists
	}
	return err
}

// currentOf finds the current key of a kind.
var currentOf = map[store.Object]string{
	store.ObjectSealingKey:  "SELECT key_id FROM wrapping_keys WHERE current AND purpose = 'seal'",
	store.ObjectSealingPair: "SELECT key_id FROM wrapping_keys WHERE current AND purpose = 'seal'",
	store.ObjectWrappingKey: "SELECT key_id FROM wrapping_keys WHERE current AND purpose = 'wrap'",
	store.ObjectAuditKey:    "SELECT key_id FROM audit_keys ORDER BY id DESC LIMIT 1",
}

// currentKey returns the id of the current key of a kind, or nil if there is none.
func currentKey(ctx context.Context, tx Tx, o store.Object) ([]byte, error) {
	id, err := One(ctx, tx, Value[[]byte], currentOf[o])
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return id, err
}

// stillCurrent fails with store.ErrState if a key is not the current one of its kind. An empty id
// stands for no key.
func stillCurrent(ctx context.Context, tx Tx, o store.Object, id []byte) error {
	if currentOf[o] == "" {
		return fmt.Errorf("%s: %w: none takes the place of another", o, store.ErrState)
	}
	is, err := currentKey(ctx, tx, o)
	if err == nil && !bytes.Equal(is, id) {
		err = fmt.Errorf("%s: %w: %x is the current one now", o, store.ErrState, is)
	}
	return err
}

// succeeds fails with store.ErrState for a key that was made to take the place of another, if
// a third one has taken it.
func succeeds(ctx context.Context, tx Tx, keyID []byte) error {
	i, err := One(ctx, tx, scanIntent, selectIntent+" WHERE key_id = $1 AND NOT destroy", Blob(keyID))
	if errors.Is(err, store.ErrNotFound) || err == nil && !i.Succeeds {
		return nil
	}
	if err != nil {
		return err
	}
	return stillCurrent(ctx, tx, i.Object, i.Instead)
}

// made settles the intent to make a key, if there was one.
func made(ctx context.Context, tx Tx, keyID []byte) error {
	n, err := tx.Change(ctx, "DELETE FROM intents WHERE key_id = $1 AND NOT destroy", Blob(keyID))
	if err == nil && n == 0 && store.Intended(ctx, keyID) {
		err = fmt.Errorf("key %x: %w: a sweep took it for unfinished, and has destroyed it", keyID, store.ErrState)
	}
	return err
}

// notCondemned fails with store.ErrState if a key is about to be destroyed: nothing may be made to
// depend on it.
func notCondemned(ctx context.Context, tx Tx, keyID []byte) error {
	condemned, err := One(ctx, tx, Value[bool], "SELECT EXISTS (SELECT 1 FROM intents WHERE key_id = $1 AND destroy)", Blob(keyID))
	if err == nil && condemned {
		err = fmt.Errorf("key %x: %w: it is about to be destroyed", keyID, store.ErrState)
	}
	return err
}

// Intents implements store.Store.
func (a *Acts) Intents(ctx context.Context) ([]store.Intent, error) {
	return ReadAll(ctx, a.db, scanIntent, selectIntent+" ORDER BY id")
}

// InUse implements store.Store.
func (a *Acts) InUse(ctx context.Context, keyID []byte) (bool, error) {
	return ReadOne(ctx, a.db, Value[bool], `SELECT EXISTS (SELECT 1 FROM identities WHERE key_id = $1 AND destroyed_at IS NULL)
		OR EXISTS (SELECT 1 FROM identity_versions WHERE key_id = $1 AND destroyed_at IS NULL)
		OR EXISTS (SELECT 1 FROM wrapping_keys WHERE key_id = $1 AND NOT condemned)
		OR EXISTS (SELECT 1 FROM audit_keys WHERE key_id = $1)`, Blob(keyID))
}

// Settle implements store.Store.
func (a *Acts) Settle(ctx context.Context, keyID []byte, at time.Time) error {
	return a.db.Exclusive(ctx, func(ctx context.Context, tx Tx) error {
		i, err := One(ctx, tx, scanIntent, selectIntent+" WHERE key_id = $1", Blob(keyID))
		if err != nil {
			return fmt.Errorf("intent for key %x: %w", keyID, err)
		}
		if _, err := tx.Change(ctx, "DELETE FROM intents WHERE key_id = $1", Blob(keyID)); err != nil {
			return err
		}
		if !i.Destroy {
			return tx.Record(ctx, 0, audit.Entry{Time: at, Act: audit.Repaired, KeyID: keyID, Detail: string(i.Object) + " that was begun and not recorded"})
		}
		if err := destroyed(ctx, tx, &i, at); err != nil {
			return err
		}
		return tx.Record(ctx, 0, audit.Entry{Time: at, Act: audit.Destroyed, KeyID: keyID, Detail: string(i.Object)})
	})
}

// destroyed records that a key is destroyed, wherever it is.
func destroyed(ctx context.Context, tx Tx, i *store.Intent, at time.Time) error {
	for _, table := range []string{"wrapping_keys", "identities", "identity_versions"} {
		_, err := tx.Change(ctx, "UPDATE "+table+" SET destroyed_at = $1 WHERE key_id = $2 AND token_serial = $3", Seconds(at), Blob(i.KeyID), i.TokenSerial)
		if err != nil {
			return err
		}
	}
	return nil
}
