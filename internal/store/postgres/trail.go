package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"math"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// record adds an entry to the trail at the end of the transaction. keyPackage is the row of
// the key package that it is about, or 0.
func (tx *transaction) record(keyPackage int64, e audit.Entry) error {
	if e.Actor == "" {
		e.Actor = tx.actor
	}
	if err := e.Check(); err != nil {
		return fmt.Errorf("add to the audit trail: %w", err)
	}
	tx.entries = append(tx.entries, numberedEntry{keyPackage, e})
	return nil
}

// end is where the trail ends.
type end struct {
	sequence int64
	hash     []byte
	taken    bool
}

// takeEnd takes the end of the trail, later, and reads it and the id of the transaction. From
// then to the commit no other transaction ends: the hash of each entry is over the one before it.
// A transaction that will have no entry needs no id, unless it has one.
func (tx *transaction) takeEnd(entries bool) {
	id := "SELECT coalesce(pg_current_xact_id_if_assigned(), '0')::text"
	if entries {
		id = "SELECT pg_current_xact_id()::text"
	}
	tx.trail.taken = true
	tx.later(id).QueryRow(func(r pgx.Row) error { return r.Scan(&tx.id) })
	tx.later("SELECT pg_advisory_xact_lock($1)", lockTrail)
	tx.later("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").QueryRow(func(r pgx.Row) error {
		err := r.Scan(&tx.trail.sequence, &tx.trail.hash)
		if errors.Is(err, pgx.ErrNoRows) {
			tx.trail.sequence, tx.trail.hash, err = -1, make([]byte, len(audit.Hash{})), nil
		}
		return err
	})
}

// chain appends the entries of a transaction to the trail, with its COMMIT.
func (tx *transaction) chain(ctx context.Context) error {
	switch {
	case tx.trail.taken:
	case len(tx.entries) > 0:
		tx.takeEnd(true)
	default:
		tx.later("SELECT coalesce(pg_current_xact_id_if_assigned(), '0')::text").QueryRow(func(r pgx.Row) error { return r.Scan(&tx.id) })
	}
	if err := tx.flush(ctx); err != nil || len(tx.entries) == 0 {
		return err
	}
	if len(tx.trail.hash) != len(audit.Hash{}) {
		return fmt.Errorf("read the audit trail: entry %d: %w", tx.trail.sequence, store.ErrDamaged)
	}
	n, last := len(tx.entries), audit.Hash(tx.trail.hash)
	sequences, rows, entries, hashes, marks := make([]int64, n), make([]*int64, n), make([][]byte, n), make([][]byte, n), make([][]byte, n)
	for i := range tx.entries {
		e := &tx.entries[i]
		sequences[i] = tx.trail.sequence + 1 + int64(i)
		e.Sequence = uint64(sequences[i])
		entries[i] = e.Entry.Bytes()
		last = audit.Chain(last, entries[i])
		hashes[i] = bytes.Clone(last[:])
		if e.keyPackage != 0 {
			rows[i] = &e.keyPackage
		}
	}
	tx.mark = &mark{sequences[n-1], make([]byte, 16)}
	rand.Read(tx.mark.random)
	marks[n-1] = tx.mark.random
	tx.later(`INSERT INTO audit (sequence, key_package, entry, hash, mark)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[])`, sequences, rows, entries, hashes, marks)
	return nil
}

// numbered is an entry with its row, and whether the row names a key package, which there
// may be no more.
type numbered struct {
	sequence int64
	filed    bool
	audit.Stored
}

func scanEntry(s scanner) (n numbered, err error) {
	var hash []byte
	if err := s.Scan(&n.sequence, &n.Bytes, &hash, &n.filed, &n.Ref); err != nil {
		return n, err
	}
	copy(n.Hash[:], hash) // one of another length fits no entry
	n.Ref = blob(n.Ref)
	return n, nil
}

// Entries implements store.Store.
func (s *Store) Entries(ctx context.Context, from uint64) iter.Seq2[audit.Stored, error] {
	return s.entries(ctx, "a.sequence >= @from", from, nil)
}

// EntriesOf implements store.Store.
func (s *Store) EntriesOf(ctx context.Context, ref []byte) iter.Seq2[audit.Stored, error] {
	return s.entries(ctx, "a.key_package = (SELECT id FROM contents WHERE ref = @ref) AND a.sequence >= @from", 0, ref)
}

