package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// applicationID marks a file as a store of hsm-kp (PRAGMA application_id).
const applicationID = 0x68736B70 // "hskp"

// migrations bring a store from one version of the schema to the next. The version is how many of
// them were applied (PRAGMA user_version). A migration that was released never changes.
//
// Key packages have a rowid that grows, so that rows are appended and paging follows it; the ref is
// a second index. Small integers stand for the names and ids that key packages refer to: a million
// rows repeat them.
var migrations = []string{
	`CREATE TABLE identities (
		id            INTEGER PRIMARY KEY,
		name          TEXT    NOT NULL UNIQUE,
		cipher_suite  INTEGER NOT NULL,
		credential    BLOB    NOT NULL,
		signature_key BLOB    NOT NULL,
		key_id        BLOB    NOT NULL,
		key_label     TEXT    NOT NULL,
		token_serial  TEXT    NOT NULL,
		created_at    INTEGER NOT NULL
	) STRICT;
	CREATE TABLE wrapping_keys (
		id           INTEGER PRIMARY KEY,
		key_id       BLOB    NOT NULL UNIQUE,
		label        TEXT    NOT NULL,
		token_serial TEXT    NOT NULL,
		current      INTEGER NOT NULL,
		uses         INTEGER NOT NULL DEFAULT 0,
		created_at   INTEGER NOT NULL
	) STRICT;
	CREATE UNIQUE INDEX one_current_wrapping_key ON wrapping_keys (current) WHERE current = 1;
	CREATE TABLE key_packages (
		id           INTEGER PRIMARY KEY,
		ref          BLOB    NOT NULL UNIQUE,
		identity     INTEGER NOT NULL REFERENCES identities (id),
		cipher_suite INTEGER NOT NULL,
		state        TEXT    NOT NULL,
		last_resort  INTEGER NOT NULL,
		custody      TEXT    NOT NULL,
		wrapping_key INTEGER NOT NULL REFERENCES wrapping_keys (id),
		sealed       BLOB    NOT NULL,
		public       BLOB    NOT NULL,
		created_at   INTEGER NOT NULL,
		not_before   INTEGER NOT NULL,
		not_after    INTEGER NOT NULL,
		published_at INTEGER
	) STRICT;
	CREATE INDEX key_packages_by_identity ON key_packages (identity, state);`,

	// Nothing authenticates the rows of the first version: their stamps are empty, which fits no
	// record.
	`ALTER TABLE identities ADD COLUMN weak_key INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE identities ADD COLUMN stamp BLOB NOT NULL DEFAULT x'';
	ALTER TABLE wrapping_keys ADD COLUMN stamp BLOB NOT NULL DEFAULT x'';`,

	// What a Welcome does to a key package.
	`ALTER TABLE key_packages ADD COLUMN welcome_digest BLOB;
	ALTER TABLE key_packages ADD COLUMN reserved_from TEXT;
	ALTER TABLE key_packages ADD COLUMN reserved_until INTEGER;
	ALTER TABLE key_packages ADD COLUMN consumed_at INTEGER;
	ALTER TABLE key_packages ADD COLUMN opened INTEGER NOT NULL DEFAULT 0;`,

	// Rotation, and the trail. What was called expired before had been erased. A stamp has the id
	// of its wrapping key, 16 bytes, after five others (see vault.Blob).
	//
	// The current version of an identity is in identities, the others are in identity_versions.
	`ALTER TABLE identities ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
	ALTER TABLE identities ADD COLUMN stamp_key BLOB NOT NULL DEFAULT x'';
	ALTER TABLE identities ADD COLUMN retired_at INTEGER;
	ALTER TABLE identities ADD COLUMN destroyed_at INTEGER;
	UPDATE identities SET stamp_key = substr(stamp, 6, 16) WHERE length(stamp) > 21;
	CREATE TABLE identity_versions (
		id            INTEGER PRIMARY KEY,
		identity      INTEGER NOT NULL REFERENCES identities (id),
		version       INTEGER NOT NULL,
		state         TEXT    NOT NULL,
		cipher_suite  INTEGER NOT NULL,
		credential    BLOB    NOT NULL,
		signature_key BLOB    NOT NULL,
		key_id        BLOB    NOT NULL,
		key_label     TEXT    NOT NULL,
		token_serial  TEXT    NOT NULL,
		weak_key      INTEGER NOT NULL,
		stamp         BLOB    NOT NULL,
		stamp_key     BLOB    NOT NULL,
		created_at    INTEGER NOT NULL,
		retired_at    INTEGER,
		destroyed_at  INTEGER,
		UNIQUE (identity, version)
	) STRICT;
	CREATE UNIQUE INDEX one_next_version ON identity_versions (identity) WHERE state = 'next';

	ALTER TABLE wrapping_keys ADD COLUMN purpose TEXT NOT NULL DEFAULT 'seal';
	ALTER TABLE wrapping_keys ADD COLUMN condemned INTEGER NOT NULL DEFAULT 0;
	ALTER TABLE wrapping_keys ADD COLUMN superseded_at INTEGER;
	ALTER TABLE wrapping_keys ADD COLUMN destroyed_at INTEGER;
	DROP INDEX one_current_wrapping_key;
	CREATE UNIQUE INDEX one_current_wrapping_key ON wrapping_keys (purpose) WHERE current = 1;
	CREATE TABLE intents (
		id           INTEGER PRIMARY KEY,
		key_id       BLOB    NOT NULL UNIQUE,
		object       TEXT    NOT NULL,
		token_serial TEXT    NOT NULL,
		destroy      INTEGER NOT NULL,
		stamp        BLOB    NOT NULL,
		created_at   INTEGER NOT NULL
	) STRICT;

	ALTER TABLE key_packages ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
	ALTER TABLE key_packages ADD COLUMN leaf BLOB NOT NULL DEFAULT x'';
	ALTER TABLE key_packages ADD COLUMN claimed_at INTEGER;
	ALTER TABLE key_packages ADD COLUMN retired_until INTEGER;
	ALTER TABLE key_packages ADD COLUMN erased_at INTEGER;
	UPDATE key_packages SET state = 'erased' WHERE state = 'expired';
	CREATE INDEX key_packages_under ON key_packages (wrapping_key) WHERE sealed <> x'' OR leaf <> x'';
	CREATE INDEX lifetimes_ending ON key_packages (state, not_after) WHERE consumed_at IS NULL AND erased_at IS NULL;
	CREATE INDEX last_resorts ON key_packages (identity) WHERE last_resort = 1;
	CREATE INDEX reservations_ending ON key_packages (reserved_until) WHERE state = 'reserved';
	CREATE INDEX retirements_ending ON key_packages (retired_until) WHERE state = 'retired';

	CREATE TABLE audit (
		sequence    INTEGER PRIMARY KEY,
		key_package INTEGER,
		entry       BLOB    NOT NULL,
		hash        BLOB    NOT NULL
	) STRICT;
	CREATE INDEX audit_of_key_packages ON audit (key_package) WHERE key_package IS NOT NULL;
	CREATE TABLE checkpoints (
		size       INTEGER PRIMARY KEY,
		note       BLOB    NOT NULL,
		created_at INTEGER NOT NULL
	) STRICT;
	CREATE TABLE audit_keys (
		id           INTEGER PRIMARY KEY,
		key_id       BLOB    NOT NULL UNIQUE,
		label        TEXT    NOT NULL,
		token_serial TEXT    NOT NULL,
		origin       TEXT    NOT NULL,
		verifier_key TEXT    NOT NULL,
		created_at   INTEGER NOT NULL
	) STRICT;`,

	// What one transaction has decided for many key packages, and each row has still to follow:
	// those of an identity, of the versions before one, that were there by then, or those under a
	// wrapping key. A claim skips them without reading them.
	`CREATE TABLE backlogs (
		id           INTEGER PRIMARY KEY,
		identity     INTEGER REFERENCES identities (id),
		before       INTEGER,
		last         INTEGER,
		until        INTEGER,
		wrapping_key INTEGER UNIQUE REFERENCES wrapping_keys (id),
		begun_at     INTEGER NOT NULL,
		moved        INTEGER NOT NULL DEFAULT 0,
		finished_at  INTEGER
	) STRICT;
	CREATE INDEX unfinished_backlogs ON backlogs (identity) WHERE finished_at IS NULL;
	CREATE INDEX claimable ON key_packages (identity, version, wrapping_key) WHERE state = 'available';`,

	// An intent to make a key that takes the place of another one.
	`ALTER TABLE intents ADD COLUMN instead BLOB;
	CREATE UNIQUE INDEX one_successor ON intents (object, instead) WHERE instead IS NOT NULL;`,

	// Directories: where a key package is published or on its way to, who holds which lease, and
	// the token by which a directory knows a client.
	`ALTER TABLE key_packages ADD COLUMN directory TEXT;
	ALTER TABLE key_packages ADD COLUMN leased_until INTEGER;
	CREATE INDEX on_their_way ON key_packages (identity, directory) WHERE state = 'pending' AND directory IS NOT NULL;
	CREATE TABLE leases (
		name   TEXT    PRIMARY KEY,
		holder TEXT    NOT NULL,
		until  INTEGER NOT NULL
	) STRICT;
	CREATE TABLE accounts (
		id           INTEGER PRIMARY KEY,
		identity     INTEGER NOT NULL REFERENCES identities (id),
		directory    TEXT    NOT NULL,
		client       BLOB    NOT NULL,
		wrapping_key BLOB    NOT NULL,
		sealed       BLOB    NOT NULL,
		created_at   INTEGER NOT NULL,
		UNIQUE (directory, client)
	) STRICT;
	CREATE INDEX accounts_under ON accounts (wrapping_key);`,

	// Private keys that are released to devices.
	`ALTER TABLE key_packages ADD COLUMN release_digest BLOB;
	ALTER TABLE key_packages ADD COLUMN handed_over_at INTEGER;
	ALTER TABLE key_packages ADD COLUMN confirmed_at INTEGER;
	CREATE INDEX unconfirmed ON key_packages (id) WHERE release_digest IS NOT NULL AND sealed <> x'';`,

	// The custody that the key packages of an identity are to have, before it has any.
	`ALTER TABLE identities ADD COLUMN custody TEXT NOT NULL DEFAULT '';`,
}

