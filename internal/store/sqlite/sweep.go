package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// sweepBatch is how many rows one transaction of a sweep changes: others write in between.
const sweepBatch = 2000

// sweepable finds rows that are due. An index of its own finds each part, so that a sweep costs
// what it does, however much the store has.
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
	if swept.Finished, err = sqlstore.FinishBacklogs(ctx, s, sweepBatch, now); err != nil {
		return swept, fmt.Errorf("sweep: %w", err)
	}
	for {
		var did store.Swept
		var start time.Time
		rows := 0
		err := s.write(ctx, func(ctx context.Context, tx *transaction) (err error) {
			start = time.Now()
			did, rows, err = tx.sweep(ctx, now, grace)
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

func (tx *transaction) sweep(ctx context.Context, now time.Time, grace time.Duration) (did store.Swept, n int, err error) {
	rows, err := sqlstore.All(ctx, tx, sqlstore.ScanKeyPackage, sweepable,
		sql.Named("now", sqlstore.Seconds(now)), sql.Named("before", sqlstore.Seconds(now.Add(-grace))), sql.Named("batch", sweepBatch))
	for i := range rows {
		if err == nil {
			err = tx.sweepRow(ctx, &rows[i], now, grace, &did)
		}
	}
	return did, len(rows), err
}

// sweepRow takes the steps that are due, in the order of a life.
func (tx *transaction) sweepRow(ctx context.Context, r *row, now time.Time, grace time.Duration, did *store.Swept) error {
	if err := tx.catchUp(ctx, r, now); err != nil || r.State == store.Erased || r.State == store.Consumed {
		return err
	}
	if r.Ends(now) {
		if err := tx.release(ctx, r, now); err != nil {
			return err
		}
		did.Released++
	}
	if r.Expires(now) {
		if _, err := tx.Change(ctx, "UPDATE key_packages SET state = 'expired' WHERE id = ?", r.ID); err != nil {
			return err
		}
		if err := tx.Record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Expired, now)); err != nil {
			return err
		}
		r.State = store.Expired
		did.Expired++
	}
	if r.GraceOver(now, grace) {
		did.Erased++
		if _, err := tx.Change(ctx, eraseKeyPackage, sqlstore.Seconds(now), r.ID); err != nil {
			return err
		}
		return tx.Record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Erased, now))
	}
	return nil
}

// eraseKeyPackage is the end of a key package that no Welcome was opened with.
const eraseKeyPackage = `UPDATE key_packages SET state = 'erased', sealed = x'', leaf = x'', erased_at = ?,
	reserved_from = NULL, reserved_until = NULL WHERE id = ?`
