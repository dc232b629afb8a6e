package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// A backlog is a row that says of many key packages what they are from then on. Their own
// rows follow, some at a time. Until they have, reading them puts the two together, and
// writing to one begins by letting it follow: see record.Row.Ahead and transaction.catchUp. No row
// gets into a backlog after it was begun, because no key package is added under a condemned
// wrapping key or to a version that signs no more, and each leaves it once.

// allVersions is before of a backlog of an identity with all its versions.
const allVersions = math.MaxInt64

const selectBacklog = `SELECT b.id, coalesce((SELECT name FROM identities i WHERE i.id = b.identity), ''), coalesce(b.before, 0),
	(SELECT key_id FROM wrapping_keys w WHERE w.id = b.wrapping_key), b.until, b.begun_at, b.moved, b.finished_at FROM backlogs b`

func scanBacklog(s scanner) (b store.Backlog, err error) {
	var before, begun int64
	var until, finished sql.NullInt64
	err = s.Scan(&b.ID, &b.Identity, &before, &b.WrappingKeyID, &until, &begun, &b.Moved, &finished)
	b.Step = store.Retire
	if len(b.WrappingKeyID) > 0 {
		b.Step = store.Erase
	}
	if before != allVersions {
		b.Version = uint64(before)
	}
	b.Until, b.BegunAt, b.FinishedAt = optionalDate(until), date(begun), optionalDate(finished)
	return b, translate(err)
}

// beginRetiring begins the backlog of the key packages that an identity has of the versions
// before one.
func beginRetiring(ctx context.Context, tx *transaction, name string, before uint64, until, at time.Time) (store.Backlog, error) {
	return tx.begin(ctx, `INSERT INTO backlogs (identity, before, last, until, begun_at)
		SELECT id, ?, (SELECT coalesce(max(id), 0) FROM key_packages), ?, ? FROM identities WHERE name = ?`,
		before, seconds(until), seconds(at), name)
}

// beginErasing begins the backlog of what is under a wrapping key.
func beginErasing(ctx context.Context, tx *transaction, key []byte, at time.Time) (store.Backlog, error) {
	return tx.begin(ctx, "INSERT INTO backlogs (wrapping_key, begun_at) SELECT id, ? FROM wrapping_keys WHERE key_id = ?", seconds(at), key)
}

func (tx *transaction) begin(ctx context.Context, insert string, args ...any) (store.Backlog, error) {
	result, err := tx.ExecContext(ctx, insert, args...)
	if err != nil {
		return store.Backlog{}, err
	}
	id, err := result.LastInsertId()
	if err != nil {
		return store.Backlog{}, err
	}
	return scanBacklog(tx.QueryRowContext(ctx, selectBacklog+" WHERE b.id = ?", id))
}

// unfinished returns the backlog that is not finished and fits a condition, or none.
func (tx *transaction) unfinished(ctx context.Context, condition string, args ...any) (store.Backlog, error) {
	b, err := scanBacklog(tx.QueryRowContext(ctx, selectBacklog+" WHERE b.finished_at IS NULL AND "+condition, args...))
	if errors.Is(err, store.ErrNotFound) {
		return store.Backlog{}, nil
	}
	return b, err
}

// retiring returns the last backlog of an identity with all its versions that is not
// finished, where it has all that there is to retire. What was added since, which a next
// version may have got, is for another: what a backlog says of a key package does not change,
// and one that is older comes before those that have it by now.
func (tx *transaction) retiring(ctx context.Context, name string) (store.Backlog, error) {
	return tx.unfinished(ctx, `b.before = @all AND b.identity = (SELECT id FROM identities WHERE name = @name)
		AND NOT EXISTS (SELECT 1 FROM key_packages k WHERE k.identity = b.identity AND k.state IN (`+retirableStates+`, 'reserved') AND k.id > b.last)
		ORDER BY b.id DESC LIMIT 1`, sql.Named("all", allVersions), sql.Named("name", name))
}

// Backlogs implements store.Store.
func (s *Store) Backlogs(ctx context.Context) ([]store.Backlog, error) {
	return query(ctx, s.db, scanBacklog, selectBacklog+" WHERE b.finished_at IS NULL ORDER BY b.id")
}

// toFollow are the conditions of rows of key packages that a backlog is to be written down
// of. Each is found by an index, and those that were written down are not in it any more.
var toFollow = map[store.Step][]string{
	store.Retire: {
		toRetire + " AND state = 'pending'", toRetire + " AND state = 'available'", toRetire + " AND state = 'published'", toRetire + " AND state = 'claimed'",
		toRetire + " AND state = 'reserved' AND reserved_from IN (" + retirableStates + ")",
	},
	store.Erase: {"wrapping_key = (SELECT wrapping_key FROM backlogs WHERE id = @backlog) AND " + under},
}

const toRetire = `identity = (SELECT identity FROM backlogs WHERE id = @backlog)
	AND version < (SELECT before FROM backlogs WHERE id = @backlog) AND id <= (SELECT last FROM backlogs WHERE id = @backlog)`

// retirableStates are those that store.Retire leads from, but for reserved.
const retirableStates = "'pending', 'available', 'published', 'claimed'"

// Left implements store.Store.
func (s *Store) Left(ctx context.Context, id uint64) (left uint64, err error) {
	b, err := scanBacklog(s.db.QueryRowContext(ctx, selectBacklog+" WHERE b.id = ?", id))
	for _, condition := range toFollow[b.Step] {
		var n uint64
		if err == nil {
			err = s.db.QueryRowContext(ctx, "SELECT count(*) FROM key_packages WHERE "+condition, sql.Named("backlog", id)).Scan(&n)
		}
		left += n
	}
	return left, translate(err)
}

