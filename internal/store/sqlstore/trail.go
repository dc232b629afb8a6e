package sqlstore

import (
	"context"
	"fmt"
	"iter"
	"math"
	"strconv"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// numbered is an entry with its number, and whether it is filed under a key package, which may be
// gone.
type numbered struct {
	sequence int64
	filed    bool
	audit.Stored
}

func scanEntry(row Scanner) (n numbered, err error) {
	var hash []byte
	err = row.Scan(&n.sequence, &n.Bytes, &hash, &n.filed, &n.Ref)
	copy(n.Hash[:], hash) // one of another length fits no entry
	n.Ref = Blob(n.Ref)
	return n, err
}

// Entries implements store.Store.
func (a *Acts) Entries(ctx context.Context, from uint64) iter.Seq2[audit.Stored, error] {
	return a.entries(ctx, "a.sequence >= $1", int64(min(from, math.MaxInt64)))
}

// EntriesOf implements store.Store.
func (a *Acts) EntriesOf(ctx context.Context, ref []byte) iter.Seq2[audit.Stored, error] {
	return a.entries(ctx, "a.key_package = (SELECT id FROM "+a.layout.Contents+" WHERE ref = $1) AND a.sequence >= $2", 0, ref)
}

// entries yields the entries that fit a condition, whose last argument is the number of the first.
func (a *Acts) entries(ctx context.Context, condition string, from int64, args ...any) iter.Seq2[audit.Stored, error] {
	text := "SELECT a.sequence, a.entry, a.hash, a.key_package IS NOT NULL, k.ref FROM audit a LEFT JOIN " + a.layout.Contents + ` k ON k.id = a.key_package
		WHERE ` + condition + " ORDER BY a.sequence LIMIT " + strconv.Itoa(Page)
	return func(yield func(audit.Stored, error) bool) {
		for from := from; ; { // each range over it begins anew
			rows, err := ReadAll(ctx, a.db, scanEntry, text, append(args[:len(args):len(args)], from)...)
			if err == nil && len(rows) < Page {
				err = a.db.Durable(ctx) // a crash does not take back what the caller has copied
			}
			if err != nil {
				yield(audit.Stored{}, err)
				return
			}
			for i := range rows {
				err := a.file(ctx, &rows[i])
				if !yield(rows[i].Stored, err) || err != nil {
					return
				}
			}
			if len(rows) < Page {
				return
			}
			from = rows[len(rows)-1].sequence + 1
		}
	}
}

// file gives an entry that is filed under no key package the ref that it names, if the store has no
// such key package: then the entry is where it should be.
func (a *Acts) file(ctx context.Context, n *numbered) error {
	if n.filed {
		return nil
	}
	e, err := audit.ParseEntry(n.Bytes)
	if err != nil || len(e.Ref) == 0 {
		return nil // the store does not judge whether it is an entry
	}
	known, err := ReadOne(ctx, a.db, Value[bool], "SELECT EXISTS (SELECT 1 FROM "+a.layout.Contents+" WHERE ref = $1)", e.Ref)
	if err == nil && !known {
		n.Ref = e.Ref
	}
	return err
}

// AddCheckpoint implements store.Store.
func (a *Acts) AddCheckpoint(ctx context.Context, c store.Checkpoint) error {
	return a.db.Concurrent(ctx, func(ctx context.Context, tx Tx) error {
		_, err := tx.Change(ctx, "INSERT INTO checkpoints (size, note, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
			c.Size, Blob(c.Note), Seconds(c.CreatedAt))
		return err
	})
}

// Checkpoints implements store.Store.
func (a *Acts) Checkpoints(ctx context.Context) ([]store.Checkpoint, error) {
	return ReadAll(ctx, a.db, func(row Scanner) (c store.Checkpoint, err error) {
		var created int64
		err = row.Scan(&c.Size, &c.Note, &created)
		c.CreatedAt = Date(created)
		return c, err
	}, "SELECT size, note, created_at FROM checkpoints ORDER BY size")
}

// AddAuditKey implements store.Store.
func (a *Acts) AddAuditKey(ctx context.Context, k store.AuditKey) error {
	return a.db.Exclusive(ctx, func(ctx context.Context, tx Tx) error {
		if err := succeeds(ctx, tx, k.KeyID); err != nil {
			return err
		}
		before, err := currentKey(ctx, tx, store.ObjectAuditKey)
		if err != nil {
			return err
		}
		_, err = tx.Change(ctx, "INSERT INTO audit_keys (key_id, label, token_serial, origin, verifier_key, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
			Blob(k.KeyID), k.Label, k.TokenSerial, k.Origin, k.VerifierKey, Seconds(k.CreatedAt))
		if err != nil {
			return err
		}
		if err := made(ctx, tx, k.KeyID); err != nil {
			return err
		}
		err = tx.Record(ctx, 0, audit.Entry{Time: k.CreatedAt, Act: audit.Created, KeyID: k.KeyID, Detail: audit.KeyDetail(k.VerifierKey)})
		if err != nil || before == nil {
			return err
		}
		return tx.Record(ctx, 0, audit.Entry{Time: k.CreatedAt, Act: audit.Rotated, KeyID: k.KeyID, Detail: fmt.Sprintf("audit key, in the place of %x", before)})
	})
}

// AuditKeys implements store.Store.
func (a *Acts) AuditKeys(ctx context.Context) ([]store.AuditKey, error) {
	return ReadAll(ctx, a.db, func(row Scanner) (k store.AuditKey, err error) {
		var created int64
		err = row.Scan(&k.KeyID, &k.Label, &k.TokenSerial, &k.Origin, &k.VerifierKey, &created)
		k.CreatedAt = Date(created)
		return k, err
	}, "SELECT key_id, label, token_serial, origin, verifier_key, created_at FROM audit_keys ORDER BY id")
}
