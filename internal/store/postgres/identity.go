package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// versionColumns are those that an identity and its other versions have in common.
const versionColumns = `version, cipher_suite, credential, signature_key, key_id, key_label, token_serial, weak_key,
	stamp, stamp_key, created_at, retired_at, destroyed_at`

const selectIdentity = "SELECT name, custody, 'current', " + versionColumns + " FROM identities"

// selectVersions has all versions of all identities. Those of one name are found by indexes.
const selectVersions = "SELECT * FROM (" + selectIdentity + ` UNION ALL SELECT
	name, custody, state, ` + versionColumns + " FROM (SELECT id AS owner, name, custody FROM identities) i JOIN identity_versions v ON v.identity = i.owner) all_versions"

func scanIdentity(row scanner) (store.Identity, error) {
	var id store.Identity
	var created int64
	var retired, destroyed sql.NullInt64
	err := row.Scan(&id.Name, &id.Custody, &id.State, &id.Version, &id.Suite, &id.Credential, &id.SignatureKey, &id.KeyID, &id.KeyLabel, &id.TokenSerial, &id.WeakKey,
		&id.Stamp, &id.StampKey, &created, &retired, &destroyed)
	id.CreatedAt, id.RetiredAt, id.DestroyedAt = date(created), optionalDate(retired), optionalDate(destroyed)
	return id, err
}

// insertVersion adds what the columns are for, after what a table has before them.
func insertVersion(ctx context.Context, tx *transaction, table string, id *store.Identity, more ...any) error {
	first := map[string]string{"identities": "name, custody", "identity_versions": "identity, state"}[table]
	args := append(more, id.Version, id.Suite, blob(id.Credential), blob(id.SignatureKey), blob(id.KeyID), id.KeyLabel, id.TokenSerial, id.WeakKey,
		blob(id.Stamp), blob(id.StampKey), seconds(id.CreatedAt), optionalSeconds(id.RetiredAt), optionalSeconds(id.DestroyedAt))
	_, err := tx.change(ctx, "INSERT INTO "+table+" ("+first+", "+versionColumns+") VALUES ("+marks(len(args))+")", args...)
	return err
}

// marks are those of n arguments.
func marks(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("$%d", i+1)
	}
	return strings.Join(all, ", ")
}

