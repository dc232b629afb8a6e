package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

const insertEntry = "INSERT INTO audit (sequence, key_package, entry, hash) VALUES (?, ?, ?, ?)"

// Record implements sqlstore.Tx.
func (tx *transaction) Record(ctx context.Context, keyPackage int64, e audit.Entry) error {
	if tx.trail == nil {
		last, err := tx.readEnd(ctx)
		if err != nil {
			return err
		}
		tx.trail = &last
	}
	e.Sequence = tx.trail.next
	if e.Actor == "" {
		e.Actor = tx.actor
	}
	if err := e.Check(); err != nil {
		return fmt.Errorf("add to the audit trail: %w", err)
	}
	entry := e.Bytes()
	hash := audit.Chain(tx.trail.hash, entry)
	if tx.append == nil {
		tx.append = tx.tx.StmtContext(ctx, tx.store.append) // it ends with the transaction
	}
	_, err := tx.append.ExecContext(ctx, e.Sequence, sql.NullInt64{Int64: keyPackage, Valid: keyPackage != 0}, entry, hash[:])
	if err != nil {
		return fmt.Errorf("add to the audit trail: %w", err)
	}
	tx.trail.next, tx.trail.hash = tx.trail.next+1, hash
	return nil
}

// end is where the trail ends.
type end struct {
	next uint64
	hash audit.Hash
}

func (tx *transaction) readEnd(ctx context.Context) (end, error) {
	var last uint64
	var hash []byte
	err := tx.tx.QueryRowContext(ctx, "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").Scan(&last, &hash)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return end{}, nil
	case err != nil:
		return end{}, fmt.Errorf("read the audit trail: %w", err)
	case len(hash) != len(audit.Hash{}):
		return end{}, fmt.Errorf("read the audit trail: entry %d: %w", last, store.ErrDamaged)
	}
	return end{last + 1, audit.Hash(hash)}, nil
}

// Record implements store.Store. Entries that come while others are being written share the next
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

// recordOne adds an entry, filed under the key package that it is about if there is one.
func (tx *transaction) recordOne(ctx context.Context, e audit.Entry) error {
	var row int64
	if len(e.Ref) > 0 {
		var err error
		row, err = sqlstore.One(ctx, tx, sqlstore.Value[int64], "SELECT id FROM key_packages WHERE ref = ?", e.Ref)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return tx.Record(ctx, row, e)
}
