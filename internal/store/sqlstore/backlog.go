package sqlstore

import (
	"context"
	"database/sql"
	"errors"
	"math"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// A backlog is a row that says of many key packages what they are from then on. Their own rows
// follow in batches. Until they have, an act that reads one puts the two together, and an act that
// changes one lets it follow first: see record.Row.Ahead and catchUp of the backends. No row gets
// into a backlog after its beginning, because no key package is added under a condemned wrapping
// key or to a version that has ceased to sign, and each row leaves it once.

// allVersions is before of a backlog of an identity with all its versions.
const allVersions = math.MaxInt64

const selectBacklog = `SELECT b.id, coalesce((SELECT name FROM identities i WHERE i.id = b.identity), ''), coalesce(b.before, 0),
	(SELECT key_id FROM wrapping_keys w WHERE w.id = b.wrapping_key), b.until, b.begun_at, b.moved, b.finished_at FROM backlogs b`

func scanBacklog(row Scanner) (b store.Backlog, err error) {
	var before, begun int64
	var until, finished sql.NullInt64
	err = row.Scan(&b.ID, &b.Identity, &before, &b.WrappingKeyID, &until, &begun, &b.Moved, &finished)
	b.Step = store.Retire
	if len(b.WrappingKeyID) > 0 {
		b.Step = store.Erase
	}
	if before != allVersions {
		b.Version = uint64(before)
	}
	b.Until, b.BegunAt, b.FinishedAt = OptionalDate(until), Date(begun), OptionalDate(finished)
	return b, err
}

// beginRetiring begins the backlog of the key packages that an identity has of the versions before
// one.
func beginRetiring(ctx context.Context, tx Tx, name string, before int64, until, at time.Time) (store.Backlog, error) {
	return begin(ctx, tx, `INSERT INTO backlogs (identity, before, last, until, begun_at)
		SELECT id, CAST($1 AS bigint), (SELECT coalesce(max(id), 0) FROM key_packages), CAST($2 AS bigint), CAST($3 AS bigint)
		FROM identities WHERE name = $4 RETURNING id`, before, Seconds(until), Seconds(at), name)
}

// beginErasing begins the backlog of what is under a wrapping key.
func beginErasing(ctx context.Context, tx Tx, key []byte, at time.Time) (store.Backlog, error) {
	return begin(ctx, tx, `INSERT INTO backlogs (wrapping_key, begun_at)
		SELECT id, CAST($1 AS bigint) FROM wrapping_keys WHERE key_id = $2 RETURNING id`, Seconds(at), Blob(key))
}

func begin(ctx context.Context, tx Tx, insert string, args ...any) (store.Backlog, error) {
	id, err := One(ctx, tx, Value[uint64], insert, args...)
	if err != nil {
		return store.Backlog{}, err
	}
	return Backlog(ctx, tx, id)
}

// Backlog returns a backlog by its number. The error is store.ErrNotFound.
func Backlog(ctx context.Context, q Querier, id uint64) (store.Backlog, error) {
	return One(ctx, q, scanBacklog, selectBacklog+" WHERE b.id = $1", id)
}

// unfinished returns the backlog that is not finished and fits a condition, or the zero Backlog.
func unfinished(ctx context.Context, tx Tx, condition string, args ...any) (store.Backlog, error) {
	b, err := One(ctx, tx, scanBacklog, selectBacklog+" WHERE b.finished_at IS NULL AND "+condition, args...)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return b, err
}

// unfinishedRetiring returns the last unfinished backlog of an identity with all its versions,
// unless key packages were added since, of a next version. Those need another backlog: what a
// backlog says of a key package never changes, and the older backlog decides.
func unfinishedRetiring(ctx context.Context, tx Tx, name string) (store.Backlog, error) {
	return unfinished(ctx, tx, `b.before = $1 AND b.identity = (SELECT id FROM identities WHERE name = $2)
		AND NOT EXISTS (SELECT 1 FROM key_packages k WHERE k.identity = b.identity AND k.state IN (`+RetirableStates+`, 'reserved') AND k.id > b.last)
		ORDER BY b.id DESC LIMIT 1`, int64(allVersions), name)
}

// Backlogs implements store.Store.
func (a *Acts) Backlogs(ctx context.Context) ([]store.Backlog, error) {
	return ReadAll(ctx, a.db, scanBacklog, selectBacklog+" WHERE b.finished_at IS NULL ORDER BY b.id")
}

// Lags reports whether there is a backlog that rows have still to follow.
func Lags(ctx context.Context, q Querier) (bool, error) {
	return One(ctx, q, Value[bool], "SELECT EXISTS (SELECT 1 FROM backlogs WHERE finished_at IS NULL)")
}

const toRetire = `key_packages WHERE identity = (SELECT identity FROM backlogs WHERE id = $1)
	AND version < (SELECT before FROM backlogs WHERE id = $1) AND id <= (SELECT last FROM backlogs WHERE id = $1)`

// ToFollow returns, as parts of SQL that go after FROM, the rows that have still to follow a
// backlog with the number $1. An index finds each part.
func (l *Layout) ToFollow(step store.Step) []string {
	if step == store.Erase {
		return []string{l.Contents + " WHERE wrapping_key = (SELECT wrapping_key FROM backlogs WHERE id = $1) AND " + l.HasKeys}
	}
	return []string{
		toRetire + " AND state = 'pending'", toRetire + " AND state = 'available'", toRetire + " AND state = 'published'", toRetire + " AND state = 'claimed'",
		toRetire + " AND state = 'reserved' AND reserved_from IN (" + RetirableStates + ")",
	}
}

// Left implements store.Store.
func (a *Acts) Left(ctx context.Context, id uint64) (left uint64, err error) {
	err = a.db.Read(ctx, func(ctx context.Context, q Querier) error {
		left = 0
		b, err := Backlog(ctx, q, id)
		if err != nil {
			return err
		}
		for _, rows := range a.layout.ToFollow(b.Step) {
			n, err := One(ctx, q, Value[uint64], "SELECT count(*) FROM "+rows, id)
			if err != nil {
				return err
			}
			left += n
		}
		return nil
	})
	return left, err
}

// CatchUp lets a row follow its backlogs. What was read of it stays as it is. shred erases its
// private keys.
func CatchUp(ctx context.Context, tx Tx, r *record.Row, at time.Time, shred func(context.Context, *record.Row, time.Time) error) error {
	if r.RetireBy != 0 {
		tx.Counters().Move(r.RetireBy)
		if err := Retire(ctx, tx, r, r.RetiredUntil, at); err != nil {
			return err
		}
	}
	if r.EraseBy != 0 {
		tx.Counters().Move(r.EraseBy)
		if err := shred(ctx, r, at); err != nil {
			return err
		}
	}
	r.RetireBy, r.EraseBy = 0, 0
	return nil
}

// FinishBacklogs works off all backlogs in batches, and returns how many key packages followed.
func FinishBacklogs(ctx context.Context, s store.Backlogs, batch int, at time.Time) (finished uint64, err error) {
	backlogs, err := s.Backlogs(ctx)
	for _, b := range backlogs {
		before := b.Moved
		for err == nil && !b.Finished() {
			b, err = s.WorkOff(ctx, b.ID, batch, at)
		}
		if err != nil {
			break
		}
		finished += b.Moved - before
	}
	return finished, err
}

// ReadBacklog returns a backlog by its number, outside a transaction. The error is
// store.ErrNotFound.
func ReadBacklog(ctx context.Context, db Database, id uint64) (store.Backlog, error) {
	return ReadOne(ctx, db, scanBacklog, selectBacklog+" WHERE b.id = $1", id)
}
