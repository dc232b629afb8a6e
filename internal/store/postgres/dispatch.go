package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// resumable finds rows that were on their way to a directory, and whose lease is over. Here as
// below, rows that another transaction is about to send are passed over.
const resumable = `SELECT k.id FROM key_packages k WHERE k.state = 'pending' AND k.directory = @directory
	AND k.identity = (SELECT id FROM identities WHERE name = @name) AND coalesce(k.leased_until, 0) <= @at AND k.last_resort = @last
	AND k.not_before <= @at AND k.not_after > @ending
	AND ` + ahead + `
	ORDER BY k.id + 0 LIMIT %d FOR NO KEY UPDATE SKIP LOCKED`

// sendable finds rows that may go to a directory, by the condition for those of last resort, or
// for all others: each has an index of its own.
const sendable = `SELECT k.id FROM key_packages k WHERE k.state = 'available' AND %s
	AND ` + free + ` AND k.not_after > @ending ORDER BY k.id - 0 LIMIT %d FOR NO KEY UPDATE SKIP LOCKED`

// Dispatch implements store.Store.
func (s *Store) Dispatch(ctx context.Context, d store.Dispatch) (dispatched []store.Dispatched, err error) {
	if d.N <= 0 {
		return nil, ctx.Err()
	}
	err = s.write(ctx, concurrent, func(ctx context.Context, tx *transaction) error {
		dispatched = nil
		again, fresh, err := tx.dispatchable(ctx, &d)
		for i, numbers := range [][]int64{again, fresh} {
			if err == nil {
				err = tx.send(ctx, numbers, &d, i == 0, &dispatched)
			}
		}
		return err
	})
	return dispatched, err
}

// dispatchable locks rows that go to a directory, and returns their numbers: those that go there
// again, and those that go there for the first time.
func (tx *transaction) dispatchable(ctx context.Context, d *store.Dispatch) (again, fresh []int64, err error) {
	args := pgx.NamedArgs{
		"name": d.Identity, "directory": d.Directory, "last": d.LastResort,
		"at": sqlstore.Seconds(d.Now), "ending": max(sqlstore.Seconds(d.Now), sqlstore.Seconds(d.Ending)),
	}
	again, err = sqlstore.All(ctx, tx, sqlstore.Value[int64], fmt.Sprintf(resumable, d.N), args)
	if err != nil || d.Resume || len(again) >= d.N {
		return again, nil, err
	}
	kind := "NOT k.last_resort"
	if d.LastResort {
		kind = "k.last_resort"
	}
	fresh, err = sqlstore.All(ctx, tx, sqlstore.Value[int64], fmt.Sprintf(sendable, kind, d.N-len(again)), args)
	return again, fresh, err
}

// send puts rows that are locked on their way.
func (tx *transaction) send(ctx context.Context, numbers []int64, d *store.Dispatch, again bool, to *[]store.Dispatched) error {
	if len(numbers) == 0 {
		return nil
	}
	_, err := tx.Change(ctx, "UPDATE key_packages SET state = 'pending', directory = $1, leased_until = $2 WHERE id = ANY($3)",
		d.Directory, sqlstore.Seconds(d.Until), numbers)
	if err != nil {
		return err
	}
	rows, err := sqlstore.All(ctx, tx, sqlstore.ScanKeyPackage, selectKeyPackage+" WHERE k.id = ANY($1) ORDER BY k.id", numbers)
	for i := range rows {
		*to = append(*to, store.Dispatched{KeyPackage: rows[i].KeyPackage, Again: again})
	}
	return err
}

// Return implements store.Store. A lease that is over is one until the time 0: a row without a
// lease would look as if it had been acknowledged.
func (s *Store) Return(ctx context.Context, refs [][]byte, until time.Time) error {
	return s.write(ctx, concurrent, func(ctx context.Context, tx *transaction) error {
		numbers, err := sqlstore.All(ctx, tx, sqlstore.Value[int64], "SELECT id FROM contents WHERE ref = ANY($1)", refs)
		if err != nil || len(numbers) == 0 {
			return err
		}
		if _, err := tx.rows(ctx, numbers); err != nil { // locked in their order
			return err
		}
		_, err = tx.Change(ctx, "UPDATE key_packages SET leased_until = 0 WHERE id = ANY($1) AND state = 'pending' AND leased_until = $2",
			numbers, sqlstore.Seconds(until))
		return err
	})
}
