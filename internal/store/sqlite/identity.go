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

// versionColumns are those that an identity and its other versions have in common.
const versionColumns = `version, cipher_suite, credential, signature_key, key_id, key_label, token_serial, weak_key,
	stamp, stamp_key, created_at, retired_at, destroyed_at`

const selectIdentity = "SELECT name, custody, 'current', " + versionColumns + " FROM identities"

// selectVersions has all versions of all identities. Those of one name are found by indexes.
const selectVersions = "SELECT * FROM (" + selectIdentity + ` UNION ALL SELECT
	name, custody, state, ` + versionColumns + " FROM (SELECT id AS owner, name, custody FROM identities) i JOIN identity_versions v ON v.identity = i.owner)"

// scanner is a row or the rows of a query.
type scanner interface{ Scan(...any) error }

func scanIdentity(row scanner) (store.Identity, error) {
	var id store.Identity
	var created int64
	var retired, destroyed sql.NullInt64
	err := row.Scan(&id.Name, &id.Custody, &id.State, &id.Version, &id.Suite, &id.Credential, &id.SignatureKey, &id.KeyID, &id.KeyLabel, &id.TokenSerial, &id.WeakKey,
		&id.Stamp, &id.StampKey, &created, &retired, &destroyed)
	id.CreatedAt, id.RetiredAt, id.DestroyedAt = date(created), optionalDate(retired), optionalDate(destroyed)
	return id, translate(err)
}

// insertVersion adds what the columns are for, after what a table has before them.
func insertVersion(ctx context.Context, tx *transaction, table string, id *store.Identity, more ...any) error {
	columns := map[string]string{"identities": "name, custody, ", "identity_versions": "identity, state, "}[table]
	marks := map[string]string{"identities": "?, ?, ", "identity_versions": "?, ?, "}[table]
	_, err := tx.ExecContext(ctx, "INSERT INTO "+table+" ("+columns+versionColumns+") VALUES ("+marks+"?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		append(more, id.Version, id.Suite, blob(id.Credential), blob(id.SignatureKey), blob(id.KeyID), id.KeyLabel, id.TokenSerial, id.WeakKey,
			blob(id.Stamp), blob(id.StampKey), seconds(id.CreatedAt), optionalSeconds(id.RetiredAt), optionalSeconds(id.DestroyedAt))...)
	return translate(err)
}

// AddIdentity implements store.Store.
func (s *Store) AddIdentity(ctx context.Context, id store.Identity) error {
	return s.share(ctx, func(ctx context.Context, tx *transaction) error {
		id.Version = 1
		if err := insertVersion(ctx, tx, "identities", &id, id.Name, id.Custody); err != nil {
			return err
		}
		return tx.madeIdentity(ctx, &id)
	})
}

// madeIdentity ends what adds a version of an identity.
func (tx *transaction) madeIdentity(ctx context.Context, id *store.Identity) error {
	if err := tx.stampable(ctx, id.StampKey); err != nil {
		return err
	}
	if err := tx.condemned(ctx, id.KeyID); err != nil {
		return err
	}
	if err := tx.made(ctx, id.KeyID); err != nil {
		return err
	}
	return tx.record(ctx, 0, audit.Entry{Time: id.CreatedAt, Act: audit.Created, Identity: id.Name, KeyID: id.KeyID,
		Detail: fmt.Sprintf("signature key, version %d", id.Version)})
}

// stampable fails where a stamp was made by a wrapping key that is destroyed: its
// record would be of no use. No key at all made no stamp.
func (tx *transaction) stampable(ctx context.Context, key []byte) error {
	var condemned bool
	err := tx.QueryRowContext(ctx, "SELECT condemned FROM wrapping_keys WHERE key_id = ?", blob(key)).Scan(&condemned)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err == nil && condemned:
		return store.ErrWrappingKey
	}
	return err
}

// Identity implements store.Store.
func (s *Store) Identity(ctx context.Context, name string) (store.Identity, error) {
	return scanIdentity(s.db.QueryRowContext(ctx, selectIdentity+" WHERE name = ?", name))
}

// Identities implements store.Store.
func (s *Store) Identities(ctx context.Context) ([]store.Identity, error) {
	return query(ctx, s.db, scanIdentity, selectIdentity+" ORDER BY name")
}

// Versions implements store.Store.
func (s *Store) Versions(ctx context.Context, name string) ([]store.Identity, error) {
	return query(ctx, s.db, scanIdentity, selectVersions+" WHERE name = ? ORDER BY version", name)
}

