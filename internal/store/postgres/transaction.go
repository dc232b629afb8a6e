package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/backoff"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// Advisory locks of a database that stores use: "hskp", and what for.
const (
	lockSchema int64 = 0x68736B70_00000001 + iota // its migration
	lockActs                                      // see kind
	lockTrail                                     // the end of the trail
	lockSweep                                     // sweeps take turns
)

// Acts on keys, identities, intents and backlogs decide for many key packages at once, and
// take place one after the other and beside no act on key packages: they have lockActs for
// themselves. Acts on key packages share it, so that none of what they rest on changes under
// them, and lock the rows of those they are about.
const (
	exclusive  kind = "SELECT pg_advisory_xact_lock($1)"
	concurrent kind = "SELECT pg_advisory_xact_lock_shared($1)"
)

// kind is how a transaction takes lockActs.
type kind string

// transaction is one act, or several of one kind. What it adds to the trail, and to counters
// that many acts share, is kept until its end, so that others wait for it for as short as can
// be: the rows of wrapping keys, those of backlogs, and last of all the end of the trail. That
// all take these in one order keeps them from waiting for each other in a circle.
//
// Each message to the server is a wait for its answer. What need not be answered before the
// next statement is queued, and goes with it; so does what begins a transaction, and what ends it.
type transaction struct {
	conn     *pgxpool.Conn
	actor    string
	id       string // of the transaction, once it is about to end
	mark     *mark  // what it leaves behind, likewise; nil: nothing in the trail
	mayWait  bool   // for the disk after COMMIT, if that is to be early
	early    bool   // COMMIT does not wait for the disk
	ended    bool   // COMMIT was answered
	queued   pgx.Batch
	entries  []numberedEntry
	trail    end
	counters *sqlstore.Counters
}

// mark is what the last entry of a transaction has, by which it is known again.
type mark struct {
	sequence int64
	random   []byte
}

// numberedEntry is an entry of the trail with the row of the key package that it is about, or 0.
type numberedEntry struct {
	keyPackage int64
	audit.Entry
}

// attempts is how often a transaction is tried that was refused in favor of another, or whose
// connection was dead.
const attempts = 8

// between is how long to wait between two attempts.
var between = backoff.Backoff{First: 20 * time.Millisecond, Most: 100 * time.Millisecond}

// write runs f in a transaction, and again where it was refused for the sake of another
// transaction, or lost its connection before it was committed. Where its COMMIT got no answer, it
// waits until it is known what became of it.
func (s *Store) write(ctx context.Context, k kind, f func(context.Context, *transaction) error) error {
	err := s.writeOnce(ctx, k, f)
	if u := (*record.Unsettled)(nil); errors.As(err, &u) {
		if err = u.Settle(); err != nil && ctx.Err() != nil && !errors.Is(err, errUnknown) {
			return ctx.Err()
		}
	}
	return err
}

// writeOnce is write, but that it is *record.Unsettled where a COMMIT got no answer.
func (s *Store) writeOnce(ctx context.Context, k kind, f func(context.Context, *transaction) error) error {
	for tried := 1; ; tried++ {
		err := s.try(ctx, k, f)
		if u := (*record.Unsettled)(nil); errors.As(err, &u) {
			return err
		}
		if ctx.Err() != nil && err != nil {
			return ctx.Err()
		}
		if err == nil || tried == attempts || !again(err) {
			return translate(err)
		}
		s.discard(err)
		if err := backoff.Sleep(ctx, between.Delay(tried-1)); err != nil {
			return err
		}
	}
}

// try runs f in a transaction once. Where the error is not *record.Unsettled, nothing was done.
func (s *Store) try(ctx context.Context, k kind, f func(context.Context, *transaction) error) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	tx := begin(conn, k)
	tx.actor, tx.mayWait = store.Actor(ctx), s.mayWait
	defer tx.rollback(context.WithoutCancel(ctx))
	if err = f(ctx, tx); err == nil {
		err = tx.end(ctx)
	}
	if err != nil {
		return err
	}
	switch err = tx.commit(ctx); {
	case err == nil, tx.ended && !tx.early: // what came after the answer is about the connection
		return nil
	case !tx.ended && !lost(err) && (ctx.Err() == nil || code(err) != ""):
		return err
	}
	return &record.Unsettled{Settle: func() error { return translate(s.outcome(context.WithoutCancel(ctx), tx, err)) }}
}

// begin begins a transaction, with its first statement.
func begin(conn *pgxpool.Conn, k kind) *transaction {
	tx := &transaction{conn: conn, counters: sqlstore.NewCounters()}
	tx.queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	tx.queue(string(k), lockActs)
	return tx
}