// respite is how long others have for writing between two batches, at most. It is longer
// than SQLite sleeps when it has waited for as long as a batch takes: whoever waits finds the
// store free once a batch, and not by chance.
const respite = 30 * time.Millisecond

// rest leaves the store to others after a batch that has held it for a while.
func rest(ctx context.Context, held time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(min(held, respite)):
	}
}

// WorkOff implements store.Store. Which rows are next is read before the lock is taken:
// after the last of them that may take a while, and none comes to them meanwhile.
func (s *Store) WorkOff(ctx context.Context, id uint64, n int, at time.Time) (b store.Backlog, err error) {
	b, err = scanBacklog(s.db.QueryRowContext(ctx, selectBacklog+" WHERE b.id = ?", id))
	if err != nil || b.Finished() {
		return b, err
	}
	next, err := s.following(ctx, &b, n)
	if err != nil {
		return b, err
	}
	var start time.Time
	err = s.write(ctx, func(ctx context.Context, tx *transaction) error {
		start = time.Now()
		rows, err := tx.rows(ctx, next)
		for i := range rows {
			if err == nil {
				err = tx.catchUp(ctx, &rows[i], at)
			}
		}
		if err != nil {
			return err
		}
		if len(next) < n {
			if _, err := tx.ExecContext(ctx, "UPDATE backlogs SET finished_at = ? WHERE id = ? AND finished_at IS NULL", seconds(at), id); err != nil {
				return err
			}
		}
		b, err = scanBacklog(tx.QueryRowContext(ctx, selectBacklog+" WHERE b.id = ?", id))
		return err
	})
	if err == nil && !b.Finished() {
		rest(ctx, time.Since(start))
	}
	return b, err
}

// list is numbers in JSON.
func list(numbers []int64) string {
	b := []byte{'['}
	for i, n := range numbers {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return string(append(b, ']'))
}

// following returns the first n rows that a backlog is to be written down of.
func (s *Store) following(ctx context.Context, b *store.Backlog, n int) (next []int64, err error) {
	scan := func(s scanner) (row int64, err error) { return row, s.Scan(&row) }
	for _, condition := range toFollow[b.Step] {
		rows, err := query(ctx, s.db, scan, "SELECT id FROM key_packages WHERE "+condition+" ORDER BY id LIMIT @n",
			sql.Named("backlog", b.ID), sql.Named("n", max(n, 1)-len(next)))
		if err != nil {
			return nil, err
		}
		if next = append(next, rows...); len(next) >= n {
			break
		}
	}
	return next, nil
}

// finishBacklogs works off all backlogs, and returns how many key packages it was of.
func (s *Store) finishBacklogs(ctx context.Context, at time.Time) (finished uint64, err error) {
	backlogs, err := s.Backlogs(ctx)
	for _, b := range backlogs {
		before := b.Moved
		for err == nil && !b.Finished() {
			b, err = s.WorkOff(ctx, b.ID, sweepBatch, at)
		}
		if err != nil {
			break
		}
		finished += b.Moved - before
	}
	return finished, err
}

// lags reports whether there is a backlog.
func (s *Store) lags(ctx context.Context) (lags bool, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM backlogs WHERE finished_at IS NULL)").Scan(&lags)
	return lags, translate(err)
}

// catchUp lets a row follow its backlogs. What was read of it stays as it is.
func (tx *transaction) catchUp(ctx context.Context, r *row, at time.Time) error {
	if r.RetireBy != 0 {
		if err := tx.follow(ctx, r.RetireBy, func() error { return retire(ctx, tx, r, r.RetiredUntil, at) }); err != nil {
			return err
		}
	}
	if r.EraseBy != 0 {
		if err := tx.follow(ctx, r.EraseBy, func() error { return shred(ctx, tx, r, at) }); err != nil {
			return err
		}
	}
	r.RetireBy, r.EraseBy = 0, 0
	return nil
}

// follow writes something down of one key package, and counts it.
func (tx *transaction) follow(ctx context.Context, backlog int64, write func() error) error {
	if err := write(); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, "UPDATE backlogs SET moved = moved + 1 WHERE id = ?", backlog)
	return err
}

// shred erases the private keys of a key package whose wrapping key is condemned.
func shred(ctx context.Context, tx *transaction, r *row, at time.Time) error {
	change, args := eraseKeyPackage, []any{sql.Named("erased", string(store.Erased)), sql.Named("at", optionalSeconds(r.ErasedAt))}
	if r.State == store.Consumed {
		change, args = eraseLeaf, nil
	}
	if _, err := tx.ExecContext(ctx, change, append(args, sql.Named("id", r.ID))...); err != nil {
		return err
	}
	return tx.record(ctx, r.ID, record.ShreddedEntry(r, at))
}

// keyPackage returns a key package as it is to be written to.
func (tx *transaction) keyPackage(ctx context.Context, ref []byte, at time.Time) (row, error) {
	r, err := scanKeyPackage(tx.QueryRowContext(ctx, selectKeyPackage+" WHERE k.ref = ?", ref))
	if err == nil {
		err = tx.catchUp(ctx, &r, at)
	}
	if err != nil {
		err = fmt.Errorf("key package %x: %w", ref, err)
	}
	return r, err
}
