package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
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
	var err error
	if swept.Finished, err = s.finishBacklogs(ctx, now); err != nil {
		return swept, fmt.Errorf("sweep: %w", err)
	}
	for {
		var did store.Swept
		var start time.Time
		rows := 0
		err := s.write(ctx, func(ctx context.Context, tx *transaction) (err error) {
			start = time.Now()
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
		rest(ctx, time.Since(start))
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
	if err := tx.catchUp(ctx, r, now); err != nil || r.State == store.Erased || r.State == store.Consumed {
		return err
	}
	if r.Ends(now) {
		if err := release(ctx, tx, r, now); err != nil {
			return err
		}
		r.State = r.ReservedFrom
		did.Released++
	}
	if r.Expires(now) {
		if _, err := tx.ExecContext(ctx, "UPDATE key_packages SET state = ? WHERE id = ?", string(store.Expired), r.ID); err != nil {
			return err
		}
		if err := tx.record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Expired, now)); err != nil {
			return err
		}
		r.State = store.Expired
		did.Expired++
	}
	if r.GraceOver(now, grace) {
		did.Erased++
		return erase(ctx, tx, r, now)
	}
	return nil
}

// eraseKeyPackage is the end of a key package that no Welcome was opened with.
const eraseKeyPackage = `UPDATE key_packages SET state = @erased, sealed = x'', leaf = x'', erased_at = @at,
	reserved_from = NULL, reserved_until = NULL WHERE id = @id`

func erase(ctx context.Context, tx *transaction, r *row, at time.Time) error {
	_, err := tx.ExecContext(ctx, eraseKeyPackage, sql.Named("erased", string(store.Erased)), sql.Named("at", seconds(at)), sql.Named("id", r.ID))
	if err != nil {
		return err
	}
	return tx.record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Erased, at))
}

// Retire implements store.Store.
func (s *Store) Retire(ctx context.Context, refs [][]byte, until, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		for _, ref := range refs {
			r, err := tx.keyPackage(ctx, ref, at)
			if err != nil {
				return err
			}
			if !r.Retirable() {
				return fmt.Errorf("key package %x: %w: it is %s", ref, store.ErrState, r.State)
			}
			if err := retire(ctx, tx, &r, until, at); err != nil {
				return err
			}
		}
		return nil
	})
}

// retire retires a key package; one that is reserved stays so until its Welcome is settled.
func retire(ctx context.Context, tx *transaction, r *row, until, at time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE key_packages SET state = iif(state = 'reserved', state, @retired), retired_until = @until,
		reserved_from = iif(state = 'reserved', @retired, NULL) WHERE id = @id`,
		sql.Named("retired", string(store.Retired)), sql.Named("until", seconds(until)), sql.Named("id", r.ID))
	if err != nil {
		return err
	}
	return tx.record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Retired, at))
}

// count returns how many rows a statement changed.
func count(result sql.Result, err error) (uint64, error) {
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	return uint64(n), err
}