// Whoever has the end of the trail keeps all other transactions waiting, those of other processes
// too, and a disk takes longer than all that they do. So claims and entries are committed without
// waiting for it: others see them then, and go on. After that it is waited for, with a transaction
// that is a record of the WAL and nothing else. What is flushed with a record is all that comes
// before it, and one flush is for all that wait at the time. It goes by the server's
// synchronous_commit, standbys included, as any COMMIT does.
//
// Only what nobody acts on outside the database may be seen before it is on the disk: claims and
// entries. Not so intents: a key would be destroyed for one that a crash took back.
const (
	commitEarly = "SET LOCAL synchronous_commit = off"
	waitForDisk = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_logical_emit_message(true, 'hsm-kp', '') END"
)

// Durable implements sqlstore.Database.
func (s *Store) Durable(ctx context.Context) error {
	if !s.mayWait {
		return nil // no COMMIT is early then
	}
	_, err := s.pool.Exec(ctx, waitForDisk)
	return translate(err)
}

// commit sends what is queued, and COMMIT with it. Where a statement of these fails, those after
// it are passed over, COMMIT too.
func (tx *transaction) commit(ctx context.Context) error {
	if tx.early {
		tx.queue(commitEarly)
	}
	tx.queue("COMMIT").Exec(func(tag pgconn.CommandTag) error {
		if tx.ended = tag.String() == "COMMIT"; !tx.ended {
			return pgx.ErrTxCommitRollback
		}
		return nil
	})
	if tx.early {
		tx.queue(waitForDisk)
	}
	return tx.flush(ctx)
}

// rollback ends a transaction that was not committed. A connection that cannot be used any more
// is closed when it is released.
func (tx *transaction) rollback(ctx context.Context) {
	if c := tx.conn.Conn(); !c.IsClosed() && c.PgConn().TxStatus() != 'I' {
		c.Exec(ctx, "ROLLBACK")
	}
}

// queue queues a statement. It is sent before the next one that is not queued, or at the end.
func (tx *transaction) queue(text string, args ...any) *pgx.QueuedQuery {
	return tx.queued.Queue(text, args...)
}

// queueAll queues a query, whose rows are put in the place that to points to.
func queueAll[T any](tx *transaction, to *[]T, scan func(sqlstore.Scanner) (T, error), text string, args ...any) {
	tx.queue(text, args...).Query(func(rows pgx.Rows) (err error) {
		*to, err = pgx.AppendRows([]T(nil), rows, func(r pgx.CollectableRow) (T, error) { return scan(r) })
		return err
	})
}

// flush sends what is queued, and waits for it.
func (tx *transaction) flush(ctx context.Context) error {
	if tx.queued.Len() == 0 {
		return nil
	}
	queued := tx.queued
	tx.queued = pgx.Batch{}
	return tx.conn.SendBatch(ctx, &queued).Close()
}

// Each implements sqlstore.Querier.
func (tx *transaction) Each(ctx context.Context, scan func(sqlstore.Scanner) error, text string, args ...any) error {
	if err := tx.flush(ctx); err != nil {
		return err
	}
	return each(ctx, tx.conn, scan, text, args...)
}

// query returns rows as PostgreSQL has them.
func (tx *transaction) query(ctx context.Context, text string, args ...any) (pgx.Rows, error) {
	if err := tx.flush(ctx); err != nil {
		return nil, err
	}
	return tx.conn.Query(ctx, text, args...)
}

// copyFrom adds rows to a table.
func (tx *transaction) copyFrom(ctx context.Context, table string, columns []string, rows pgx.CopyFromSource) (int64, error) {
	if err := tx.flush(ctx); err != nil {
		return 0, err
	}
	return tx.conn.CopyFrom(ctx, pgx.Identifier{table}, columns, rows)
}

// Change implements sqlstore.Tx.
func (tx *transaction) Change(ctx context.Context, text string, args ...any) (int64, error) {
	if err := tx.flush(ctx); err != nil {
		return 0, err
	}
	tag, err := tx.conn.Exec(ctx, text, args...)
	return tag.RowsAffected(), err
}

// Later implements sqlstore.Tx.
func (tx *transaction) Later(_ context.Context, text string, args ...any) error {
	tx.queue(text, args...)
	return nil
}

// Counters implements sqlstore.Tx.
func (tx *transaction) Counters() *sqlstore.Counters { return tx.counters }

// end does what was kept for the end, but for what goes with COMMIT.
func (tx *transaction) end(ctx context.Context) error {
	if err := tx.counters.Write(ctx, tx); err != nil {
		return err
	}
	return tx.chain(ctx)
}
