package sqlite

import (
	"context"
	"database/sql"

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
