// Package sqlstore has the part of a store that is written once, in SQL that SQLite and PostgreSQL
// both understand: the acts that run seldom (on identities, intents, wrapping keys, audit keys,
// accounts, leases and backlogs), the surveys, reading the trail, and the steps of key packages that
// differ only in where their private keys are. Claims, dispatch, reservations, sweeps and writing to
// the trail are each backend's own.
//
// A text runs on both backends if it keeps these rules:
//
//   - Arguments are $1, $2 and so on, and appear for the first time in this order: SQLite numbers
//     them by first appearance.
//   - Times are whole seconds since the epoch. A flag is a condition by itself (WHERE current, not
//     WHERE current = 1). Empty bytes are an argument, because their literals differ.
//   - An INSERT that may meet an existing row and goes on has ON CONFLICT: in PostgreSQL, a
//     statement that fails ends the transaction.
//   - An order that has to be the same in both is made in Go: how PostgreSQL compares text is a
//     setting of the database.
//
// The rest that differs is a Layout: where key packages are, and which index finds them.
package sqlstore

import (
	"context"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// Scanner is a row of a query.
type Scanner interface{ Scan(...any) error }

// Querier reads.
type Querier interface {
	// Each runs a query and calls scan for each of its rows, until scan fails.
	Each(ctx context.Context, scan func(Scanner) error, text string, args ...any) error
}

// Tx is a transaction.
type Tx interface {
	Querier
	// Change runs a statement and returns how many rows it changed.
	Change(ctx context.Context, text string, args ...any) (int64, error)
	// Later runs a statement before the next one that is not run later, or before the
	// transaction ends. It may fail then.
	Later(ctx context.Context, text string, args ...any) error
	// Record adds an entry to the audit trail. Sequence, and Actor if it is empty, are set.
	// keyPackage is the row of the key package that the entry is about, or 0.
	Record(ctx context.Context, keyPackage int64, e audit.Entry) error
	// KeyPackages returns key packages that are to be changed, in the order of refs. Their rows
	// follow their backlogs first, and nobody else changes them until the transaction ends. A
	// ref that is there twice has one row. The error is store.ErrNotFound.
	KeyPackages(ctx context.Context, refs [][]byte, at time.Time) ([]*record.Row, error)
	// Counters returns those of the transaction, which are written at its end.
	Counters() *Counters
}

// Database is a backend. It runs functions in transactions, perhaps more than once, and
// returns errors that wrap those of package store.
type Database interface {
	// Read runs f outside a transaction.
	Read(ctx context.Context, f func(context.Context, Querier) error) error
	// Exclusive runs f in a transaction beside which no other act takes place: f decides for
	// many key packages.
	Exclusive(ctx context.Context, f func(context.Context, Tx) error) error
	// Concurrent runs f in a transaction that may take place beside acts on key packages.
	Concurrent(ctx context.Context, f func(context.Context, Tx) error) error
	// Grouped runs f like Concurrent, in a transaction that it may share with other acts: a
	// group commit. If f fails, it alone fails.
	Grouped(ctx context.Context, f func(context.Context, Tx) error) error
	// Durable returns when all that was committed by then survives a crash.
	Durable(ctx context.Context) error
}

// Acts are the acts that both backends have in common. A backend embeds them.
type Acts struct {
	db     Database
	layout Layout
}

// New returns the acts on a database.
func New(db Database, l Layout) *Acts { return &Acts{db, l} }

// All returns all rows of a query.
func All[T any](ctx context.Context, q Querier, scan func(Scanner) (T, error), text string, args ...any) (all []T, err error) {
	err = q.Each(ctx, func(row Scanner) error {
		v, err := scan(row)
		all = append(all, v)
		return err
	}, text, args...)
	if err != nil {
		return nil, err
	}
	return all, nil
}

// One returns the first row of a query, or store.ErrNotFound.
func One[T any](ctx context.Context, q Querier, scan func(Scanner) (T, error), text string, args ...any) (first T, err error) {
	all, err := All(ctx, q, scan, text, args...)
	switch {
	case err != nil:
		return first, err
	case len(all) == 0:
		return first, store.ErrNotFound
	}
	return all[0], nil
}

// ReadAll returns all rows of a query outside a transaction.
func ReadAll[T any](ctx context.Context, db Database, scan func(Scanner) (T, error), text string, args ...any) (all []T, err error) {
	err = db.Read(ctx, func(ctx context.Context, q Querier) (err error) {
		all, err = All(ctx, q, scan, text, args...)
		return err
	})
	return all, err
}

// ReadOne returns the first row of a query outside a transaction, or store.ErrNotFound.
func ReadOne[T any](ctx context.Context, db Database, scan func(Scanner) (T, error), text string, args ...any) (first T, err error) {
	err = db.Read(ctx, func(ctx context.Context, q Querier) (err error) {
		first, err = One(ctx, q, scan, text, args...)
		return err
	})
	return first, err
}

// Value scans rows of one column.
func Value[T any](row Scanner) (v T, err error) { return v, row.Scan(&v) }