// recognize refuses another program's database. It looks before a connection with the store's
// settings is opened, which would write them into the file.
func recognize(ctx context.Context, path string, busyTimeout time.Duration) error {
	name := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: url.Values{
		"mode":          {"rw"},
		"_busy_timeout": {fmt.Sprint(busyTimeout.Milliseconds())},
	}.Encode()}
	db := sql.OpenDB(&connector{name: name.String()})
	defer db.Close()
	var application, objects int
	err := db.QueryRowContext(ctx, "SELECT application_id, (SELECT count(*) FROM sqlite_schema) FROM pragma_application_id").Scan(&application, &objects)
	if err == nil && application != applicationID && (application != 0 || objects != 0) {
		err = fmt.Errorf("%w: another program's database", store.ErrDamaged)
	}
	return err
}

// migrate brings the schema up to date, each step in its own transaction. It only reads a schema
// that is, so that nobody waits for a writer.
func migrate(ctx context.Context, db *sql.DB) error {
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version > len(migrations):
		return &store.SchemaError{Have: version, Known: len(migrations)}
	case version == len(migrations):
		return nil
	}
	for {
		done, err := migrateOnce(ctx, db)
		if err != nil || done {
			return err
		}
	}
}

// migrateOnce applies the next migration. It reads the version inside the transaction, so that two
// processes do not apply the same one.
func migrateOnce(ctx context.Context, db *sql.DB) (done bool, err error) {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	defer tx.Rollback()
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return false, err
	}
	switch {
	case version > len(migrations):
		return false, &store.SchemaError{Have: version, Known: len(migrations)}
	case version == len(migrations):
		return true, nil
	}
	if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
		return false, fmt.Errorf("migrate schema to version %d: %w", version+1, err)
	}
	_, err = tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d; PRAGMA application_id = %d", version+1, applicationID))
	if err != nil {
		return false, err
	}
	return false, tx.Commit()
}
