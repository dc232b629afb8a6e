package sqlstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Counters are what a transaction adds to rows that many acts share: the uses of wrapping keys, and
// the progress of backlogs. They are kept until its end, so that others wait for these rows as
// briefly as possible, and are written in one order, so that nobody waits in a circle.
type Counters struct {
	usable   map[string]int64 // rows of wrapping keys, by their ids
	uses     map[int64]int64  // by the rows of wrapping keys
	moved    map[int64]int64  // key packages that followed, by the backlog
	finished map[int64]time.Time
}

// NewCounters returns the counters of a new transaction.
func NewCounters() *Counters {
	return &Counters{usable: map[string]int64{}, uses: map[int64]int64{}, moved: map[int64]int64{}, finished: map[int64]time.Time{}}
}

// Usable returns the row of a wrapping key that private keys may be put under. The error is
// store.ErrNotFound, or store.ErrWrappingKey if the key is condemned.
func (c *Counters) Usable(ctx context.Context, q Querier, id []byte) (int64, error) {
	if row := c.usable[string(id)]; row != 0 {
		return row, nil
	}
	type found struct {
		row       int64
		condemned bool
	}
	scan := func(row Scanner) (f found, err error) { return f, row.Scan(&f.row, &f.condemned) }
	f, err := One(ctx, q, scan, "SELECT id, condemned FROM wrapping_keys WHERE key_id = $1", Blob(id))
	if err == nil && f.condemned {
		err = store.ErrWrappingKey
	}
	if err != nil {
		return 0, fmt.Errorf("wrapping key %x: %w", id, err)
	}
	c.usable[string(id)] = f.row
	return f.row, nil
}

// Use counts a use of the wrapping key in a row.
func (c *Counters) Use(key int64) { c.uses[key]++ }

// Move counts a key package that followed a backlog.
func (c *Counters) Move(backlog int64) { c.moved[backlog]++ }

// Finish records that a backlog is finished.
func (c *Counters) Finish(backlog uint64, at time.Time) { c.finished[int64(backlog)] = at }

// Write adds to the rows what was counted, and begins anew.
func (c *Counters) Write(ctx context.Context, tx Tx) error {
	for _, key := range slices.Sorted(maps.Keys(c.uses)) {
		if err := tx.Later(ctx, "UPDATE wrapping_keys SET uses = uses + $1 WHERE id = $2", c.uses[key], key); err != nil {
			return err
		}
	}
	for _, backlog := range slices.Sorted(maps.Keys(c.moved)) {
		if err := tx.Later(ctx, "UPDATE backlogs SET moved = moved + $1 WHERE id = $2", c.moved[backlog], backlog); err != nil {
			return err
		}
	}
	for backlog, at := range c.finished {
		if err := tx.Later(ctx, "UPDATE backlogs SET finished_at = $1 WHERE id = $2 AND finished_at IS NULL", Seconds(at), backlog); err != nil {
			return err
		}
	}
	clear(c.uses)
	clear(c.moved)
	clear(c.finished)
	return nil
}
