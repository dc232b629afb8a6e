package sqlite

import (
	"context"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// WorkOff implements store.Store. It reads which rows are next before it takes the lock: after the
// last of them that may take a while, and meanwhile none is added to them.
func (s *Store) WorkOff(ctx context.Context, id uint64, n int, at time.Time) (b store.Backlog, err error) {
	next, b, err := s.following(ctx, id, n)
	if err != nil || b.Finished() {
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
		if len(next) < n {
			tx.counters.Finish(id, at)
		}
		if err == nil {
			err = tx.counters.Write(ctx, tx)
		}
		if err == nil {
			b, err = sqlstore.Backlog(ctx, tx, id)
		}
		return err
	})
	if err == nil && !b.Finished() {
		rest(ctx, time.Since(start))
	}
	return b, err
}

// following returns a backlog, and the first n rows that have still to follow it.
func (s *Store) following(ctx context.Context, id uint64, n int) (next []int64, b store.Backlog, err error) {
	b, err = sqlstore.ReadBacklog(ctx, s, id)
	if err != nil || b.Finished() {
		return nil, b, err
	}
	for _, rows := range layout.ToFollow(b.Step) {
		some, err := sqlstore.ReadAll(ctx, s, sqlstore.Value[int64], "SELECT id FROM "+rows+" ORDER BY id LIMIT $2", id, max(n, 1)-len(next))
		if err != nil {
			return nil, b, err
		}
		if next = append(next, some...); len(next) >= n {
			break
		}
	}
	return next, b, nil
}

// respite is how long others have for writing between two batches, at most. It is longer than
// SQLite sleeps when it has waited for as long as a batch takes: an act that waits finds the store
// free after one batch, and not by chance.
const respite = 30 * time.Millisecond

// rest leaves the store to others after a batch that has held it for a while.
func rest(ctx context.Context, held time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(min(held, respite)):
	}
}

// catchUp lets a row follow its backlogs.
func (tx *transaction) catchUp(ctx context.Context, r *row, at time.Time) error {
	return sqlstore.CatchUp(ctx, tx, r, at, tx.shred)
}

// shred erases the private keys of a key package whose wrapping key is condemned.
func (tx *transaction) shred(ctx context.Context, r *row, at time.Time) (err error) {
	if r.State == store.Consumed {
		_, err = tx.Change(ctx, "UPDATE key_packages SET leaf = x'' WHERE id = ?", r.ID)
	} else {
		_, err = tx.Change(ctx, eraseKeyPackage, sqlstore.OptionalSeconds(r.ErasedAt), r.ID)
	}
	if err != nil {
		return err
	}
	return tx.Record(ctx, r.ID, record.ShreddedEntry(r, at))
}
