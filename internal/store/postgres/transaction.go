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

// The advisory locks of a database: "hskp", and what the lock guards.
const (
	lockSchema int64 = 0x68736B70_00000001 + iota // its migration
	lockActs                                      // see kind
	lockTrail                                     // the end of the trail
	lockSweep                                     // sweeps take turns
)

// Acts on keys, identities, intents and backlogs decide for many key packages at once. They hold
// lockActs exclusively: one runs at a time, and no act on key packages runs beside it. Acts on key
// packages share the lock, so that nothing that they rely on changes under them, and lock the rows
// of their own key packages.
const (
	exclusive  kind = "SELECT pg_advisory_xact_lock($1)"
	concurrent kind = "SELECT pg_advisory_xact_lock_shared($1)"
)

// kind is how a transaction takes lockActs.
type kind string

// transaction is one act, or several of one kind. It keeps what it adds to the trail, and to
// counters that many acts share, until its end, so that others wait for it as briefly as possible:
// first it takes the rows of wrapping keys, then those of backlogs, and last the end of the trail.
// All transactions take them in this order, so that they never wait for each other in a circle.
//
// Each message to the server waits for an answer. A statement whose answer is not needed for the
// next one is queued and sent with it. So are the statements that begin and end a transaction.
type transaction struct {
	conn     *pgxpool.Conn
	actor    string
	id       string // of the transaction, once it is about to end
	mark     *mark  // of its last entry, likewise; nil: it has no entry
	mayWait  bool   // a COMMIT may be early: see commitEarly
	early    bool   // COMMIT does not wait for the disk
	ended    bool   // COMMIT was answered
	queued   pgx.Batch
	entries  []numberedEntry
	trail    end
	counters *sqlstore.Counters
}

// mark identifies the last entry of a transaction.
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

// write runs f in a transaction, and again if it was refused in favor of another transaction, or
// lost its connection before COMMIT. If its COMMIT got no answer, write waits until the outcome is
// known.
func (s *Store) write(ctx context.Context, k kind, f func(context.Context, *transaction) error) error {
	err := s.writeOnce(ctx, k, f)
	if u := (*record.Unsettled)(nil); errors.As(err, &u) {
		if err = u.Settle(); err != nil && ctx.Err() != nil && !errors.Is(err, errUnknown) {
			return ctx.Err()
		}
	}
	return err
}

// writeOnce is like write, but returns *record.Unsettled if a COMMIT got no answer.
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

// try runs f in a transaction once. Unless the error is *record.Unsettled, a transaction that
// failed did nothing.
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
	case err == nil, tx.ended && !tx.early: // a later error is about the connection
		return nil
	case !tx.ended && !lost(err) && (ctx.Err() == nil || code(err) != ""):
		return err
	}
	return &record.Unsettled{Settle: func() error { return translate(s.outcome(context.WithoutCancel(ctx), tx, err)) }}
}

// begin begins a transaction when its first statement is sent.
func begin(conn *pgxpool.Conn, k kind) *transaction {
	tx := &transaction{conn: conn, counters: sqlstore.NewCounters()}
	tx.queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	tx.queue(string(k), lockActs)
	return tx
}

// A transaction that has the end of the trail keeps all others waiting, in other processes too, and
// the disk takes longer than everything else. So claims and entries are committed early, without
// waiting for the disk: others see them and go on. Then the caller waits for the disk with a
// transaction that is one record of the WAL and nothing else. A flush of that record flushes
// everything before it, and one flush serves all that wait at the time. As any COMMIT does, it
// follows the server's synchronous_commit, standbys included.
//
// Only what nobody acts on outside the database may be seen before it is on the disk: claims and
// entries. Intents must not: a key would be destroyed for an intent that a crash took back.
const (
	commitEarly = "SET LOCAL synchronous_commit = off"
	waitForDisk = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_logical_emit_message(true, 'hsm-kp', '') END"
)

// Durable implements sqlstore.Database.
func (s *Store) Durable(ctx context.Context) error {
	if !s.mayWait {
		return nil // no COMMIT is early
	}
	_, err := s.pool.Exec(ctx, waitForDisk)
	return translate(err)
}

// commit sends what is queued with COMMIT. If one of these statements fails, the server skips
// those after it, COMMIT too.
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

// rollback ends a transaction that was not committed. A connection that is no longer usable is
// closed when it is released.
func (tx *transaction) rollback(ctx context.Context) {
	if c := tx.conn.Conn(); !c.IsClosed() && c.PgConn().TxStatus() != 'I' {
		c.Exec(ctx, "ROLLBACK")
	}
}

// queue queues a statement. It is sent before the next one that is not queued, or at the end.
func (tx *transaction) queue(text string, args ...any) *pgx.QueuedQuery {
	return tx.queued.Queue(text, args...)
}

// queueAll queues a query and stores its rows in *to.
func queueAll[T any](tx *transaction, to *[]T, scan func(sqlstore.Scanner) (T, error), text string, args ...any) {
	tx.queue(text, args...).Query(func(rows pgx.Rows) (err error) {
		*to, err = pgx.AppendRows([]T(nil), rows, func(r pgx.CollectableRow) (T, error) { return scan(r) })
		return err
	})
}

// flush sends what is queued, and waits for the answers.
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

// query returns rows with their values as PostgreSQL has them.
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

// end writes what was kept for the end, except for what goes with COMMIT.
func (tx *transaction) end(ctx context.Context) error {
	if err := tx.counters.Write(ctx, tx); err != nil {
		return err
	}
	return tx.chain(ctx)
}
