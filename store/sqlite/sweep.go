package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/store"
)

// sweepBatch is how many rows one transaction of a sweep looks at: others write in
// between.
const sweepBatch = 2000

// Sweep implements store.Store. It goes through the rows once, in their order.
func (s *Store) Sweep(ctx context.Context, now, expiredBefore time.Time) (store.Swept, error) {
	var swept store.Swept
	for after, done := int64(0), false; !done; {
		err := s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
			last, err := sweepPage(ctx, tx, after)
			if err != nil || last == after {
				done = err == nil
				return err
			}
			page := []any{sql.Named("after", after), sql.Named("last", last)}
			released, err := count(tx.ExecContext(ctx, `UPDATE key_packages SET state = reserved_from, reserved_from = NULL,
				reserved_until = NULL, welcome_digest = NULL
				WHERE id > @after AND id <= @last AND state = @reserved AND reserved_until <= @now`,
				append(page, sql.Named("reserved", string(store.Reserved)), sql.Named("now", seconds(now)))...))
			if err != nil {
				return err
			}
			expired, err := count(tx.ExecContext(ctx, `UPDATE key_packages SET state = @expired, sealed = x''
				WHERE id > @after AND id <= @last AND state IN (@pending, @available, @published) AND not_after < @before`,
				append(page, sql.Named("expired", string(store.Expired)), sql.Named("pending", string(store.Pending)),
					sql.Named("available", string(store.Available)), sql.Named("published", string(store.Published)),
					sql.Named("before", seconds(expiredBefore)))...))
			if err != nil {
				return err
			}
			swept.Released += released
			swept.Expired += expired
			after = last
			return nil
		})
		if err != nil {
			return swept, fmt.Errorf("sweep: %w", err)
		}
	}
	return swept, nil
}

// sweepPage returns the last row of the page that begins after a row, or that row
// where there is none.
func sweepPage(ctx context.Context, tx *sql.Tx, after int64) (int64, error) {
	var last sql.NullInt64
	err := tx.QueryRowContext(ctx, "SELECT max(id) FROM (SELECT id FROM key_packages WHERE id > ? ORDER BY id LIMIT ?)", after, sweepBatch).Scan(&last)
	if !last.Valid {
		return after, err
	}
	return last.Int64, err
}

// count returns how many rows a statement changed.
func count(result sql.Result, err error) (uint64, error) {
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	return uint64(n), err
}
