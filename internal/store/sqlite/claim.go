package sqlite

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// Claim implements store.Store.
func (s *Store) Claim(ctx context.Context, identity string, n int, at time.Time) (claimed []store.KeyPackage, err error) {
	err = s.write(ctx, func(ctx context.Context, tx *transaction) error {
		rows, err := tx.claimable(ctx, identity, false, max(n, 0), at, at) // SQLite takes a negative limit for none
		if err != nil {
			return err
		}
		claimed = nil
		for i := range rows {
			r := &rows[i]
			if _, err := tx.Change(ctx, "UPDATE key_packages SET state = 'claimed', claimed_at = ? WHERE id = ?", sqlstore.Seconds(at), r.ID); err != nil {
				return err
			}
			if err := tx.Record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Claimed, at)); err != nil {
				return err
			}
			r.State, r.ClaimedAt = store.Claimed, sqlstore.Date(sqlstore.Seconds(at))
			claimed = append(claimed, r.KeyPackage)
		}
		return nil
	})
	return claimed, err
}

// claimable finds by an index the first rows under one wrapping key that Claim, or Dispatch, may
// hand out. Under a key that is being shredded may be half a million rows, and a claim that reads
// them holds the store meanwhile: those keys are left out.
const claimable = `SELECT c.id FROM key_packages c WHERE c.state = 'available' AND c.wrapping_key = @key
	AND c.identity = (SELECT id FROM identities WHERE name = @name)
	AND c.version = (SELECT version FROM identities WHERE name = @name AND retired_at IS NULL)
	AND NOT EXISTS (SELECT 1 FROM backlogs o WHERE o.finished_at IS NULL AND o.identity = c.identity AND o.before > c.version AND o.last >= c.id)
	AND (c.release_digest IS NULL OR c.confirmed_at IS NOT NULL)
	AND c.last_resort = @last AND c.not_before <= @at AND c.not_after > @ending ORDER BY c.id LIMIT @n`

// claimable returns the first n rows that may be handed out.
func (tx *transaction) claimable(ctx context.Context, identity string, lastResort bool, n int, at, ending time.Time) ([]row, error) {
	keys, err := sqlstore.All(ctx, tx, sqlstore.Value[int64], `SELECT id FROM wrapping_keys
		WHERE id NOT IN (SELECT wrapping_key FROM backlogs WHERE finished_at IS NULL AND wrapping_key IS NOT NULL)`)
	var first []int64
	for _, key := range keys {
		var ids []int64
		if err == nil {
			ids, err = sqlstore.All(ctx, tx, sqlstore.Value[int64], claimable, sql.Named("key", key), sql.Named("name", identity), sql.Named("last", lastResort),
				sql.Named("at", sqlstore.Seconds(at)), sql.Named("ending", sqlstore.Seconds(ending)), sql.Named("n", n))
		}
		first = append(first, ids...)
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(first)
	return tx.rows(ctx, first[:min(n, len(first))])
}
