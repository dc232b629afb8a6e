package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"strings"

	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

var (
	_ record.Source = (*Store)(nil)
	_ record.Sink   = (*Store)(nil)
)

// Snapshot implements record.Source. It holds the write lock.
func (s *Store) Snapshot(ctx context.Context, f func(record.Snapshot) error) error {
	return s.write(ctx, func(_ context.Context, tx *transaction) error { return f(snapshot{tx.tx}) })
}

type snapshot struct{ tx *sql.Tx }

// quoted returns the names of the columns, some of which are SQL keywords.
func quoted(t *record.Table) string { return `"` + strings.Join(t.Names(), `", "`) + `"` }

func (s snapshot) Rows(ctx context.Context, t *record.Table) iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		rows, err := s.tx.QueryContext(ctx, "SELECT "+quoted(t)+" FROM "+t.Name+" ORDER BY 1")
		if err != nil {
			yield(nil, translate(err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			values, err := scanValues(rows, t)
			if !yield(values, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, translate(err))
		}
	}
}

func scanValues(rows *sql.Rows, t *record.Table) ([]any, error) {
	values, to := make([]any, len(t.Columns)), make([]any, len(t.Columns))
	for i := range values {
		to[i] = &values[i]
	}
	if err := rows.Scan(to...); err != nil {
		return nil, translate(err)
	}
	for i, c := range t.Columns {
		if n, ok := values[i].(int64); ok && c.Kind == record.Flag {
			values[i] = n != 0
		}
	}
	return values, nil
}

// Load implements record.Sink.
func (s *Store) Load(ctx context.Context, from record.Snapshot) (counts map[string]int64, err error) {
	counts = make(map[string]int64)
	err = s.write(ctx, func(ctx context.Context, tx *transaction) error {
		for _, t := range record.Tables {
			if counts[t.Name], err = tx.load(ctx, t, from.Rows(ctx, t)); err != nil {
				return fmt.Errorf("table %s: %w", t.Name, err)
			}
		}
		return nil
	})
	return counts, err
}

func (tx *transaction) load(ctx context.Context, t *record.Table, rows iter.Seq2[[]any, error]) (n int64, err error) {
	some, err := sqlstore.One(ctx, tx, sqlstore.Value[bool], "SELECT EXISTS (SELECT 1 FROM "+t.Name+")")
	if err != nil || some {
		if some {
			err = record.ErrNotEmpty
		}
		return 0, err
	}
	insert, err := tx.tx.PrepareContext(ctx, "INSERT INTO "+t.Name+" ("+quoted(t)+") VALUES (?"+strings.Repeat(", ?", len(t.Columns)-1)+")")
	if err != nil {
		return 0, err
	}
	defer insert.Close()
	for values, err := range rows {
		if err == nil {
			_, err = insert.ExecContext(ctx, storable(values)...)
		}
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// storable replaces nil bytes, which would be NULL.
func storable(values []any) []any {
	for i, v := range values {
		if b, ok := v.([]byte); ok {
			values[i] = sqlstore.Blob(b)
		}
	}
	return values
}
