CREATE TABLE accounts ( id INTEGER PRIMARY KEY, identity INTEGER NOT NULL REFERENCES identities (id), directory TEXT NOT NULL, client BLOB NOT NULL, wrapping_key BLOB NOT NULL, sealed BLOB NOT NULL, created_at INTEGER NOT NULL, UNIQUE (directory, client) ) STRICT
CREATE INDEX accounts_under ON accounts (wrapping_key)
CREATE TABLE audit ( sequence INTEGER PRIMARY KEY, key_package INTEGER, entry BLOB NOT NULL, hash BLOB NOT NULL ) STRICT
CREATE TABLE audit_keys ( id INTEGER PRIMARY KEY, key_id BLOB NOT NULL UNIQUE, label TEXT NOT NULL, token_serial TEXT NOT NULL, origin TEXT NOT NULL, verifier_key TEXT NOT NULL, created_at INTEGER NOT NULL ) STRICT
CREATE INDEX audit_of_key_packages ON audit (key_package) WHERE key_package IS NOT NULL
CREATE TABLE backlogs ( id INTEGER PRIMARY KEY, identity INTEGER REFERENCES identities (id), before INTEGER, last INTEGER, until INTEGER, wrapping_key INTEGER UNIQUE REFERENCES wrapping_keys (id), begun_at INTEGER NOT NULL, moved INTEGER NOT NULL DEFAULT 0, finished_at INTEGER ) STRICT
CREATE TABLE checkpoints ( size INTEGER PRIMARY KEY, note BLOB NOT NULL, created_at INTEGER NOT NULL ) STRICT
CREATE INDEX claimable ON key_packages (identity, version, wrapping_key) WHERE state = 'available'
CREATE TABLE identities ( id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, cipher_suite INTEGER NOT NULL, credential BLOB NOT NULL, signature_key BLOB NOT NULL, key_id BLOB NOT NULL, key_label TEXT NOT NULL, token_serial TEXT NOT NULL, created_at INTEGER NOT NULL , weak_key INTEGER NOT NULL DEFAULT 0, stamp BLOB NOT NULL DEFAULT x'', version INTEGER NOT NULL DEFAULT 1, stamp_key BLOB NOT NULL DEFAULT x'', retired_at INTEGER, destroyed_at INTEGER) STRICT
CREATE TABLE identity_versions ( id INTEGER PRIMARY KEY, identity INTEGER NOT NULL REFERENCES identities (id), version INTEGER NOT NULL, state TEXT NOT NULL, cipher_suite INTEGER NOT NULL, credential BLOB NOT NULL, signature_key BLOB NOT NULL, key_id BLOB NOT NULL, key_label TEXT NOT NULL, token_serial TEXT NOT NULL, weak_key INTEGER NOT NULL, stamp BLOB NOT NULL, stamp_key BLOB NOT NULL, created_at INTEGER NOT NULL, retired_at INTEGER, destroyed_at INTEGER, UNIQUE (identity, version) ) STRICT
CREATE TABLE intents ( id INTEGER PRIMARY KEY, key_id BLOB NOT NULL UNIQUE, object TEXT NOT NULL, token_serial TEXT NOT NULL, destroy INTEGER NOT NULL, stamp BLOB NOT NULL, created_at INTEGER NOT NULL , instead BLOB) STRICT
CREATE TABLE key_packages ( id INTEGER PRIMARY KEY, ref BLOB NOT NULL UNIQUE, identity INTEGER NOT NULL REFERENCES identities (id), cipher_suite INTEGER NOT NULL, state TEXT NOT NULL, last_resort INTEGER NOT NULL, custody TEXT NOT NULL, wrapping_key INTEGER NOT NULL REFERENCES wrapping_keys (id), sealed BLOB NOT NULL, public BLOB NOT NULL, created_at INTEGER NOT NULL, not_before INTEGER NOT NULL, not_after INTEGER NOT NULL, published_at INTEGER , welcome_digest BLOB, reserved_from TEXT, reserved_until INTEGER, consumed_at INTEGER, opened INTEGER NOT NULL DEFAULT 0, version INTEGER NOT NULL DEFAULT 1, leaf BLOB NOT NULL DEFAULT x'', claimed_at INTEGER, retired_until INTEGER, erased_at INTEGER, directory TEXT, leased_until INTEGER) STRICT
CREATE INDEX key_packages_by_identity ON key_packages (identity, state)
CREATE INDEX key_packages_under ON key_packages (wrapping_key) WHERE sealed <> x'' OR leaf <> x''
CREATE INDEX last_resorts ON key_packages (identity) WHERE last_resort = 1
CREATE TABLE leases ( name TEXT PRIMARY KEY, holder TEXT NOT NULL, until INTEGER NOT NULL ) STRICT
CREATE INDEX lifetimes_ending ON key_packages (state, not_after) WHERE consumed_at IS NULL AND erased_at IS NULL
CREATE INDEX on_their_way ON key_packages (identity, directory) WHERE state = 'pending' AND directory IS NOT NULL
CREATE UNIQUE INDEX one_current_wrapping_key ON wrapping_keys (purpose) WHERE current = 1
CREATE UNIQUE INDEX one_next_version ON identity_versions (identity) WHERE state = 'next'
CREATE UNIQUE INDEX one_successor ON intents (object, instead) WHERE instead IS NOT NULL
CREATE INDEX reservations_ending ON key_packages (reserved_until) WHERE state = 'reserved'
CREATE INDEX retirements_ending ON key_packages (retired_until) WHERE state = 'retired'
CREATE INDEX unfinished_backlogs ON backlogs (identity) WHERE finished_at IS NULL
CREATE TABLE wrapping_keys ( id INTEGER PRIMARY KEY, key_id BLOB NOT NULL UNIQUE, label TEXT NOT NULL, token_serial TEXT NOT NULL, current INTEGER NOT NULL, uses INTEGER NOT NULL DEFAULT 0, created_at INTEGER NOT NULL , stamp BLOB NOT NULL DEFAULT x'', purpose TEXT NOT NULL DEFAULT 'seal', condemned INTEGER NOT NULL DEFAULT 0, superseded_at INTEGER, destroyed_at INTEGER) STRICT
