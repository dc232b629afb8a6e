package sqlite

import (
	"context"
	"database/sql"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// transaction holds the write lock from its beginning.
type transaction struct {
	tx    *sql.Tx
	store *Store
	actor string
	trail *end // once it was read
	// append is the store's, once it was used.
	append *sql.Stmt
	// prepared are the statements that change something, which end with the transaction.
	prepared map[string]*sql.Stmt
	counters *sqlstore.Counters
}

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