// AddIdentity implements store.Store. A new identity is nobody's yet: it takes place beside acts on
// key packages. What would destroy its key, or that of its stamp, is alone.
func (s *Store) AddIdentity(ctx context.Context, id store.Identity) error {
	return s.share(ctx, func(ctx context.Context, tx *transaction) error {
		id.Version = 1
		if err := tx.recordIdentity(&id); err != nil {
			return err
		}
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
	return tx.made(ctx, id.KeyID)
}

// recordIdentity comes first: what cannot be an entry of the trail, such as a name that is not
// UTF-8, PostgreSQL would refuse with an error of its own.
func (tx *transaction) recordIdentity(id *store.Identity) error {
	return tx.record(0, audit.Entry{Time: id.CreatedAt, Act: audit.Created, Identity: id.Name, KeyID: id.KeyID,
		Detail: fmt.Sprintf("signature key, version %d", id.Version)})
}

// stampable fails where a stamp was made by a wrapping key that is destroyed: its
// record would be of no use. No key at all made no stamp.
func (tx *transaction) stampable(ctx context.Context, key []byte) error {
	var condemned bool
	err := tx.QueryRow(ctx, "SELECT condemned FROM wrapping_keys WHERE key_id = $1", blob(key)).Scan(&condemned)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err == nil && condemned:
		return store.ErrWrappingKey
	}
	return err
}

// Identity implements store.Store.
func (s *Store) Identity(ctx context.Context, name string) (store.Identity, error) {
	return readOne(ctx, s, scanIdentity, selectIdentity+" WHERE name = $1", name)
}

// Identities implements store.Store.
func (s *Store) Identities(ctx context.Context) ([]store.Identity, error) {
	return readAll(ctx, s, scanIdentity, selectIdentity+" ORDER BY name")
}

// Versions implements store.Store.
func (s *Store) Versions(ctx context.Context, name string) ([]store.Identity, error) {
	return readAll(ctx, s, scanIdentity, selectVersions+" WHERE name = $1 ORDER BY version", name)
}

func versionOf(ctx context.Context, tx *transaction, name string, number uint64) (store.Identity, error) {
	return queryOne(ctx, tx, scanIdentity, selectVersions+" WHERE name = $1 AND version = $2", name, number)
}

// ChangeIdentity implements store.Store.
func (s *Store) ChangeIdentity(ctx context.Context, id store.Identity, was []byte, at time.Time) error {
	return s.write(ctx, alone, func(ctx context.Context, tx *transaction) error {
		is, err := versionOf(ctx, tx, id.Name, id.Version)
		if err != nil {
			return err
		}
		if !bytes.Equal(is.Stamp, was) {
			return fmt.Errorf("identity %q was changed meanwhile: %w", id.Name, store.ErrState)
		}
		if err := tx.stampable(ctx, id.StampKey); err != nil {
			return err
		}
		change, args := "UPDATE identities SET credential = $1, stamp = $2, stamp_key = $3 WHERE name = $4", []any{id.Name}
		if is.State != store.Current {
			change = "UPDATE identity_versions SET credential = $1, stamp = $2, stamp_key = $3 WHERE identity = (SELECT id FROM identities WHERE name = $4) AND version = $5"
			args = append(args, is.Version)
		}
		if _, err := tx.change(ctx, change, append([]any{blob(id.Credential), blob(id.Stamp), blob(id.StampKey)}, args...)...); err != nil {
			return err
		}
		e := audit.Entry{Time: at, Act: audit.Imported, Identity: id.Name, KeyID: is.KeyID, Detail: "credential"}
		if string(is.Credential) == string(id.Credential) {
			e.Act, e.KeyID, e.Detail = audit.Rewrapped, id.StampKey, "stamp of the identity"
		}
		return tx.record(0, e)
	})
}

// ProposeIdentity implements store.Store.
func (s *Store) ProposeIdentity(ctx context.Context, id store.Identity) error {
	return s.write(ctx, alone, func(ctx context.Context, tx *transaction) error {
		row, last, err := lastVersion(ctx, tx, id.Name)
		if err != nil {
			return err
		}
		if id.Version != last+1 {
			return fmt.Errorf("identity %q: %w: its last version is %d", id.Name, store.ErrState, last)
		}
		if err := tx.recordIdentity(&id); err != nil {
			return err
		}
		if err := insertVersion(ctx, tx, "identity_versions", &id, row, string(store.Next)); err != nil {
			return err
		}
		return tx.madeIdentity(ctx, &id)
	})
}

// SwitchIdentity implements store.Store.
func (s *Store) SwitchIdentity(ctx context.Context, name string, number uint64, until, at time.Time) (retiring store.Backlog, err error) {
	err = s.write(ctx, alone, func(ctx context.Context, tx *transaction) error {
		was, err := queryOne(ctx, tx, scanIdentity, selectIdentity+" WHERE name = $1", name)
		if err != nil {
			return err
		}
		next, err := versionOf(ctx, tx, name, number)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return fmt.Errorf("identity %q: version %d: %w: there is no such version", name, number, store.ErrState)
		case err != nil:
			return err
		case next.State != store.Next:
			return fmt.Errorf("identity %q: version %d: %w: it is %s", name, number, store.ErrState, next.State)
		}
		if err := errors.Join(tooEarly(ctx, tx, name, number), tx.condemned(ctx, next.KeyID)); err != nil {
			return err
		}
		if err := switchVersions(ctx, tx, &was, &next, at); err != nil {
			return err
		}
		err = tx.record(0, audit.Entry{Time: at, Act: audit.Rotated, Identity: name, KeyID: next.KeyID, Detail: fmt.Sprintf("signature key, version %d", number)})
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
	err = tx.QueryRow(ctx, `SELECT id, greatest(version, (SELECT coalesce(max(v.version), 0) FROM identity_versions v WHERE v.identity = i.id AND v.state <> 'next'))
		FROM identities i WHERE name = $1`, name).Scan(&row, &last)
	return row, last, err
}

// tooEarly fails for a version that is not later than all that have signed: an old one does
// not come back.
func tooEarly(ctx context.Context, tx *transaction, name string, number uint64) error {
	_, last, err := lastVersion(ctx, tx, name)
	if err == nil && number <= last {
		err = fmt.Errorf("identity %q: version %d: %w: version %d has signed", name, number, store.ErrState, last)
	}
	return err
}

// switchVersions exchanges the rows of the current version and the next one.
func switchVersions(ctx context.Context, tx *transaction, was, next *store.Identity, at time.Time) error {
	var row int64
	if err := tx.QueryRow(ctx, "SELECT id FROM identities WHERE name = $1", was.Name).Scan(&row); err != nil {
		return err
	}
	if was.RetiredAt.IsZero() {
		was.RetiredAt = at
	}
	if err := insertVersion(ctx, tx, "identity_versions", was, row, string(store.Old)); err != nil {
		return err
	}
	_, err := tx.change(ctx, "UPDATE identities SET ("+versionColumns+") = (SELECT "+versionColumns+
		" FROM identity_versions WHERE identity = $1 AND version = $2) WHERE id = $3", row, next.Version, row)
	if err != nil {
		return err
	}
	_, err = tx.change(ctx, "DELETE FROM identity_versions WHERE identity = $1 AND version = $2", row, next.Version)
	return err
}

// RetireIdentity implements store.Store.
func (s *Store) RetireIdentity(ctx context.Context, name string, until, at time.Time) (retiring store.Backlog, err error) {
	err = s.write(ctx, alone, func(ctx context.Context, tx *transaction) error {
		id, err := queryOne(ctx, tx, scanIdentity, selectIdentity+" WHERE name = $1", name)
		if err != nil {
			return err
		}
		if id.RetiredAt.IsZero() {
			if _, err := tx.change(ctx, "UPDATE identities SET retired_at = $1 WHERE name = $2", seconds(at), name); err != nil {
				return err
			}
			if err := tx.record(0, audit.Entry{Time: at, Act: audit.Retired, Identity: name, KeyID: id.KeyID}); err != nil {
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
	return s.write(ctx, alone, func(ctx context.Context, tx *transaction) error {
		id, err := versionOf(ctx, tx, name, number)
		switch {
		case err != nil:
			return err
		case id.State == store.Current && id.RetiredAt.IsZero():
			return fmt.Errorf("signature key of identity %q, version %d: %w: it is the %s one", name, number, store.ErrState, id.State)
		case !id.DestroyedAt.IsZero():
			return fmt.Errorf("signature key of identity %q, version %d: %w: it is destroyed", name, number, store.ErrState)
		}
		var shared bool
		err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM identities WHERE key_id = @key AND token_serial = @serial AND retired_at IS NULL)
			OR EXISTS (SELECT 1 FROM identity_versions WHERE key_id = @key AND token_serial = @serial AND state = 'next'
				AND NOT (identity = (SELECT id FROM identities WHERE name = @name) AND version = @version))`,
			pgx.NamedArgs{"key": id.KeyID, "serial": id.TokenSerial, "name": name, "version": number}).Scan(&shared)
		if err != nil {
			return err
		}
		if shared {
			return fmt.Errorf("signature key of identity %q, version %d: %w: another version or identity signs with it", name, number, store.ErrInUse)
		}
		var open uint64
		err = tx.QueryRow(ctx, `SELECT count(*) FROM key_packages k JOIN contents c ON c.id = k.id JOIN (
				SELECT id AS identity, version, key_id, token_serial FROM identities
				UNION ALL SELECT identity, version, key_id, token_serial FROM identity_versions
			) v ON v.identity = k.identity AND v.version = k.version
			WHERE v.key_id = @key AND v.token_serial = @serial AND k.state NOT IN (@consumed, @erased)
				AND NOT (`+under+` AND c.wrapping_key IN (SELECT wrapping_key FROM backlogs WHERE finished_at IS NULL AND wrapping_key IS NOT NULL))`,
			pgx.NamedArgs{"key": id.KeyID, "serial": id.TokenSerial, "consumed": string(store.Consumed), "erased": string(store.Erased)}).Scan(&open)
		if err != nil {
			return err
		}
		if open > 0 && !force {
			return fmt.Errorf("signature key of identity %q, version %d: %w: key packages that it signed may still be used: %d", name, number, store.ErrInUse, open)
		}
		// A next version that is given up will not sign.
		_, err = tx.change(ctx, `UPDATE identity_versions SET state = 'old', retired_at = $1 WHERE state = 'next' AND version = $2
			AND identity = (SELECT id FROM identities WHERE name = $3)`, seconds(i.CreatedAt), number, name)
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
