package sqlite

import (
	"context"
	"database/sql"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

var _ sqlstore.Database = (*Store)(nil)

// Read implements sqlstore.Database.
func (s *Store) Read(ctx context.Context, f func(context.Context, sqlstore.Querier) error) error {
	return translate(f(ctx, reader{s.reader}))
}

// reader reads outside a transaction.
type reader struct{ db *sql.DB }

// Each implements sqlstore.Querier.
func (r reader) Each(ctx context.Context, scan func(sqlstore.Scanner) error, text string, args ...any) error {
	return each(ctx, r.db, scan, text, args...)
}

func each(ctx context.Context, q interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}, scan func(sqlstore.Scanner) error, text string, args ...any) error {
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Exclusive implements sqlstore.Database: there is one writer at a time.
func (s *Store) Exclusive(ctx context.Context, f func(context.Context, sqlstore.Tx) error) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error { return f(ctx, tx) })
}

// Concurrent implements sqlstore.Database.
func (s *Store) Concurrent(ctx context.Context, f func(context.Context, sqlstore.Tx) error) error {
	return s.Exclusive(ctx, f)
}

// Grouped implements sqlstore.Database.
func (s *Store) Grouped(ctx context.Context, f func(context.Context, sqlstore.Tx) error) error {
	return s.share(ctx, func(ctx context.Context, tx *transaction) error { return f(ctx, tx) })
}

// Durable implements sqlstore.Database: a commit is durable when it returns.
func (s *Store) Durable(context.Context) error { return nil }

// transaction holds the write lock from its beginning.
type transaction struct {
	tx    *sql.Tx
	store *Store
	actor string
	end   *end // of the trail, once it was read
	// append is the store's, once it was used.
	append *sql.Stmt
	// prepared are the statements that change something, which end with the transaction.
	prepared map[string]*sql.Stmt
	counters *sqlstore.Counters
}

// Each implements sqlstore.Querier.
func (tx *transaction) Each(ctx context.Context, scan func(sqlstore.Scanner) error, text string, args ...any) error {
	return each(ctx, tx.tx, scan, text, args...)
}

// Change implements sqlstore.Tx. It prepares a statement once: many run for row after row.
func (tx *transaction) Change(ctx context.Context, text string, args ...any) (int64, error) {
	stmt := tx.prepared[text]
	if stmt == nil {
		var err error
		if stmt, err = tx.tx.PrepareContext(ctx, text); err != nil {
			return 0, err
		}
		tx.prepared[text] = stmt
	}
	result, err := stmt.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// Later implements sqlstore.Tx: nothing is gained by running a statement later.
func (tx *transaction) Later(ctx context.Context, text string, args ...any) error {
	_, err := tx.Change(ctx, text, args...)
	return err
}

// Counters implements sqlstore.Tx.
func (tx *transaction) Counters() *sqlstore.Counters { return tx.counters }

// write runs f in a transaction. If ctx ends, it is rolled back. The statements of f get a context
// that does not end: for one that may, the driver starts a goroutine at each statement, which
// doubles the cost of a row.
func (s *Store) write(ctx context.Context, f func(context.Context, *transaction) error) error {
	begun, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return translate(err)
	}
	defer begun.Rollback()
	tx := &transaction{tx: begun, store: s, actor: store.Actor(ctx), prepared: make(map[string]*sql.Stmt), counters: sqlstore.NewCounters()}
	inside := context.WithoutCancel(ctx)
	if err = f(inside, tx); err == nil {
		err = tx.counters.Write(inside, tx)
	}
	if err == nil {
		err = begun.Commit()
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // it was rolled back under f
	}
	return translate(err)
}

// smallAct is an act that may share a transaction with others.
type smallAct func(context.Context, *transaction) error

// share runs f in a transaction that it may share with others that wait for one.
func (s *Store) share(ctx context.Context, f smallAct) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.small.Do(ctx, f)
}

// smallActs runs acts in one transaction, each in the name of its own actor.
func (s *Store) smallActs(ctx context.Context, group []*record.Waiting[smallAct]) error {
	return s.write(ctx, func(_ context.Context, tx *transaction) error {
		for _, one := range group {
			tx.actor = store.Actor(one.Context)
			if err := one.Act(context.WithoutCancel(one.Context), tx); err != nil {
				return err
			}
		}
		return nil
	})
}