func version(ctx context.Context, tx *transaction, name string, number uint64) (store.Identity, error) {
	return scanIdentity(tx.QueryRowContext(ctx, selectVersions+" WHERE name = ? AND version = ?", name, number))
}

// ChangeIdentity implements store.Store.
func (s *Store) ChangeIdentity(ctx context.Context, id store.Identity, was []byte, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		is, err := version(ctx, tx, id.Name, id.Version)
		if err != nil {
			return err
		}
		if !bytes.Equal(is.Stamp, was) {
			return fmt.Errorf("identity %q was changed meanwhile: %w", id.Name, store.ErrState)
		}
		if err := tx.stampable(ctx, id.StampKey); err != nil {
			return err
		}
		change, args := "UPDATE identities SET credential = ?, stamp = ?, stamp_key = ? WHERE name = ?", []any{id.Name}
		if is.State != store.Current {
			change = "UPDATE identity_versions SET credential = ?, stamp = ?, stamp_key = ? WHERE identity = (SELECT id FROM identities WHERE name = ?) AND version = ?"
			args = append(args, is.Version)
		}
		if _, err := tx.ExecContext(ctx, change, append([]any{blob(id.Credential), blob(id.Stamp), blob(id.StampKey)}, args...)...); err != nil {
			return err
		}
		e := audit.Entry{Time: at, Act: audit.Imported, Identity: id.Name, KeyID: is.KeyID, Detail: "credential"}
		if string(is.Credential) == string(id.Credential) {
			e.Act, e.KeyID, e.Detail = audit.Rewrapped, id.StampKey, "stamp of the identity"
		}
		return tx.record(ctx, 0, e)
	})
}

// ProposeIdentity implements store.Store.
func (s *Store) ProposeIdentity(ctx context.Context, id store.Identity) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		row, last, err := lastVersion(ctx, tx, id.Name)
		if err != nil {
			return err
		}
		if id.Version != last+1 {
			return fmt.Errorf("identity %q: %w: its last version is %d", id.Name, store.ErrState, last)
		}
		if err := insertVersion(ctx, tx, "identity_versions", &id, row, string(store.Next)); err != nil {
			return err
		}
		return tx.madeIdentity(ctx, &id)
	})
}

// SwitchIdentity implements store.Store.
func (s *Store) SwitchIdentity(ctx context.Context, name string, number uint64, until, at time.Time) (retiring store.Backlog, err error) {
	err = s.write(ctx, func(ctx context.Context, tx *transaction) error {
		was, err := scanIdentity(tx.QueryRowContext(ctx, selectIdentity+" WHERE name = ?", name))
		if err != nil {
			return err
		}
		next, err := version(ctx, tx, name, number)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return fmt.Errorf("identity %q: version %d: %w: there is no such version", name, number, store.ErrState)
		case err != nil:
			return err
		case next.State != store.Next:
			return fmt.Errorf("identity %q: version %d: %w: it is %s", name, number, store.ErrState, next.State)
		}
		if err := errors.Join(later(ctx, tx, name, number), tx.condemned(ctx, next.KeyID)); err != nil {
			return err
		}
		if err := switchVersions(ctx, tx, &was, &next, at); err != nil {
			return err
		}
		err = tx.record(ctx, 0, audit.Entry{Time: at, Act: audit.Rotated, Identity: name, KeyID: next.KeyID, Detail: fmt.Sprintf("signature key, version %d", number)})
		if err != nil {
			return err
		}
		retiring, err = beginRetiring(ctx, tx, name, number, until, at)
		return err
	})
	return retiring, err
}

// lastVersion returns the row of an identity and its last version that is no next one.
func lastVersion(ctx context.Context, tx *transaction, name string) (row int64, last uint64, err error) {
	err = tx.QueryRowContext(ctx, `SELECT id, max(version, (SELECT coalesce(max(v.version), 0) FROM identity_versions v WHERE v.identity = i.id AND v.state <> 'next'))
		FROM identities i WHERE name = ?`, name).Scan(&row, &last)
	return row, last, translate(err)
}

// later fails for a version that is not later than all that have signed: an old one does
// not come back.
func later(ctx context.Context, tx *transaction, name string, number uint64) error {
	_, last, err := lastVersion(ctx, tx, name)
	if err == nil && number <= last {
		err = fmt.Errorf("identity %q: version %d: %w: version %d has signed", name, number, store.ErrState, last)
	}
	return err
}

