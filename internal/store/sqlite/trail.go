package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

const insertEntry = "INSERT INTO audit (sequence, key_package, entry, hash) VALUES (?, ?, ?, ?)"

// head is where the trail ends.
type head struct {
	next uint64
	hash audit.Hash
}

// record adds an entry to the trail. keyPackage is the row of the key package that it
// is about, or 0.
func (tx *transaction) record(ctx context.Context, keyPackage int64, e audit.Entry) error {
	if tx.head == nil {
		h, err := readHead(ctx, tx)
		if err != nil {
			return err
		}
		tx.head = &h
	}
	e.Sequence = tx.head.next
	if e.Actor == "" {
		e.Actor = tx.actor
	}
	if err := e.Check(); err != nil {
		return fmt.Errorf("add to the audit trail: %w", err)
	}
	entry := e.Bytes()
	hash := audit.Chain(tx.head.hash, entry)
	if tx.append == nil {
		tx.append = tx.StmtContext(ctx, tx.store.append) // it ends with the transaction
	}
	_, err := tx.append.ExecContext(ctx, e.Sequence, sql.NullInt64{Int64: keyPackage, Valid: keyPackage != 0}, entry, hash[:])
	if err != nil {
		return fmt.Errorf("add to the audit trail: %w", err)
	}
	tx.head.next, tx.head.hash = tx.head.next+1, hash
	return nil
}

func readHead(ctx context.Context, tx *transaction) (head, error) {
	var last uint64
	var hash []byte
	err := tx.QueryRowContext(ctx, "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").Scan(&last, &hash)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return head{}, nil
	case err != nil:
		return head{}, fmt.Errorf("read the audit trail: %w", err)
	case len(hash) != len(audit.Hash{}):
		return head{}, fmt.Errorf("read the audit trail: entry %d: %w", last, store.ErrDamaged)
	}
	return head{last + 1, audit.Hash(hash)}, nil
}

// Record implements store.Store. Those that come while others are being written share the next
// commit.
func (s *Store) Record(ctx context.Context, entries ...audit.Entry) error {
	if err := ctx.Err(); err != nil || len(entries) == 0 {
		return err
	}
	entries, err := record.By(store.Actor(ctx), entries)
	if err != nil {
		return err
	}
	return s.share(ctx, func(ctx context.Context, tx *transaction) error {
		for _, e := range entries {
			if err := tx.recordOne(ctx, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// recordOne adds an entry, under the key package that it is about where there is one.
func (tx *transaction) recordOne(ctx context.Context, e audit.Entry) error {
	var row int64
	if len(e.Ref) > 0 {
		err := tx.QueryRowContext(ctx, "SELECT id FROM key_packages WHERE ref = ?", e.Ref).Scan(&row)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
	}
	return tx.record(ctx, row, e)
}

// numbered is an entry with its row, and whether the row names a key package, which there
// may be no more.
type numbered struct {
	sequence uint64
	filed    bool
	audit.Stored
}

func scanEntry(s scanner) (n numbered, err error) {
	var hash []byte
	if err := s.Scan(&n.sequence, &n.Bytes, &hash, &n.filed, &n.Ref); err != nil {
		return n, translate(err)
	}
	copy(n.Hash[:], hash) // one of another length fits no entry
	n.Ref = blob(n.Ref)
	return n, nil
}

// Entries implements store.Store.
func (s *Store) Entries(ctx context.Context, from uint64) iter.Seq2[audit.Stored, error] {
	return s.entries(ctx, "a.sequence >= @from", from)
}

// EntriesOf implements store.Store.
func (s *Store) EntriesOf(ctx context.Context, ref []byte) iter.Seq2[audit.Stored, error] {
	return s.entries(ctx, "a.key_package = (SELECT id FROM key_packages WHERE ref = @ref) AND a.sequence >= @from", 0, sql.Named("ref", ref))
}

func (s *Store) entries(ctx context.Context, condition string, from uint64, args ...any) iter.Seq2[audit.Stored, error] {
	text := `SELECT a.sequence, a.entry, a.hash, a.key_package IS NOT NULL, k.ref FROM audit a LEFT JOIN key_packages k ON k.id = a.key_package
		WHERE ` + condition + " ORDER BY a.sequence LIMIT @page"
	return func(yield func(audit.Stored, error) bool) {
		for from := from; ; { // whoever ranges again begins again
			rows, err := query(ctx, s.db, scanEntry, text, append(args[:len(args):len(args)], sql.Named("from", from), sql.Named("page", page))...)
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
	var known bool
	if err := s.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM key_packages WHERE ref = ?)", e.Ref).Scan(&known); err != nil {
		return translate(err)
	}
	if !known {
		n.Ref = e.Ref
	}
	return nil
}

// AddCheckpoint implements store.Store.
func (s *Store) AddCheckpoint(ctx context.Context, c store.Checkpoint) error {
	_, err := s.w.ExecContext(ctx, "INSERT OR IGNORE INTO checkpoints (size, note, created_at) VALUES (?, ?, ?)", c.Size, blob(c.Note), seconds(c.CreatedAt))
	return translate(err)
}

// Checkpoints implements store.Store.
func (s *Store) Checkpoints(ctx context.Context) ([]store.Checkpoint, error) {
	return query(ctx, s.db, func(s scanner) (c store.Checkpoint, err error) {
		var created int64
		err = s.Scan(&c.Size, &c.Note, &created)
		c.CreatedAt = date(created)
		return c, translate(err)
	}, "SELECT size, note, created_at FROM checkpoints ORDER BY size")
}

// AddAuditKey implements store.Store.
func (s *Store) AddAuditKey(ctx context.Context, k store.AuditKey) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		if err := tx.succeeds(ctx, k.KeyID); err != nil {
			return err
		}
		var before []byte
		if err := tx.QueryRowContext(ctx, currentOf[store.ObjectAuditKey]).Scan(&before); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO audit_keys (key_id, label, token_serial, origin, verifier_key, created_at) VALUES (?, ?, ?, ?, ?, ?)",
			blob(k.KeyID), k.Label, k.TokenSerial, k.Origin, k.VerifierKey, seconds(k.CreatedAt))
		if err != nil {
			return err
		}
		if err := tx.made(ctx, k.KeyID); err != nil {
			return err
		}
		err = tx.record(ctx, 0, audit.Entry{Time: k.CreatedAt, Act: audit.Created, KeyID: k.KeyID, Detail: audit.KeyDetail(k.VerifierKey)})
		if err != nil || before == nil {
			return err
		}
		return tx.record(ctx, 0, audit.Entry{Time: k.CreatedAt, Act: audit.Rotated, KeyID: k.KeyID, Detail: fmt.Sprintf("audit key, in the place of %x", before)})
	})
}

// AuditKeys implements store.Store.
func (s *Store) AuditKeys(ctx context.Context) ([]store.AuditKey, error) {
	return query(ctx, s.db, func(s scanner) (k store.AuditKey, err error) {
		var created int64
		err = s.Scan(&k.KeyID, &k.Label, &k.TokenSerial, &k.Origin, &k.VerifierKey, &created)
		k.CreatedAt = date(created)
		return k, translate(err)
	}, "SELECT key_id, label, token_serial, origin, verifier_key, created_at FROM audit_keys ORDER BY id")
}
