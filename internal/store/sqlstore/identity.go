package sqlstore

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

// versionColumns are those that the tables identities, with the current versions, and
// identity_versions, with the others, have in common.
const versionColumns = `version, cipher_suite, credential, signature_key, key_id, key_label, token_serial, weak_key,
	stamp, stamp_key, created_at, retired_at, destroyed_at`

const selectIdentity = "SELECT name, custody, 'current', " + versionColumns + " FROM identities"

// selectVersions has all versions of all identities. Indexes find those of one name.
const selectVersions = "SELECT * FROM (" + selectIdentity + ` UNION ALL SELECT
	name, custody, state, ` + versionColumns + ` FROM (SELECT id AS owner, name, custody FROM identities) i
		JOIN identity_versions v ON v.identity = i.owner) all_versions`

func scanIdentity(row Scanner) (id store.Identity, err error) {
	var created int64
	var retired, destroyed sql.NullInt64
	err = row.Scan(&id.Name, &id.Custody, &id.State, &id.Version, &id.Suite, &id.Credential, &id.SignatureKey, &id.KeyID, &id.KeyLabel, &id.TokenSerial, &id.WeakKey,
		&id.Stamp, &id.StampKey, &created, &retired, &destroyed)
	id.CreatedAt, id.RetiredAt, id.DestroyedAt = Date(created), OptionalDate(retired), OptionalDate(destroyed)
	return id, err
}

