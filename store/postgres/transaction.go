package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/audit"
	"github.com/hsm-kp/hsm-kp/store"
)

// Advisory locks of a database that stores use: "hskp", and what for.
const (
	lockSchema int64 = 0x68736B70_00000001 + iota // its migration
	lockActs                                      // see begin
	lockTrail                                     // the end of the trail
	lockSweep                                     // sweeps take turns
)

// Acts on keys, identities, intents and backlogs decide for many key packages at once, and
// take place one after the other and beside no act on key packages: they have lockActs for
// themselves. Acts on key packages share it, so that none of what they rest on changes under
// them, and lock the rows of those they are about.
var (
	alone  = begin("pg_advisory_xact_lock")
	beside = begin("pg_advisory_xact_lock_shared")
)

// begin begins a transaction and takes lockActs in one message.
func begin(lock string) pgx.TxOptions {
	return pgx.TxOptions{BeginQuery: fmt.Sprintf("BEGIN ISOLATION LEVEL READ COMMITTED; SELECT %s(%d)", lock, lockActs)}
}

// transaction is one act, or several of one kind. What it adds to the trail, and to counters
// that many acts share, is kept until its end, so that others wait for it for as short as can
// be: the rows of wrapping keys, those of backlogs, and last of all the end of the trail. That
// all take these in one order keeps them from waiting for each other in a circle.
type transaction struct {
	pgx.Tx
	actor   string
	id      string // of the transaction, once it is about to end
	mark    *mark  // what it leaves behind, likewise; nil: nothing in the trail
	queued  pgx.Batch
	entries []numberedEntry
	uses    map[int64]int64 // more uses of wrapping keys, by their row
	moved   map[int64]int64 // more key packages moved, by the backlog
	// finished are backlogs that are finished with this transaction.
	finished []finished
	// wrappingKeys are rows of those that private keys may be put under, by their ids.
	wrappingKeys map[string]int64
}

// mark is the last entry of a transaction, by which it is known again.
type mark struct {
	sequence int64
	hash     []byte
}

type finished struct {
	backlog int64
	at      time.Time
}

// numberedEntry is an entry of the trail with the row of the key package that it is about, or 0.
type numberedEntry struct {
	keyPackage int64
	audit.Entry
}

// attempts are how often a transaction is begun that was refused for the sake of another, or
// whose connection turned out to be dead; pause is the mean of the wait before another.
const (
	attempts = 8
	pause    = 10 * time.Millisecond
)

// write runs f in a transaction, and again where it was refused for the sake of another
// transaction, or lost its connection before it was committed.
func (s *Store) write(ctx context.Context, kind pgx.TxOptions, f func(context.Context, *transaction) error) error {
	for tried := 1; ; tried++ {
		committing, err := s.try(ctx, kind, f)
		if ctx.Err() != nil && err != nil && !errors.Is(err, errUnknown) {
			return ctx.Err()
		}
		if err == nil || tried == attempts || committing || !again(err) {
			return translate(err)
		}
		s.discard(err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(rand.N(2 * pause * time.Duration(tried))):
		}
	}
}

// try runs f in a transaction once. Whether it was committed is known where committing is
// false; else it is what the error says.
func (s *Store) try(ctx context.Context, kind pgx.TxOptions, f func(context.Context, *transaction) error) (committing bool, err error) {
	begun, err := s.pool.BeginTx(ctx, kind)
	if err != nil {
		return false, err
	}
	tx := &transaction{Tx: begun, actor: store.Actor(ctx), uses: map[int64]int64{}, moved: map[int64]int64{}, wrappingKeys: map[string]int64{}}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if err = f(ctx, tx); err == nil {
		err = tx.end(ctx)
	}
	if err != nil {
		return false, err
	}
	if err = tx.Commit(ctx); err == nil || !lost(err) && ctx.Err() == nil {
		return false, err
	}
	return true, s.outcome(ctx, tx, err)
}

// errUnknown reports a transaction of which nobody could say whether it was committed.
var errUnknown = errors.New("whether the last act was done is not known")

// patience is how long the server is asked what became of a transaction.
const patience = 10 * time.Second

// outcome asks the server what became of a transaction whose COMMIT got no answer. It returns
// nil where it was committed, cause where it was not.
func (s *Store) outcome(ctx context.Context, tx *transaction, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	s.discard(cause)
	for {
		switch done, known := s.committed(ctx, tx); {
		case known && done:
			return nil
		case known:
			return fmt.Errorf("%w: nothing was done: %w", store.ErrAway, cause)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w: %w", store.ErrAway, errUnknown, cause)
		case <-time.After(5 * pause):
		}
	}
}

// committed asks whether a transaction was committed. Its number alone does not tell: a server
// that was cut off forgets the numbers that were not on its disk yet, and gives them to others.
// So its entry has to be there too. It is looked for afterwards: what was committed when the
// server was asked is seen then.
func (s *Store) committed(ctx context.Context, tx *transaction) (done, known bool) {
	var status *string
	err := s.pool.QueryRow(ctx, "SELECT pg_xact_status($1::text::xid8)", tx.id).Scan(&status)
	switch {
	case code(err) == codeInvalid: // a number that is not given out yet
		return false, true
	case err != nil || status == nil:
		return false, false
	case *status == "aborted":
		return false, true
	case *status != "committed":
		return false, false
	case tx.mark == nil:
		return true, true
	}
	var hash []byte
	err = s.pool.QueryRow(ctx, "SELECT hash FROM audit WHERE sequence = $1", tx.mark.sequence).Scan(&hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, true
	}
	return bytes.Equal(hash, tx.mark.hash), err == nil
}

// later queues a statement that changes rows. It is sent before the next one that is not
// queued, or at the end.
func (tx *transaction) later(text string, args ...any) { tx.queued.Queue(text, args...) }

// flush sends what is queued, and waits for it.
func (tx *transaction) flush(ctx context.Context) error {
	if tx.queued.Len() == 0 {
		return nil
	}
	queued := tx.queued
	tx.queued = pgx.Batch{}
	return tx.SendBatch(ctx, &queued).Close()
}

// change runs a statement and returns how many rows it changed.
func (tx *transaction) change(ctx context.Context, text string, args ...any) (int64, error) {
	if err := tx.flush(ctx); err != nil {
		return 0, err
	}
	tag, err := tx.Exec(ctx, text, args...)
	return tag.RowsAffected(), err
}

// count sends what is queued and adds to the counters.
func (tx *transaction) count(ctx context.Context) error {
	for _, key := range slices.Sorted(maps.Keys(tx.uses)) {
		tx.later("UPDATE wrapping_keys SET uses = uses + $1 WHERE id = $2", tx.uses[key], key)
	}
	for _, backlog := range slices.Sorted(maps.Keys(tx.moved)) {
		tx.later("UPDATE backlogs SET moved = moved + $1 WHERE id = $2", tx.moved[backlog], backlog)
	}
	for _, f := range tx.finished {
		tx.later("UPDATE backlogs SET finished_at = $1 WHERE id = $2 AND finished_at IS NULL", seconds(f.at), f.backlog)
	}
	tx.finished = nil
	clear(tx.uses)
	clear(tx.moved)
	return tx.flush(ctx)
}

// end does what was kept for the end.
func (tx *transaction) end(ctx context.Context) error {
	if err := tx.count(ctx); err != nil {
		return err
	}
	return tx.chain(ctx)
}
