package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/audit"
	"github.com/hsm-kp/hsm-kp/store"
)

// sweepBatch is how many rows one transaction of a sweep changes: others write in
// between.
const sweepBatch = 2000

// sweepable are rows for which the time has come. Each part is found by an index of its
// own, so that a sweep costs what it does, whatever the store has.
const sweepable = selectKeyPackage + ` WHERE k.id IN (
	SELECT id FROM key_packages WHERE state = 'reserved' AND reserved_until <= @now
	UNION ALL SELECT id FROM key_packages WHERE state IN ('pending', 'available', 'published', 'claimed') AND not_after < @now
		AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'expired' AND not_after < @before
		AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'retired' AND retired_until <= @now
	LIMIT @batch)`

// Sweep implements store.Store.
func (s *Store) Sweep(ctx context.Context, now time.Time, grace time.Duration) (store.Swept, error) {
	var swept store.Swept
	for {
		var did store.Swept
		rows := 0
		err := s.write(ctx, func(ctx context.Context, tx *transaction) (err error) {
			did, rows, err = sweepRows(ctx, tx, now, grace)
			return err
		})
		if err != nil {
			return swept, fmt.Errorf("sweep: %w", err)
		}
		swept.Released += did.Released
		swept.Expired += did.Expired
		swept.Erased += did.Erased
		if rows < sweepBatch {
			return swept, nil
		}
	}
}

func sweepRows(ctx context.Context, tx *transaction, now time.Time, grace time.Duration) (did store.Swept, n int, err error) {
	rows, err := queryTx(ctx, tx, scanKeyPackage, sweepable,
		sql.Named("now", seconds(now)), sql.Named("before", seconds(now.Add(-grace))), sql.Named("batch", sweepBatch))
	for i := range rows {
		if err == nil {
			err = sweepRow(ctx, tx, &rows[i], now, grace, &did)
		}
	}
	return did, len(rows), err
}

// sweepRow does what the time has come for, in the order of a life.
func sweepRow(ctx context.Context, tx *transaction, r *row, now time.Time, grace time.Duration, did *store.Swept) error {
	if r.State == store.Reserved {
		if err := release(ctx, tx, r, now); err != nil {
			return err
		}
		r.State = r.reservedFrom
		did.Released++
	}
	over := r.State != store.Retired && r.NotAfter.Before(now)
	if over && r.State != store.Expired {
		if _, err := tx.ExecContext(ctx, "UPDATE key_packages SET state = ? WHERE id = ?", string(store.Expired), r.id); err != nil {
			return err
		}
		if err := tx.record(ctx, r.id, entryOf(&r.KeyPackage, audit.Expired, now)); err != nil {
			return err
		}
		did.Expired++
	}
	if over && r.NotAfter.Add(grace).Before(now) || r.State == store.Retired && !r.RetiredUntil.After(now) {
		did.Erased++
		return erase(ctx, tx, r, now)
	}
	return nil
}

// eraseKeyPackage is the end of a key package that no Welcome was opened with.
const eraseKeyPackage = `UPDATE key_packages SET state = @erased, sealed = x'', leaf = x'', erased_at = @at,
	reserved_from = NULL, reserved_until = NULL WHERE id = @id`

func erase(ctx context.Context, tx *transaction, r *row, at time.Time) error {
	_, err := tx.ExecContext(ctx, eraseKeyPackage, sql.Named("erased", string(store.Erased)), sql.Named("at", seconds(at)), sql.Named("id", r.id))
	if err != nil {
		return err
	}
	return tx.record(ctx, r.id, entryOf(&r.KeyPackage, audit.Erased, at))
}

// Retire implements store.Store.
func (s *Store) Retire(ctx context.Context, refs [][]byte, until, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		for _, ref := range refs {
			r, err := scanKeyPackage(tx.QueryRowContext(ctx, selectKeyPackage+" WHERE k.ref = ?", ref))
			if err == nil && !retirable(&r) {
				err = fmt.Errorf("%w: it is %s", store.ErrState, r.State)
			}
			if err == nil {
				err = retire(ctx, tx, &r, until, at)
			}
			if err != nil {
				return fmt.Errorf("key package %x: %w", ref, err)
			}
		}
		return nil
	})
}

// retireAll retires those that fit a condition and can be retired.
func retireAll(ctx context.Context, tx *transaction, condition string, until, at time.Time, args ...any) (uint64, error) {
	var retired uint64
	_, err := tx.each(ctx, condition+" AND k.state IN ('pending', 'available', 'published', 'claimed', 'reserved')", args, func(r *row) error {
		if !retirable(r) {
			return nil
		}
		retired++
		return retire(ctx, tx, r, until, at)
	})
	return retired, err
}

// each calls f with every key package that fits a condition, and returns how many there
// were. It reads a page at a time, which f may change.
func (tx *transaction) each(ctx context.Context, condition string, args []any, f func(*row) error) (n uint64, err error) {
	text := selectKeyPackage + " WHERE k.id > @after AND " + condition + " ORDER BY k.id LIMIT @page"
	for after := int64(0); ; {
		rows, err := queryTx(ctx, tx, scanKeyPackage, text, append(args[:len(args):len(args)], sql.Named("after", after), sql.Named("page", page))...)
		if err != nil {
			return n, err
		}
		for i := range rows {
			if err := f(&rows[i]); err != nil {
				return n, err
			}
			n++
		}
		if len(rows) < page {
			return n, nil
		}
		after = rows[len(rows)-1].id
	}
}

// retirable reports whether a key package can be retired. Of one that is reserved, what
// it was reserved from counts: an end of its private keys that is set already stays.
func retirable(r *row) bool {
	was := r.State
	if was == store.Reserved {
		was = r.reservedFrom
	}
	return store.Allowed(was, store.Retire, store.Retired)
}

// retiredState is what a key package becomes that is retired: one that is reserved
// stays so until its Welcome is settled.
func retiredState(r *row) store.State {
	if r.State == store.Reserved {
		return store.Reserved
	}
	return store.Retired
}

func retire(ctx context.Context, tx *transaction, r *row, until, at time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE key_packages SET state = ?, retired_until = ?,
		reserved_from = iif(state = 'reserved', ?, NULL) WHERE id = ?`,
		string(retiredState(r)), seconds(until), string(store.Retired), r.id)
	if err != nil {
		return err
	}
	return tx.record(ctx, r.id, entryOf(&r.KeyPackage, audit.Retired, at))
}

// count returns how many rows a statement changed.
func count(result sql.Result, err error) (uint64, error) {
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	return uint64(n), err
}