// switchVersions exchanges the rows of the current version and the next one.
func switchVersions(ctx context.Context, tx *transaction, was, next *store.Identity, at time.Time) error {
	var row int64
	if err := tx.QueryRowContext(ctx, "SELECT id FROM identities WHERE name = ?", was.Name).Scan(&row); err != nil {
		return err
	}
	if was.RetiredAt.IsZero() {
		was.RetiredAt = at
	}
	if err := insertVersion(ctx, tx, "identity_versions", was, row, string(store.Old)); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "UPDATE identities SET ("+versionColumns+") = (SELECT "+versionColumns+
		" FROM identity_versions WHERE identity = ? AND version = ?) WHERE id = ?", row, next.Version, row)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM identity_versions WHERE identity = ? AND version = ?", row, next.Version)
	return err
}

// RetireIdentity implements store.Store.
func (s *Store) RetireIdentity(ctx context.Context, name string, until, at time.Time) (retiring store.Backlog, err error) {
	err = s.write(ctx, func(ctx context.Context, tx *transaction) error {
		id, err := scanIdentity(tx.QueryRowContext(ctx, selectIdentity+" WHERE name = ?", name))
		if err != nil {
			return err
		}
		if id.RetiredAt.IsZero() {
			if _, err := tx.ExecContext(ctx, "UPDATE identities SET retired_at = ? WHERE name = ?", seconds(at), name); err != nil {
				return err
			}
			if err := tx.record(ctx, 0, audit.Entry{Time: at, Act: audit.Retired, Identity: name, KeyID: id.KeyID}); err != nil {
				return err
			}
		}
		if !id.RetiredAt.IsZero() { // and perhaps by a call that did not come to its end
			retiring, err = tx.retiring(ctx, name)
		}
		if err == nil && retiring.ID == 0 {
			retiring, err = beginRetiring(ctx, tx, name, allVersions, until, at)
		}
		return err
	})
	return retiring, err
}

// CondemnSignatureKey implements store.Store.
func (s *Store) CondemnSignatureKey(ctx context.Context, name string, number uint64, force bool, i store.Intent) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		id, err := version(ctx, tx, name, number)
		switch {
		case err != nil:
			return err
		case id.State == store.Current && id.RetiredAt.IsZero():
			return fmt.Errorf("signature key of identity %q, version %d: %w: it is the %s one", name, number, store.ErrState, id.State)
		case !id.DestroyedAt.IsZero():
			return fmt.Errorf("signature key of identity %q, version %d: %w: it is destroyed", name, number, store.ErrState)
		}
		var shared bool
		err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM identities WHERE key_id = @key AND token_serial = @serial AND retired_at IS NULL)
			OR EXISTS (SELECT 1 FROM identity_versions WHERE key_id = @key AND token_serial = @serial AND state = 'next'
				AND NOT (identity = (SELECT id FROM identities WHERE name = @name) AND version = @version))`,
			sql.Named("key", id.KeyID), sql.Named("serial", id.TokenSerial), sql.Named("name", name), sql.Named("version", number)).Scan(&shared)
		if err != nil {
			return err
		}
		if shared {
			return fmt.Errorf("signature key of identity %q, version %d: %w: another version or identity signs with it", name, number, store.ErrInUse)
		}
		var open uint64
		err = tx.QueryRowContext(ctx, `SELECT count(*) FROM key_packages k JOIN (
				SELECT id AS identity, version, key_id, token_serial FROM identities
				UNION ALL SELECT identity, version, key_id, token_serial FROM identity_versions
			) v ON v.identity = k.identity AND v.version = k.version
			WHERE v.key_id = @key AND v.token_serial = @serial AND k.state NOT IN (@consumed, @erased)
				AND NOT (`+under+` AND k.wrapping_key IN (SELECT wrapping_key FROM backlogs WHERE finished_at IS NULL AND wrapping_key IS NOT NULL))`,
			sql.Named("key", id.KeyID), sql.Named("serial", id.TokenSerial),
			sql.Named("consumed", string(store.Consumed)), sql.Named("erased", string(store.Erased))).Scan(&open)
		if err != nil {
			return err
		}
		if open > 0 && !force {
			return fmt.Errorf("signature key of identity %q, version %d: %w: key packages that it signed may still be used: %d", name, number, store.ErrInUse, open)
		}
		// A next version that is given up will not sign.
		_, err = tx.ExecContext(ctx, `UPDATE identity_versions SET state = 'old', retired_at = ? WHERE state = 'next' AND version = ?
			AND identity = (SELECT id FROM identities WHERE name = ?)`, seconds(i.CreatedAt), number, name)
		if err != nil {
			return err
		}
		err = tx.intend(ctx, i)
		if errors.Is(err, store.ErrExists) && tx.condemned(ctx, id.KeyID) != nil {
			err = nil // begun before
		}
		return err
	})
}