const (
	insertIdentity = "INSERT INTO identities (name, custody, " + versionColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`
	insertVersion = "INSERT INTO identity_versions (identity, state, " + versionColumns + `)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`
)

// versionValues are those of versionColumns, after what a table has before them.
func versionValues(id *store.Identity, first ...any) []any {
	return append(first, id.Version, id.Suite, Blob(id.Credential), Blob(id.SignatureKey), Blob(id.KeyID), id.KeyLabel, id.TokenSerial, id.WeakKey,
		Blob(id.Stamp), Blob(id.StampKey), Seconds(id.CreatedAt), OptionalSeconds(id.RetiredAt), OptionalSeconds(id.DestroyedAt))
}

// AddIdentity implements store.Store. Nothing depends on a new identity yet, so it is added beside
// acts on key packages. Acts that would destroy its key, or the key of its stamp, are exclusive.
func (a *Acts) AddIdentity(ctx context.Context, id store.Identity) error {
	id.Version = 1
	return a.db.Grouped(ctx, func(ctx context.Context, tx Tx) error {
		return addVersion(ctx, tx, &id, insertIdentity, id.Name, id.Custody)
	})
}

// ProposeIdentity implements store.Store.
func (a *Acts) ProposeIdentity(ctx context.Context, id store.Identity) error {
	return a.db.Exclusive(ctx, func(ctx context.Context, tx Tx) error {
		was, err := latestOf(ctx, tx, id.Name)
		if err != nil {
			return err
		}
		if id.Version != was.last+1 {
			return fmt.Errorf("identity %q: %w: its last version is %d", id.Name, store.ErrState, was.last)
		}
		return addVersion(ctx, tx, &id, insertVersion, was.row, string(store.Next))
	})
}

// addVersion adds a version of an identity with its entry in the trail. The entry comes first: it
// is refused if a name is not UTF-8, for which PostgreSQL would have an error of its own.
func addVersion(ctx context.Context, tx Tx, id *store.Identity, insert string, first ...any) error {
	err := tx.Record(ctx, 0, audit.Entry{Time: id.CreatedAt, Act: audit.Created, Identity: id.Name, KeyID: id.KeyID,
		Detail: fmt.Sprintf("signature key, version %d", id.Version)})
	if err == nil {
		_, err = tx.Change(ctx, insert, versionValues(id, first...)...)
	}
	if err == nil {
		err = stampable(ctx, tx, id.StampKey)
	}
	if err == nil {
		err = notCondemned(ctx, tx, id.KeyID)
	}
	if err == nil {
		err = made(ctx, tx, id.KeyID)
	}
	return err
}

// stampable fails with store.ErrWrappingKey if the wrapping key that made a stamp is destroyed, or
// about to be: the stamped record would be of no use. It does not fail for an empty key.
func stampable(ctx context.Context, tx Tx, key []byte) error {
	condemned, err := One(ctx, tx, Value[bool], "SELECT condemned FROM wrapping_keys WHERE key_id = $1", Blob(key))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err == nil && condemned:
		return store.ErrWrappingKey
	}
	return err
}

// Identity implements store.Store.
func (a *Acts) Identity(ctx context.Context, name string) (store.Identity, error) {
	return ReadOne(ctx, a.db, scanIdentity, selectIdentity+" WHERE name = $1", name)
}

// Identities implements store.Store.
func (a *Acts) Identities(ctx context.Context) ([]store.Identity, error) {
	return ReadAll(ctx, a.db, scanIdentity, selectIdentity+" ORDER BY name")
}

// Versions implements store.Store.
func (a *Acts) Versions(ctx context.Context, name string) ([]store.Identity, error) {
	return ReadAll(ctx, a.db, scanIdentity, selectVersions+" WHERE name = $1 ORDER BY version", name)
}

func current(ctx context.Context, tx Tx, name string) (store.Identity, error) {
	return One(ctx, tx, scanIdentity, selectIdentity+" WHERE name = $1", name)
}

func versionOf(ctx context.Context, tx Tx, name string, number uint64) (store.Identity, error) {
	return One(ctx, tx, scanIdentity, selectVersions+" WHERE name = $1 AND version = $2", name, number)
}

// ChangeIdentity implements store.Store.
func (a *Acts) ChangeIdentity(ctx context.Context, id store.Identity, was []byte, at time.Time) error {
	return a.db.Exclusive(ctx, func(ctx context.Context, tx Tx) error {
		is, err := versionOf(ctx, tx, id.Name, id.Version)
		if err != nil {
			return err
		}
		if !bytes.Equal(is.Stamp, was) {
			return fmt.Errorf("identity %q was changed meanwhile: %w", id.Name, store.ErrState)
		}
		if err := stampable(ctx, tx, id.StampKey); err != nil {
			return err
		}
		if err := changeVersion(ctx, tx, &id, is.State); err != nil {
			return err
		}
		e := audit.Entry{Time: at, Act: audit.Imported, Identity: id.Name, KeyID: is.KeyID, Detail: "credential"}
		if bytes.Equal(is.Credential, id.Credential) {
			e.Act, e.KeyID, e.Detail = audit.Rewrapped, id.StampKey, "stamp of the identity"
		}
		return tx.Record(ctx, 0, e)
	})
}

// changeVersion replaces credential and stamp in the table that has the version.
func changeVersion(ctx context.Context, tx Tx, id *store.Identity, state store.VersionState) error {
	text, args := "UPDATE identities SET credential = $1, stamp = $2, stamp_key = $3 WHERE name = $4",
		[]any{Blob(id.Credential), Blob(id.Stamp), Blob(id.StampKey), id.Name}
	if state != store.Current {
		text = `UPDATE identity_versions SET credential = $1, stamp = $2, stamp_key = $3
			WHERE identity = (SELECT id FROM identities WHERE name = $4) AND version = $5`
		args = append(args, id.Version)
	}
	_, err := tx.Change(ctx, text, args...)
	return err
}

// SwitchIdentity implements store.Store.
func (a *Acts) SwitchIdentity(ctx context.Context, name string, number uint64, until, at time.Time) (retiring store.Backlog, err error) {
	err = a.db.Exclusive(ctx, func(ctx context.Context, tx Tx) error {
		was, err := current(ctx, tx, name)
		if err != nil {
			return err
		}
		next, err := nextVersion(ctx, tx, name, number)
		if err != nil {
			return err
		}
		if err := switchVersions(ctx, tx, &was, &next, at); err != nil {
			return err
		}
		err = tx.Record(ctx, 0, audit.Entry{Time: at, Act: audit.Rotated, Identity: name, KeyID: next.KeyID, Detail: fmt.Sprintf("signature key, version %d", number)})
		if err != nil {
			return err
		}
		retiring, err = beginRetiring(ctx, tx, name, int64(number), until, at)
		return err
	})
	return retiring, err
}

// nextVersion returns a version that may become the current one. The error is store.ErrState if
// it is not the next one, is not later than all that have signed, because an old one does not
// come back, or if its key is about to be destroyed.
func nextVersion(ctx context.Context, tx Tx, name string, number uint64) (store.Identity, error) {
	next, err := versionOf(ctx, tx, name, number)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return next, fmt.Errorf("identity %q: version %d: %w: there is no such version", name, number, store.ErrState)
	case err != nil:
		return next, err
	case next.State != store.Next:
		return next, fmt.Errorf("identity %q: version %d: %w: it is %s", name, number, store.ErrState, next.State)
	}
	is, err := latestOf(ctx, tx, name)
	if err == nil && number <= is.last {
		err = fmt.Errorf("identity %q: version %d: %w: version %d has signed", name, number, store.ErrState, is.last)
	}
	if err == nil {
		err = notCondemned(ctx, tx, next.KeyID)
	}
	return next, err
}

// latest is the row of an identity, and the number of its last version that is no next one.
type latest struct {
	row  int64
	last uint64
}

func latestOf(ctx context.Context, tx Tx, name string) (latest, error) {
	return One(ctx, tx, func(row Scanner) (l latest, err error) {
		var old uint64
		err = row.Scan(&l.row, &l.last, &old)
		l.last = max(l.last, old)
		return l, err
	}, `SELECT id, version, (SELECT coalesce(max(v.version), 0) FROM identity_versions v WHERE v.identity = i.id AND v.state <> 'next')
		FROM identities i WHERE name = $1`, name)
}

// switchVersions exchanges the rows of the current version and the next one.
func switchVersions(ctx context.Context, tx Tx, was, next *store.Identity, at time.Time) error {
	row, err := One(ctx, tx, Value[int64], "SELECT id FROM identities WHERE name = $1", was.Name)
	if err != nil {
		return err
	}
	if was.RetiredAt.IsZero() {
		was.RetiredAt = at
	}
	_, err = tx.Change(ctx, insertVersion, versionValues(was, row, string(store.Old))...)
	if err == nil {
		_, err = tx.Change(ctx, "UPDATE identities SET ("+versionColumns+") = (SELECT "+versionColumns+
			" FROM identity_versions WHERE identity = $1 AND version = $2) WHERE id = $1", row, next.Version)
	}
	if err == nil {
		_, err = tx.Change(ctx, "DELETE FROM identity_versions WHERE identity = $1 AND version = $2", row, next.Version)
	}
	return err
}

// RetireIdentity implements store.Store.
func (a *Acts) RetireIdentity(ctx context.Context, name string, until, at time.Time) (retiring store.Backlog, err error) {
	err = a.db.Exclusive(ctx, func(ctx context.Context, tx Tx) error {
		id, err := current(ctx, tx, name)
		if err != nil {
			return err
		}
		if id.RetiredAt.IsZero() {
			err = retireIdentity(ctx, tx, &id, at)
		} else { // and perhaps by a call that did not come to its end
			retiring, err = unfinishedRetiring(ctx, tx, name)
		}
		if err == nil && retiring.ID == 0 {
			retiring, err = beginRetiring(ctx, tx, name, allVersions, until, at)
		}
		return err
	})
	return retiring, err
}

func retireIdentity(ctx context.Context, tx Tx, id *store.Identity, at time.Time) error {
	_, err := tx.Change(ctx, "UPDATE identities SET retired_at = $1 WHERE name = $2", Seconds(at), id.Name)
	if err != nil {
		return err
	}
	return tx.Record(ctx, 0, audit.Entry{Time: at, Act: audit.Retired, Identity: id.Name, KeyID: id.KeyID})
}

// CondemnSignatureKey implements store.Store.
func (a *Acts) CondemnSignatureKey(ctx context.Context, name string, number uint64, force bool, i store.Intent) error {
	return a.db.Exclusive(ctx, func(ctx context.Context, tx Tx) error {
		id, err := versionOf(ctx, tx, name, number)
		if err != nil {
			return err
		}
		if err := a.destroyable(ctx, tx, &id, force); err != nil {
			return fmt.Errorf("signature key of identity %q, version %d: %w", name, number, err)
		}
		// A next version that is given up will not sign.
		_, err = tx.Change(ctx, `UPDATE identity_versions SET state = 'old', retired_at = $1 WHERE state = 'next' AND version = $2
			AND identity = (SELECT id FROM identities WHERE name = $3)`, Seconds(i.CreatedAt), number, name)
		if err != nil {
			return err
		}
		err = intend(ctx, tx, i)
		if errors.Is(err, store.ErrExists) && notCondemned(ctx, tx, id.KeyID) != nil {
			err = nil // begun before
		}
		return err
	})
}

// destroyable fails with store.ErrState for the signature key of a version that signs or is
// destroyed, and with store.ErrInUse for one that something else needs.
func (a *Acts) destroyable(ctx context.Context, tx Tx, id *store.Identity, force bool) error {
	switch {
	case id.State == store.Current && id.RetiredAt.IsZero():
		return fmt.Errorf("%w: it is the %s one", store.ErrState, id.State)
	case !id.DestroyedAt.IsZero():
		return fmt.Errorf("%w: it is destroyed", store.ErrState)
	}
	shared, err := One(ctx, tx, Value[bool], `SELECT EXISTS (SELECT 1 FROM identities WHERE key_id = $1 AND token_serial = $2 AND retired_at IS NULL)
		OR EXISTS (SELECT 1 FROM identity_versions WHERE key_id = $1 AND token_serial = $2 AND state = 'next'
			AND NOT (identity = (SELECT id FROM identities WHERE name = $3) AND version = $4))`, id.KeyID, id.TokenSerial, id.Name, id.Version)
	if err != nil {
		return err
	}
	if shared {
		return fmt.Errorf("%w: another version or identity signs with it", store.ErrInUse)
	}
	open, err := One(ctx, tx, Value[uint64], a.layout.countSignedBy(), id.KeyID, id.TokenSerial)
	if err == nil && open > 0 && !force {
		err = fmt.Errorf("%w: key packages that it signed may still be used: %d", store.ErrInUse, open)
	}
	return err
}
