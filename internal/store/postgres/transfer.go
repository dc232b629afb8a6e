package postgres

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

var (
	_ record.Source = (*Store)(nil)
	_ record.Sink   = (*Store)(nil)
)

// Snapshot implements record.Source. No other act takes place beside it.
func (s *Store) Snapshot(ctx context.Context, f func(record.Snapshot) error) error {
	return s.write(ctx, exclusive, func(_ context.Context, tx *transaction) error { return f(snapshot{tx}) })
}

type snapshot struct{ tx *transaction }

// Rows implements record.Snapshot. It reads one table at a time.
func (s snapshot) Rows(ctx context.Context, t *record.Table) iter.Seq2[[]any, error] {
	return func(yield func([]any, error) bool) {
		rows, err := s.tx.query(ctx, `SELECT "`+strings.Join(t.Names(), `", "`)+`" FROM `+from(t)+" ORDER BY 1")
		if err != nil {
			yield(nil, translate(err))
			return
		}
		defer rows.Close()
		for rows.Next() {
			values, err := rows.Values()
			if err == nil {
				widen(values)
			}
			if !yield(values, err) || err != nil {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(nil, translate(err))
		}
	}
}

// from is FROM for a table of package record: key packages are in two tables here.
func from(t *record.Table) string {
	if t.Name == "key_packages" {
		return "key_packages JOIN contents USING (id)"
	}
	return t.Name
}

// widen makes numbers of all sizes an int64, as record.Number has it.
func widen(values []any) {
	for i, v := range values {
		if n, ok := v.(int32); ok {
			values[i] = int64(n)
		}
	}
}

// Load implements record.Sink.
func (s *Store) Load(ctx context.Context, from record.Snapshot) (counts map[string]int64, err error) {
	counts = make(map[string]int64)
	err = s.write(ctx, exclusive, func(ctx context.Context, tx *transaction) error {
		for _, t := range record.Tables {
			if counts[t.Name], err = tx.load(ctx, t, from.Rows(ctx, t)); err != nil {
				return fmt.Errorf("table %s: %w", t.Name, err)
			}
		}
		return nil
	})
	return counts, err
}

func (tx *transaction) load(ctx context.Context, t *record.Table, rows iter.Seq2[[]any, error]) (int64, error) {
	some, err := sqlstore.One(ctx, tx, sqlstore.Value[bool], "SELECT EXISTS (SELECT 1 FROM "+t.Name+")")
	if err != nil || some {
		if some {
			err = record.ErrNotEmpty
		}
		return 0, err
	}
	next, stop := iter.Pull2(rows)
	defer stop()
	source := pgx.CopyFromFunc(func() ([]any, error) {
		values, err, ok := next()
		if !ok {
			return nil, nil
		}
		return values, err
	})
	var n int64
	if t.Name == "key_packages" {
		n, err = tx.loadKeyPackages(ctx, t.Names(), source)
	} else {
		n, err = tx.copyFrom(ctx, t.Name, t.Names(), source)
	}
	if err == nil && t.Serial { // the next row gets the number after the last
		_, err = tx.Change(ctx, "SELECT setval(pg_get_serial_sequence($1, 'id'), coalesce(max(id), 1), max(id) IS NOT NULL) FROM "+t.Name, t.Name)
	}
	return n, err
}

// loadKeyPackages splits rows with all columns of key packages into rows of the two tables.
func (tx *transaction) loadKeyPackages(ctx context.Context, columns []string, rows pgx.CopyFromSource) (n int64, err error) {
	if _, err = tx.Change(ctx, "CREATE TEMPORARY TABLE loading ON COMMIT DROP AS SELECT * FROM key_packages JOIN contents USING (id) WITH NO DATA"); err == nil {
		n, err = tx.copyFrom(ctx, "loading", columns, rows)
	}
	parts := map[string][]string{"contents": {"id"}}
	for _, column := range columns {
		table := "key_packages"
		if slices.Contains(contentColumns, column) && column != "id" {
			table = "contents"
		}
		parts[table] = append(parts[table], column)
	}
	for _, table := range []string{"key_packages", "contents"} {
		list := `"` + strings.Join(parts[table], `", "`) + `"`
		if err == nil {
			_, err = tx.Change(ctx, "INSERT INTO "+table+" ("+list+") SELECT "+list+" FROM loading ORDER BY id")
		}
	}
	return n, err
}
