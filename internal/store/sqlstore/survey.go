package sqlstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// counted returns the state of a key package k, and FROM with the tables that it is found in: an
// index has it, unless rows lag behind a backlog.
func (a *Acts) counted(ctx context.Context, q Querier) (state, from string, err error) {
	lags, err := Lags(ctx, q)
	if lags {
		return a.layout.State(), a.layout.Lagging, err
	}
	return "k.state", " FROM key_packages k", err
}

// count returns the rows of a query about key packages. The query is written for their state, and
// for the tables that they are found in.
func count[T any](ctx context.Context, a *Acts, scan func(Scanner) (T, error), query func(state, from string) string, args ...any) (rows []T, err error) {
	err = a.db.Read(ctx, func(ctx context.Context, q Querier) error {
		state, from, err := a.counted(ctx, q)
		if err == nil {
			rows, err = All(ctx, q, scan, query(state, from), args...)
		}
		return err
	})
	return rows, err
}

// byState is a number of key packages in one state.
type byState struct {
	state store.State
	n     uint64
}

func scanByState(row Scanner) (c byState, err error) { return c, row.Scan(&c.state, &c.n) }

// Pools implements store.Store. Key packages are counted by the numbers of their identities, and
// named then.
func (a *Acts) Pools(ctx context.Context, before ...time.Time) ([]store.Pool, error) {
	var counts, sums strings.Builder
	for i, at := range before {
		fmt.Fprintf(&counts, ", sum(CASE WHEN k.not_after < %d THEN 1 ELSE 0 END) AS e%d", Seconds(at), i)
		fmt.Fprintf(&sums, ", CAST(sum(e%d) AS bigint)", i)
	}
	pools, err := count(ctx, a, poolWith(len(before)), func(state, from string) string {
		return `SELECT i.name, cipher_suite, s, last_resort, CAST(sum(n) AS bigint), min(first)` + sums.String() + ` FROM (
		SELECT k.identity, k.version, k.cipher_suite, ` + state + ` AS s, k.last_resort, count(*) AS n, min(k.not_after) AS first` + counts.String() + from + `
			WHERE k.consumed_at IS NULL AND k.erased_at IS NULL GROUP BY k.identity, k.version, k.cipher_suite, s, k.last_resort) g
		JOIN (SELECT id, name, version AS current FROM identities) i ON i.id = g.identity
		WHERE g.version <= i.current AND s NOT IN ('consumed', 'erased')
		GROUP BY i.name, cipher_suite, s, last_resort`
	})
	slices.SortFunc(pools, comparePools)
	return pools, err
}

func comparePools(a, b store.Pool) int {
	last := 0
	if a.LastResort != b.LastResort {
		if last = -1; a.LastResort {
			last = 1
		}
	}
	return cmp.Or(strings.Compare(a.Identity, b.Identity), cmp.Compare(a.Suite, b.Suite), cmp.Compare(a.State, b.State), last)
}

// poolWith scans a pool with n counts of lifetimes that end.
func poolWith(n int) func(Scanner) (store.Pool, error) {
	return func(row Scanner) (store.Pool, error) {
		p, first := store.Pool{Ending: make([]uint64, n)}, int64(0)
		to := []any{&p.Identity, &p.Suite, &p.State, &p.LastResort, &p.Count, &first}
		for i := range p.Ending {
			to = append(to, &p.Ending[i])
		}
		err := row.Scan(to...)
		p.FirstEnds = Date(first)
		return p, err
	}
}

// Endings implements store.Store. An index has all of it, unless rows lag behind a backlog.
func (a *Acts) Endings(ctx context.Context, from time.Time, span time.Duration, n int) ([]store.Ending, error) {
	number := fmt.Sprintf("(not_after - %d) / %d", Seconds(from), int64(span/time.Second))
	number = fmt.Sprintf("CASE WHEN %s < %d THEN %s ELSE %d END", number, n-1, number, n-1)
	scan := func(row Scanner) (e store.Ending, err error) { return e, row.Scan(&e.State, &e.Span, &e.Count) }
	return count(ctx, a, scan, func(state, from string) string {
		return `SELECT s, ` + number + ` AS number, count(*) FROM (SELECT ` + state + ` AS s, k.not_after` + from + `
			WHERE k.state IN ('available', 'published') AND k.consumed_at IS NULL AND k.erased_at IS NULL AND k.not_after >= $1) live
		WHERE s IN ('available', 'published') GROUP BY s, number ORDER BY s, number`
	}, Seconds(from))
}

// Settled is the condition of key packages k that no device has still to confirm.
const Settled = "(k.release_digest IS NULL OR k.confirmed_at IS NOT NULL)"

// Level implements store.Store.
func (a *Acts) Level(ctx context.Context, identity, directory string, after time.Time) (level store.Level, err error) {
	if _, err := a.Identity(ctx, identity); err != nil {
		return level, fmt.Errorf("identity %q: %w", identity, err)
	}
	rows, err := count(ctx, a, scanByState, func(state, from string) string {
		return "SELECT " + state + " AS s, count(*)" + from + ` WHERE k.identity = (SELECT id FROM identities WHERE name = $1)
		AND k.version = (SELECT version FROM identities WHERE name = $1 AND retired_at IS NULL)
		AND (k.state = 'available' AND ` + Settled + ` OR k.state IN ('pending', 'published') AND k.directory = $2)
		AND NOT k.last_resort AND k.not_after > $3 GROUP BY s`
	}, identity, directory, Seconds(after))
	for _, c := range rows {
		switch c.state {
		case store.Available:
			level.Available = c.n
		case store.Pending:
			level.Underway = c.n
		case store.Published:
			level.Published = c.n
		}
	}
	return level, err
}

// Stock implements store.Store.
func (a *Acts) Stock(ctx context.Context, name string) ([]store.Stock, error) {
	scan := func(row Scanner) (line store.Stock, err error) {
		return line, row.Scan(&line.Version, &line.State, &line.LastResort, &line.Custody, &line.Count)
	}
	return count(ctx, a, scan, func(state, from string) string {
		return "SELECT k.version, " + state + " AS s, k.last_resort, k.custody, count(*)" + from + ` WHERE k.identity = (SELECT id FROM identities WHERE name = $1)
		GROUP BY k.version, s, k.last_resort, k.custody ORDER BY k.version, s, k.last_resort, k.custody`
	}, name)
}

// Count implements store.Store.
func (a *Acts) Count(ctx context.Context, name string) (map[store.State]uint64, error) {
	counts := make(map[store.State]uint64, len(store.States))
	for _, state := range store.States {
		counts[state] = 0
	}
	rows, err := count(ctx, a, scanByState, func(state, from string) string {
		return "SELECT " + state + " AS s, count(*)" + from + " WHERE $1 = '' OR k.identity = (SELECT id FROM identities WHERE name = $1) GROUP BY s"
	}, name)
	if err != nil {
		return nil, err
	}
	for _, c := range rows {
		counts[c.state] = c.n
	}
	return counts, nil
}