func (s *Store) entries(ctx context.Context, condition string, from uint64, ref []byte) iter.Seq2[audit.Stored, error] {
	text := `SELECT a.sequence, a.entry, a.hash, a.key_package IS NOT NULL, k.ref FROM audit a LEFT JOIN contents k ON k.id = a.key_package
		WHERE ` + condition + " ORDER BY a.sequence LIMIT @page"
	return func(yield func(audit.Stored, error) bool) {
		for from := int64(min(from, math.MaxInt64)); ; { // whoever ranges again begins again
			rows, err := readAll(ctx, s, scanEntry, text, pgx.NamedArgs{"ref": ref, "from": from, "page": page})
			if err == nil && len(rows) < page {
				err = s.waitForDisk(ctx) // whoever keeps a copy has none that a crash takes back
			}
			if err != nil {
				yield(audit.Stored{}, err)
				return
			}
			for i := range rows {
				err := s.unfiled(ctx, &rows[i])
				if !yield(rows[i].Stored, err) || err != nil {
					return
				}
			}
			if len(rows) < page {
				return
			}
			from = rows[len(rows)-1].sequence + 1
		}
	}
}

// unfiled looks at an entry that is under no key package. One about a key package that the
// store does not have is where it should be.
func (s *Store) unfiled(ctx context.Context, n *numbered) error {
	if n.filed {
		return nil
	}
	e, err := audit.ParseEntry(n.Bytes)
	if err != nil || len(e.Ref) == 0 {
		return nil // whether it is an entry is not for the store to say
	}
	known, err := readOne(ctx, s, value[bool], "SELECT EXISTS (SELECT 1 FROM contents WHERE ref = $1)", e.Ref)
	if err == nil && !known {
		n.Ref = e.Ref
	}
	return err
}

// AddCheckpoint implements store.Store.
func (s *Store) AddCheckpoint(ctx context.Context, c store.Checkpoint) error {
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		_, err := tx.change(ctx, "INSERT INTO checkpoints (size, note, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
			c.Size, blob(c.Note), seconds(c.CreatedAt))
		return err
	})
}

// Checkpoints implements store.Store.
func (s *Store) Checkpoints(ctx context.Context) ([]store.Checkpoint, error) {
	return readAll(ctx, s, func(s scanner) (c store.Checkpoint, err error) {
		var created int64
		err = s.Scan(&c.Size, &c.Note, &created)
		c.CreatedAt = date(created)
		return c, err
	}, "SELECT size, note, created_at FROM checkpoints ORDER BY size")
}

// AddAuditKey implements store.Store.
func (s *Store) AddAuditKey(ctx context.Context, k store.AuditKey) error {
	return s.write(ctx, alone, func(ctx context.Context, tx *transaction) error {
		if err := tx.succeeds(ctx, k.KeyID); err != nil {
			return err
		}
		before, err := queryOne(ctx, tx, value[[]byte], currentOf[store.ObjectAuditKey])
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		_, err = tx.change(ctx, "INSERT INTO audit_keys (key_id, label, token_serial, origin, verifier_key, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
			blob(k.KeyID), k.Label, k.TokenSerial, k.Origin, k.VerifierKey, seconds(k.CreatedAt))
		if err != nil {
			return err
		}
		if err := tx.made(ctx, k.KeyID); err != nil {
			return err
		}
		err = tx.record(0, audit.Entry{Time: k.CreatedAt, Act: audit.Created, KeyID: k.KeyID, Detail: audit.KeyDetail(k.VerifierKey)})
		if err != nil || before == nil {
			return err
		}
		return tx.record(0, audit.Entry{Time: k.CreatedAt, Act: audit.Rotated, KeyID: k.KeyID, Detail: fmt.Sprintf("audit key, in the place of %x", before)})
	})
}

// AuditKeys implements store.Store.
func (s *Store) AuditKeys(ctx context.Context) ([]store.AuditKey, error) {
	return readAll(ctx, s, func(s scanner) (k store.AuditKey, err error) {
		var created int64
		err = s.Scan(&k.KeyID, &k.Label, &k.TokenSerial, &k.Origin, &k.VerifierKey, &created)
		k.CreatedAt = date(created)
		return k, err
	}, "SELECT key_id, label, token_serial, origin, verifier_key, created_at FROM audit_keys ORDER BY id")
}
