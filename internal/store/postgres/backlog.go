package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

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
	return b, err
}

// beginRetiring begins the backlog of the key packages that an identity has of the versions
// before one.
func beginRetiring(ctx context.Context, tx *transaction, name string, before uint64, until, at time.Time) (store.Backlog, error) {
	return tx.begin(ctx, `INSERT INTO backlogs (identity, before, last, until, begun_at)
		SELECT id, $1::bigint, (SELECT coalesce(max(id), 0) FROM key_packages), $2::bigint, $3::bigint FROM identities WHERE name = $4`,
		int64(before), seconds(until), seconds(at), name)
}

// beginErasing begins the backlog of what is under a wrapping key.
func beginErasing(ctx context.Context, tx *transaction, key []byte, at time.Time) (store.Backlog, error) {
	return tx.begin(ctx, "INSERT INTO backlogs (wrapping_key, begun_at) SELECT id, $1::bigint FROM wrapping_keys WHERE key_id = $2", seconds(at), key)
}

func (tx *transaction) begin(ctx context.Context, insert string, args ...any) (store.Backlog, error) {
	id, err := queryOne(ctx, tx, value[int64], insert+" RETURNING id", args...)
	if err != nil {
		return store.Backlog{}, err
	}
	return queryOne(ctx, tx, scanBacklog, selectBacklog+" WHERE b.id = $1", id)
}

// unfinished returns the backlog that is not finished and fits a condition, or none.
func (tx *transaction) unfinished(ctx context.Context, condition string, args ...any) (store.Backlog, error) {
	b, err := queryOne(ctx, tx, scanBacklog, selectBacklog+" WHERE b.finished_at IS NULL AND "+condition, args...)
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
		ORDER BY b.id DESC LIMIT 1`, pgx.NamedArgs{"all": int64(allVersions), "name": name})
}

// Backlogs implements store.Store.
func (s *Store) Backlogs(ctx context.Context) ([]store.Backlog, error) {
	return readAll(ctx, s, scanBacklog, selectBacklog+" WHERE b.finished_at IS NULL ORDER BY b.id")
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

// tableOf has the rows that the conditions are of.
var tableOf = map[store.Step]string{store.Retire: "key_packages", store.Erase: "contents"}

const toRetire = `identity = (SELECT identity FROM backlogs WHERE id = @backlog)
	AND version < (SELECT before FROM backlogs WHERE id = @backlog) AND id <= (SELECT last FROM backlogs WHERE id = @backlog)`

// retirableStates are those that store.Retire leads from, but for reserved.
const retirableStates = "'pending', 'available', 'published', 'claimed'"

// Left implements store.Store.
func (s *Store) Left(ctx context.Context, id uint64) (left uint64, err error) {
	b, err := readOne(ctx, s, scanBacklog, selectBacklog+" WHERE b.id = $1", id)
	for _, condition := range toFollow[b.Step] {
		var n uint64
		if err == nil {
			n, err = readOne(ctx, s, value[uint64], "SELECT count(*) FROM "+tableOf[b.Step]+" WHERE "+condition, pgx.NamedArgs{"backlog": id})
		}
		left += n
	}
	return left, err
}

// WorkOff implements store.Store. Which rows are next is read before they are locked: after the
// last of them that may take a while, and none comes to them meanwhile. Those that another
// process works off at the same time are waited for.
func (s *Store) WorkOff(ctx context.Context, id uint64, n int, at time.Time) (b store.Backlog, err error) {
	b, err = readOne(ctx, s, scanBacklog, selectBacklog+" WHERE b.id = $1", id)
	if err != nil || b.Finished() {
		return b, err
	}
	next, err := s.following(ctx, &b, n)
	if err != nil {
		return b, err
	}
	err = s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		rows, err := tx.rows(ctx, next)
		for i := range rows {
			if err == nil {
				err = tx.catchUp(&rows[i], at)
			}
		}
		if err == nil && len(next) < n {
			tx.finished = append(tx.finished, finished{int64(id), at})
		}
		tx.count()
		if err == nil {
			b, err = queryOne(ctx, tx, scanBacklog, selectBacklog+" WHERE b.id = $1", id)
		}
		return err
	})
	return b, err
}

// following returns the first n rows that a backlog is to be written down of.
func (s *Store) following(ctx context.Context, b *store.Backlog, n int) (next []int64, err error) {
	for _, condition := range toFollow[b.Step] {
		rows, err := readAll(ctx, s, value[int64], "SELECT id FROM "+tableOf[b.Step]+" WHERE "+condition+" ORDER BY id + 0 LIMIT @n",
			pgx.NamedArgs{"backlog": b.ID, "n": max(n, 1) - len(next)})
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
func (s *Store) lags(ctx context.Context) (bool, error) {
	return readOne(ctx, s, value[bool], "SELECT EXISTS (SELECT 1 FROM backlogs WHERE finished_at IS NULL)")
}

// catchUp lets a row follow its backlogs. What was read of it stays as it is.
func (tx *transaction) catchUp(r *row, at time.Time) error {
	if r.RetireBy != 0 {
		tx.moved[r.RetireBy]++
		if err := tx.retire(r, r.RetiredUntil, at); err != nil {
			return err
		}
	}
	if r.EraseBy != 0 {
		tx.moved[r.EraseBy]++
		if err := tx.shred(r, at); err != nil {
			return err
		}
	}
	r.RetireBy, r.EraseBy = 0, 0
	return nil
}

// shred erases the private keys of a key package whose wrapping key is condemned.
func (tx *transaction) shred(r *row, at time.Time) error {
	tx.later(eraseContents, r.ID)
	if r.State != store.Consumed {
		tx.later(eraseKeyPackage, optionalSeconds(r.ErasedAt), r.ID)
	}
	return tx.record(r.ID, record.ShreddedEntry(r, at))
}

// keyPackages returns key packages as they are to be written to, in the order of refs. Their
// rows are locked until the transaction ends, in the order of their numbers.
func (tx *transaction) keyPackages(ctx context.Context, refs [][]byte, at time.Time) ([]*row, error) {
	numbers, err := query(ctx, tx, value[int64], "SELECT id FROM contents WHERE ref = ANY($1)", refs)
	if err != nil {
		return nil, err
	}
	rows, err := tx.rows(ctx, numbers)
	byRef := make(map[string]*row, len(rows))
	for i := range rows {
		if err == nil {
			err = tx.catchUp(&rows[i], at)
		}
		byRef[string(rows[i].Ref)] = &rows[i]
	}
	if err != nil {
		return nil, err
	}
	found := make([]*row, len(refs))
	for i, ref := range refs {
		if found[i] = byRef[string(ref)]; found[i] == nil {
			return nil, fmt.Errorf("key package %x: %w", ref, store.ErrNotFound)
		}
	}
	return found, nil
}

// keyPackage returns a key package as it is to be written to.
func (tx *transaction) keyPackage(ctx context.Context, ref []byte, at time.Time) (*row, error) {
	rows, err := tx.keyPackages(ctx, [][]byte{ref}, at)
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}
