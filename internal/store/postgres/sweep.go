package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// sweepBatch is how many rows one transaction of a sweep changes: others get the end of the trail
// in between.
const sweepBatch = 500

// sweepable finds rows that are due. An index of its own finds each part, so that a sweep costs
// what it does, however much the store has.
const sweepable = `SELECT id FROM (
	SELECT id FROM key_packages WHERE state = 'reserved' AND reserved_until <= @now
	UNION ALL SELECT id FROM key_packages WHERE state = 'pending' AND not_after < @now AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'available' AND not_after < @now AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'published' AND not_after < @now AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'claimed' AND not_after < @now AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'expired' AND not_after < @before AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'retired' AND retired_until <= @now
	) due LIMIT @batch`

// Sweep implements store.Store. Several processes take turns, a batch each.
func (s *Store) Sweep(ctx context.Context, now time.Time, grace time.Duration) (store.Swept, error) {
	var swept store.Swept
	var err error
	if swept.Finished, err = sqlstore.FinishBacklogs(ctx, s, sweepBatch, now); err != nil {
		return swept, fmt.Errorf("sweep: %w", err)
	}
	for {
		var did store.Swept
		rows := 0
		err := s.write(ctx, concurrent, func(ctx context.Context, tx *transaction) (err error) {
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
	}
}

func (tx *transaction) sweep(ctx context.Context, now time.Time, grace time.Duration) (did store.Swept, n int, err error) {
	if _, err := tx.Change(ctx, "SELECT pg_advisory_xact_lock($1)", lockSweep); err != nil {
		return did, 0, err
	}
	due, err := sqlstore.All(ctx, tx, sqlstore.Value[int64], sweepable,
		pgx.NamedArgs{"now": sqlstore.Seconds(now), "before": sqlstore.Seconds(now.Add(-grace)), "batch": sweepBatch})
	if err != nil {
		return did, 0, err
	}
	rows, err := tx.rows(ctx, due)
	for i := range rows {
		if err == nil {
			err = tx.sweepRow(ctx, &rows[i], now, grace, &did)
		}
	}
	return did, len(due), err
}

// sweepRow takes the steps that are due, in the order of a life. Others may have taken them since
// the row was found.
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
		tx.queue("UPDATE key_packages SET state = 'expired' WHERE id = $1", r.ID)
		if err := tx.Record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Expired, now)); err != nil {
			return err
		}
		r.State = store.Expired
		did.Expired++
	}
	if r.GraceOver(now, grace) {
		did.Erased++
		tx.queue(eraseKeyPackage, sqlstore.Seconds(now), r.ID)
		tx.queue(eraseContents, r.ID)
		return tx.Record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Erased, now))
	}
	return nil
}

// eraseKeyPackage is the end of a key package that no Welcome was opened with. eraseContents goes
// with it.
const eraseKeyPackage = `UPDATE key_packages SET state = 'erased', erased_at = $1,
	reserved_from = NULL, reserved_until = NULL WHERE id = $2`
