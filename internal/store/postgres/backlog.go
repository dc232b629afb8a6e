package postgres

import (
	"context"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// WorkOff implements store.Store. It reads which rows are next before it locks them: after the
// last of them that may take a while, and meanwhile none is added to them. It waits for rows that
// another process works off at the same time.
func (s *Store) WorkOff(ctx context.Context, id uint64, n int, at time.Time) (b store.Backlog, err error) {
	next, b, err := s.following(ctx, id, n)
	if err != nil || b.Finished() {
		return b, err
	}
	err = s.write(ctx, concurrent, func(ctx context.Context, tx *transaction) error {
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
	return b, err
}

// following returns a backlog, and the first n rows that have still to follow it.
func (s *Store) following(ctx context.Context, id uint64, n int) (next []int64, b store.Backlog, err error) {
	b, err = sqlstore.ReadBacklog(ctx, s, id)
	if err != nil || b.Finished() {
		return nil, b, err
	}
	for _, rows := range layout.ToFollow(b.Step) {
		some, err := sqlstore.ReadAll(ctx, s, sqlstore.Value[int64], "SELECT id FROM "+rows+" ORDER BY id + 0 LIMIT $2", id, max(n, 1)-len(next))
		if err != nil {
			return nil, b, err
		}
		if next = append(next, some...); len(next) >= n {
			break
		}
	}
	return next, b, nil
}

// catchUp lets a row follow its backlogs.
func (tx *transaction) catchUp(ctx context.Context, r *row, at time.Time) error {
	return sqlstore.CatchUp(ctx, tx, r, at, tx.shred)
}

// shred erases the private keys of a key package whose wrapping key is condemned.
func (tx *transaction) shred(ctx context.Context, r *row, at time.Time) error {
	tx.queue(eraseContents, r.ID)
	if r.State != store.Consumed {
		tx.queue(eraseKeyPackage, sqlstore.OptionalSeconds(r.ErasedAt), r.ID)
	}
	return tx.Record(ctx, r.ID, record.ShreddedEntry(r, at))
}
