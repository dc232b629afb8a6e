package sqlstore

// Layout says, in SQL, where a backend keeps key packages.
type Layout struct {
	// Contents is the table that has the private keys of key packages, and their wrapping
	// keys, by the ids of key_packages.
	Contents string
	// HasKeys is the condition of rows of Contents that have private keys. An index has the
	// same one.
	HasKeys string
	// Lagging is FROM with key_packages k, and the backlogs that their rows have still to
	// follow: r, which retires them, and e, which erases their private keys.
	Lagging string
}

// RetirableStates are those that store.Retire leads from, but for reserved.
const RetirableStates = "'pending', 'available', 'published', 'claimed'"

// State is the state of a key package k by its row and its backlogs, as record.Row.Ahead has it.
// It goes with Lagging.
func (l *Layout) State() string {
	return `CASE WHEN k.state IN ('consumed', 'erased') THEN k.state WHEN e.id IS NOT NULL AND ` + l.HasKeys + ` THEN 'erased'
	WHEN r.id IS NOT NULL AND k.state IN (` + RetirableStates + `) THEN 'retired' ELSE k.state END`
}

// countDependents counts the key packages with private keys under the wrapping key $1, and the
// identities with stamps of it.
func (l *Layout) countDependents() string {
	return `SELECT
	(SELECT count(*) FROM ` + l.Contents + ` WHERE ` + l.HasKeys + ` AND wrapping_key = (SELECT id FROM wrapping_keys WHERE key_id = $1 AND NOT condemned)),
	(SELECT count(*) FROM identities WHERE stamp_key = $1) + (SELECT count(*) FROM identity_versions WHERE stamp_key = $1)`
}

// countSignedBy counts the key packages that the signature key $1 of the token $2 signed, and that
// may still be used.
func (l *Layout) countSignedBy() string {
	return `SELECT count(*) FROM key_packages k JOIN (
			SELECT id AS identity, version, key_id, token_serial FROM identities
			UNION ALL SELECT identity, version, key_id, token_serial FROM identity_versions
		) v ON v.identity = k.identity AND v.version = k.version
		WHERE v.key_id = $1 AND v.token_serial = $2 AND k.state NOT IN ('consumed', 'erased')
			AND NOT EXISTS (SELECT 1 FROM ` + l.Contents + ` WHERE id = k.id AND ` + l.HasKeys + ` AND wrapping_key IN (
				SELECT wrapping_key FROM backlogs WHERE finished_at IS NULL AND wrapping_key IS NOT NULL))`
}
