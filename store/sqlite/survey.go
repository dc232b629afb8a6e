package sqlite

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/store"
)

// surveyed are the key packages that have their private keys, of versions that sign or have
// signed: s is the state of one.
func (s *Store) surveyed(ctx context.Context) (string, error) {
	state, tables, err := s.counted(ctx)
	if tables != keyPackageTables {
		tables += " JOIN identities i ON i.id = k.identity"
	}
	return " FROM (SELECT i.name, k.cipher_suite, " + state + " AS s, k.last_resort, k.not_after" + tables + `
		WHERE k.consumed_at IS NULL AND k.erased_at IS NULL AND k.version <= i.version) live`, err
}

// Pools implements store.Store.
func (s *Store) Pools(ctx context.Context, before ...time.Time) ([]store.Pool, error) {
	live, err := s.surveyed(ctx)
	if err != nil {
		return nil, err
	}
	var ending strings.Builder
	for _, at := range before {
		fmt.Fprintf(&ending, ", sum(CASE WHEN not_after < %d THEN 1 ELSE 0 END)", seconds(at))
	}
	scan := func(row scanner) (p store.Pool, err error) {
		var first int64
		p.Ending = make([]uint64, len(before))
		to := []any{&p.Identity, &p.Suite, &p.State, &p.LastResort, &p.Count, &first}
		for i := range p.Ending {
			to = append(to, &p.Ending[i])
		}
		err = row.Scan(to...)
		p.FirstEnds = date(first)
		return p, translate(err)
	}
	return query(ctx, s.db, scan, "SELECT name, cipher_suite, s, last_resort, count(*), min(not_after)"+ending.String()+live+`
		WHERE s NOT IN ('consumed', 'erased') GROUP BY name, cipher_suite, s, last_resort
		ORDER BY name, cipher_suite, s, last_resort`)
}

// Endings implements store.Store.
func (s *Store) Endings(ctx context.Context, from time.Time, span time.Duration, n int) ([]store.Ending, error) {
	live, err := s.surveyed(ctx)
	if err != nil {
		return nil, err
	}
	scan := func(row scanner) (e store.Ending, err error) {
		err = translate(row.Scan(&e.State, &e.Span, &e.Count))
		return e, err
	}
	text := fmt.Sprintf("min((not_after - %d) / %d, %d)", seconds(from), int64(span/time.Second), n-1)
	return query(ctx, s.db, scan, "SELECT s, "+text+" AS span, count(*)"+live+`
		WHERE s IN ('available', 'published') AND not_after >= ? GROUP BY s, span ORDER BY s, span`, seconds(from))
}
