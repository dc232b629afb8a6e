package sqlite

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Pools implements store.Store. Key packages are
// counted by the numbers of their identities, and named then.
func (s *Store) Pools(ctx context.Context, before ...time.Time) ([]store.Pool, error) {
	state, tables, err := s.counted(ctx)
	if err != nil {
		return nil, err
	}
	var counts, sums strings.Builder
	for i, at := range before {
		fmt.Fprintf(&counts, ", sum(CASE WHEN k.not_after < %d THEN 1 ELSE 0 END) AS e%d", seconds(at), i)
		fmt.Fprintf(&sums, ", CAST(sum(e%d) AS bigint)", i)
	}
	return query(ctx, s.db, poolWith(len(before)), `SELECT i.name, cipher_suite, s, last_resort, CAST(sum(n) AS bigint), min(first)`+sums.String()+` FROM (
		SELECT k.identity, k.version, k.cipher_suite, `+state+` AS s, k.last_resort, count(*) AS n, min(k.not_after) AS first`+counts.String()+tables+`
			WHERE k.consumed_at IS NULL AND k.erased_at IS NULL GROUP BY k.identity, k.version, k.cipher_suite, s, k.last_resort) g
		JOIN (SELECT id, name, version AS current FROM identities) i ON i.id = g.identity
		WHERE g.version <= i.current AND s NOT IN ('consumed', 'erased')
		GROUP BY i.name, cipher_suite, s, last_resort ORDER BY i.name, cipher_suite, s, last_resort`)
}

// poolWith scans a pool with so many counts of what ends.
func poolWith(n int) func(scanner) (store.Pool, error) {
	return func(row scanner) (store.Pool, error) {
		p, first := store.Pool{Ending: make([]uint64, n)}, int64(0)
		to := []any{&p.Identity, &p.Suite, &p.State, &p.LastResort, &p.Count, &first}
		for i := range p.Ending {
			to = append(to, &p.Ending[i])
		}
		err := row.Scan(to...)
		p.FirstEnds = date(first)
		return p, translate(err)
	}
}

// Endings implements store.Store. An index has all of it, unless rows lag behind a backlog.
func (s *Store) Endings(ctx context.Context, from time.Time, span time.Duration, n int) ([]store.Ending, error) {
	state, tables, err := s.counted(ctx)
	if err != nil {
		return nil, err
	}
	scan := func(row scanner) (e store.Ending, err error) {
		err = translate(row.Scan(&e.State, &e.Span, &e.Count))
		return e, err
	}
	spans := fmt.Sprintf("min((not_after - %d) / %d, %d)", seconds(from), int64(span/time.Second), n-1)
	return query(ctx, s.db, scan, `SELECT s, `+spans+` AS number, count(*) FROM (SELECT `+state+` AS s, k.not_after`+tables+`
			WHERE k.state IN ('available', 'published') AND k.consumed_at IS NULL AND k.erased_at IS NULL AND k.not_after >= ?) live
		WHERE s IN ('available', 'published') GROUP BY s, number ORDER BY s, number`, seconds(from))
}
