package sqlite

import (
	"context"
	"database/sql"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// resumable finds rows that were on their way to a directory, and whose lease is over.
const resumable = selectKeyPackage + ` WHERE k.state = 'pending' AND r.id IS NULL AND e.id IS NULL AND k.directory = @directory AND k.identity = (SELECT id FROM identities WHERE name = @name)
	AND coalesce(k.leased_until, 0) <= @at AND k.last_resort = @last AND k.not_before <= @at AND k.not_after > @ending ORDER BY k.id LIMIT @n`

// Dispatch implements store.Store.
func (s *Store) Dispatch(ctx context.Context, d store.Dispatch) (dispatched []store.Dispatched, err error) {
	err = s.write(ctx, func(ctx context.Context, tx *transaction) error {
		dispatched = nil
		rows, err := tx.dispatchable(ctx, &d)
		for i := range rows {
			if err == nil {
				err = tx.send(ctx, &rows[i], &d)
			}
			if err != nil {
				return err
			}
			if rows[i].State == store.Pending {
				dispatched = append(dispatched, store.Dispatched{KeyPackage: rows[i].KeyPackage, Again: rows[i].again})
			}
		}
		return err
	})
	return dispatched, err
}

// sendable is a row that goes to a directory, perhaps again.
type sendable struct {
	row
	again bool
}

func (tx *transaction) dispatchable(ctx context.Context, d *store.Dispatch) (all []sendable, err error) {
	n := max(d.N, 0) // SQLite takes a negative limit for none
	ending := d.Ending
	if ending.Before(d.Now) {
		ending = d.Now
	}
	rows, err := sqlstore.All(ctx, tx, sqlstore.ScanKeyPackage, resumable, sql.Named("directory", d.Directory), sql.Named("name", d.Identity),
		sql.Named("at", sqlstore.Seconds(d.Now)), sql.Named("ending", sqlstore.Seconds(ending)), sql.Named("last", d.LastResort), sql.Named("n", n))
	if err != nil {
		return nil, err
	}
	for i := range rows {
		all = append(all, sendable{rows[i], true})
	}
	if d.Resume {
		return all, nil
	}
	rows, err = tx.claimable(ctx, d.Identity, d.LastResort, n-len(rows), d.Now, ending)
	for i := range rows {
		all = append(all, sendable{rows[i], false})
	}
	return all, err
}

// send puts a row on its way, unless a backlog has other plans for it.
func (tx *transaction) send(ctx context.Context, r *sendable, d *store.Dispatch) error {
	if err := tx.catchUp(ctx, &r.row, d.Now); err != nil {
		return err
	}
	if !store.Allowed(r.State, store.Write, store.Pending) {
		return nil
	}
	until := sqlstore.Seconds(d.Until)
	r.State, r.Directory, r.LeasedUntil = store.Pending, d.Directory, sqlstore.Date(until)
	_, err := tx.Change(ctx, "UPDATE key_packages SET state = 'pending', directory = ?, leased_until = ? WHERE id = ?", d.Directory, until, r.ID)
	return err
}

// Return implements store.Store. A lease that is over is one until the time 0: a row without a
// lease would look as if it had been acknowledged.
func (s *Store) Return(ctx context.Context, refs [][]byte, until time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		for _, ref := range refs {
			_, err := tx.Change(ctx, "UPDATE key_packages SET leased_until = 0 WHERE ref = ? AND state = 'pending' AND leased_until = ?",
				sqlstore.Blob(ref), sqlstore.Seconds(until))
			if err != nil {
				return err
			}
		}
		return nil
	})
}
