package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

var _ sqlstore.Database = (*Store)(nil)

// Read implements sqlstore.Database. It runs f again if its connection was dead, as all are that
// were open before the server was restarted.
func (s *Store) Read(ctx context.Context, f func(context.Context, sqlstore.Querier) error) error {
	err := f(ctx, reader{s.pool})
	for tried := 1; tried < 3 && err != nil && again(err) && ctx.Err() == nil; tried++ {
		s.discard(err)
		err = f(ctx, reader{s.pool})
	}
	return translate(err)
}

// reader reads outside a transaction.
type reader struct{ pool *pgxpool.Pool }

// Each implements sqlstore.Querier.
func (r reader) Each(ctx context.Context, scan func(sqlstore.Scanner) error, text string, args ...any) error {
	return each(ctx, r.pool, scan, text, args...)
}

func each(ctx context.Context, q interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
}, scan func(sqlstore.Scanner) error, text string, args ...any) error {
	rows, err := q.Query(ctx, text, args...)
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

// Exclusive implements sqlstore.Database.
func (s *Store) Exclusive(ctx context.Context, f func(context.Context, sqlstore.Tx) error) error {
	return s.write(ctx, exclusive, func(ctx context.Context, tx *transaction) error { return f(ctx, tx) })
}

// Concurrent implements sqlstore.Database.
func (s *Store) Concurrent(ctx context.Context, f func(context.Context, sqlstore.Tx) error) error {
	return s.write(ctx, concurrent, func(ctx context.Context, tx *transaction) error { return f(ctx, tx) })
}

// Grouped implements sqlstore.Database.
func (s *Store) Grouped(ctx context.Context, f func(context.Context, sqlstore.Tx) error) error {
	return s.share(ctx, func(ctx context.Context, tx *transaction) error { return f(ctx, tx) })
}
