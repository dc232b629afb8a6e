package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// sweepBatch is how many rows one transaction of a sweep changes: others come to the end of
// the trail in between.
const sweepBatch = 500

// sweepable are rows for which the time has come. Each part is found by an index of its
// own, so that a sweep costs what it does, whatever the store has.
const sweepable = `SELECT id FROM (
	SELECT id FROM key_packages WHERE state = 'reserved' AND reserved_until <= @now
	UNION ALL SELECT id FROM key_packages WHERE state = 'pending' AND not_after < @now AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'available' AND not_after < @now AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'published' AND not_after < @now AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'claimed' AND not_after < @now AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'expired' AND not_after < @before AND consumed_at IS NULL AND erased_at IS NULL
	UNION ALL SELECT id FROM key_packages WHERE state = 'retired' AND retired_until <= @now
	) due LIMIT @batch`

// Sweep implements store.Store. Several processes take turns by the batch.
func (s *Store) Sweep(ctx context.Context, now time.Time, grace time.Duration) (store.Swept, error) {
	var swept store.Swept
	var err error
	if swept.Finished, err = s.finishBacklogs(ctx, now); err != nil {
		return swept, fmt.Errorf("sweep: %w", err)
	}
	for {
		var did store.Swept
		rows := 0
		err := s.write(ctx, beside, func(ctx context.Context, tx *transaction) (err error) {
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
	if _, err := tx.change(ctx, "SELECT pg_advisory_xact_lock($1)", lockSweep); err != nil {
		return did, 0, err
	}
	due, err := query(ctx, tx, value[int64], sweepable,
		pgx.NamedArgs{"now": seconds(now), "before": seconds(now.Add(-grace)), "batch": sweepBatch})
	if err != nil {
		return did, 0, err
	}
	rows, err := tx.rows(ctx, due)
	for i := range rows {
		if err == nil {
			err = tx.sweepRow(&rows[i], now, grace, &did)
		}
	}
	return did, len(due), err
}

// sweepRow does what the time has come for, in the order of a life. Others may have been
// quicker since the row was found.
func (tx *transaction) sweepRow(r *row, now time.Time, grace time.Duration, did *store.Swept) error {
	if err := tx.catchUp(r, now); err != nil || r.State == store.Erased || r.State == store.Consumed {
		return err
	}
	if r.Ends(now) {
		if err := tx.release(r, now); err != nil {
			return err
		}
		did.Released++
	}
	if r.Expires(now) {
		tx.later("UPDATE key_packages SET state = 'expired' WHERE id = $1", r.ID)
		if err := tx.record(r.ID, record.EntryOf(&r.KeyPackage, audit.Expired, now)); err != nil {
			return err
		}
		r.State = store.Expired
		did.Expired++
	}
	if r.GraceOver(now, grace) {
		did.Erased++
		tx.later(eraseKeyPackage, seconds(now), r.ID)
		tx.later(eraseContents, r.ID)
		return tx.record(r.ID, record.EntryOf(&r.KeyPackage, audit.Erased, now))
	}
	return nil
}

// eraseKeyPackage is the end of a key package that no Welcome was opened with; eraseContents goes
// with it.
const eraseKeyPackage = `UPDATE key_packages SET state = 'erased', erased_at = $1,
	reserved_from = NULL, reserved_until = NULL WHERE id = $2`

// Retire implements store.Store.
func (s *Store) Retire(ctx context.Context, refs [][]byte, until, at time.Time) error {
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		rows, err := tx.keyPackages(ctx, refs, at)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if !r.Retirable() {
				return fmt.Errorf("key package %x: %w: it is %s", r.Ref, store.ErrState, r.State)
			}
			if err := tx.retire(r, until, at); err != nil {
				return err
			}
			r.State = store.Retired
		}
		return nil
	})
}

// retire retires a key package; one that is reserved stays so until its Welcome is settled.
func (tx *transaction) retire(r *row, until, at time.Time) error {
	tx.later(`UPDATE key_packages SET state = CASE state WHEN 'reserved' THEN state ELSE 'retired' END, retired_until = $1,
		reserved_from = CASE state WHEN 'reserved' THEN 'retired' END WHERE id = $2`, seconds(until), r.ID)
	return tx.record(r.ID, record.EntryOf(&r.KeyPackage, audit.Retired, at))
}
