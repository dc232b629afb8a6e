package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Record implements sqlstore.Tx. The entry is added at the end of the transaction.
func (tx *transaction) Record(_ context.Context, keyPackage int64, e audit.Entry) error {
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

// takeEnd queues the statements that lock the end of the trail, and read it and the id of the
// transaction. From then to the commit no other transaction ends, because the hash of each entry
// covers the one before it. A transaction without an entry needs no id unless it has one already.
func (tx *transaction) takeEnd(entries bool) {
	id := "SELECT coalesce(pg_current_xact_id_if_assigned(), '0')::text"
	if entries {
		id = "SELECT pg_current_xact_id()::text"
	}
	tx.trail.taken = true
	tx.queue(id).QueryRow(func(r pgx.Row) error { return r.Scan(&tx.id) })
	tx.queue("SELECT pg_advisory_xact_lock($1)", lockTrail)
	tx.queue("SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1").QueryRow(func(r pgx.Row) error {
		err := r.Scan(&tx.trail.sequence, &tx.trail.hash)
		if errors.Is(err, pgx.ErrNoRows) {
			tx.trail.sequence, tx.trail.hash, err = -1, make([]byte, len(audit.Hash{})), nil
		}
		return err
	})
}

// chain queues the entries of a transaction, to be added to the trail with COMMIT.
func (tx *transaction) chain(ctx context.Context) error {
	switch {
	case tx.trail.taken:
	case len(tx.entries) > 0:
		tx.takeEnd(true)
	default:
		tx.queue("SELECT coalesce(pg_current_xact_id_if_assigned(), '0')::text").QueryRow(func(r pgx.Row) error { return r.Scan(&tx.id) })
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
	tx.queue(`INSERT INTO audit (sequence, key_package, entry, hash, mark)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[])`, sequences, rows, entries, hashes, marks)
	return nil
}
