package sqlite

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// planOf returns the plan of a query, a step a line.
func planOf(t *testing.T, s *Store, text string, args ...any) string {
	t.Helper()
	scan := func(row sqlstore.Scanner) (detail string, err error) {
		return detail, row.Scan(new(int), new(int), new(int), &detail)
	}
	plan, err := sqlstore.ReadAll(t.Context(), s, scan, "EXPLAIN QUERY PLAN "+text, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(plan, "\n")
}

// planner is a store that keeps the plans of what it reads.
type planner struct {
	*Store
	t     *testing.T
	plans []string
}

// Read implements sqlstore.Database.
func (p *planner) Read(ctx context.Context, f func(context.Context, sqlstore.Querier) error) error {
	return f(ctx, p)
}

// Each implements sqlstore.Querier.
func (p *planner) Each(ctx context.Context, scan func(sqlstore.Scanner) error, text string, args ...any) error {
	p.plans = append(p.plans, planOf(p.t, p.Store, text, args...))
	return each(ctx, p.reader, scan, text, args...)
}

// plansOf returns the plans of the queries of an act that reads.
func plansOf(t *testing.T, s *Store, act func(*sqlstore.Acts) error) []string {
	t.Helper()
	p := &planner{Store: s, t: t}
	if err := act(sqlstore.New(p, layout)); err != nil || len(p.plans) == 0 {
		t.Fatalf("%d plans, %v", len(p.plans), err)
	}
	return p.plans
}

// A listing finds those of one identity without reading the others.
func TestListingOfAnIdentityUsesTheIndex(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	for _, f := range []store.Filter{{Identity: "alice"}, {Identity: "alice", State: store.Available}} {
		text, args := condition(f, false)
		plan := planOf(t, s, selectKeyPackage+" WHERE "+text, append(args, sql.Named("after", 0), sql.Named("page", sqlstore.Page))...)
		if !strings.Contains(plan, "SEARCH key_packages USING COVERING INDEX key_packages_by_identity (identity=? AND state=? AND rowid>?)") ||
			strings.Contains(plan, "SCAN k") || strings.Contains(plan, "SCAN key_packages") {
			t.Errorf("plan of %+v =\n%s\nwant no scan of key_packages", f, plan)
		}
	}
}

// A sweep that has nothing to do reads nothing.
func TestASweepUsesItsIndexes(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	plan := planOf(t, s, sweepable, sql.Named("now", 0), sql.Named("before", 0), sql.Named("batch", 1))
	for _, index := range []string{"reservations_ending", "lifetimes_ending", "retirements_ending"} {
		if !strings.Contains(plan, index) {
			t.Errorf("plan =\n%s\nwant it to use %s", plan, index)
		}
	}
	if strings.Contains(plan, "SCAN k") {
		t.Errorf("plan =\n%s\nwant no scan of key_packages", plan)
	}
}

// The count of what depends on a wrapping key reads nothing else.
func TestDependentsAreFoundByIndex(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	text, args := condition(store.Filter{WrappingKeyID: []byte("k1")}, true)
	plans := plansOf(t, s, func(a *sqlstore.Acts) error { _, err := a.Dependents(t.Context(), []byte("k1")); return err })
	for _, plan := range append(plans, planOf(t, s, selectKeyPackage+" WHERE "+text, append(args, sql.Named("after", 0), sql.Named("page", sqlstore.Page))...)) {
		if !strings.Contains(plan, "key_packages_under") || strings.Contains(plan, "SCAN k") {
			t.Errorf("plan =\n%s\nwant it to use key_packages_under", plan)
		}
	}
}

// A backlog finds what is next without reading what is not in it, and without sorting what is.
func TestBacklogsAreFoundByIndex(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	for _, step := range []store.Step{store.Retire, store.Erase} {
		for _, rows := range layout.ToFollow(step) {
			plan := planOf(t, s, "SELECT id FROM "+rows+" ORDER BY id LIMIT $2", 1, 1)
			index := map[store.Step]string{store.Retire: "key_packages_by_identity (identity=? AND state=? AND rowid<?)", store.Erase: "key_packages_under (wrapping_key=?)"}[step]
			if !strings.Contains(plan, index) || strings.Contains(plan, "SCAN key_packages") || strings.Contains(plan, "TEMP B-TREE") {
				t.Errorf("plan of %s =\n%s\nwant it to use %s", rows, plan, index)
			}
		}
	}
}

// A claim passes over what is in a backlog without reading it.
func TestAClaimUsesItsIndex(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	plan := planOf(t, s, claimable, sql.Named("key", 1), sql.Named("last", false), sql.Named("name", "alice"), sql.Named("at", 0), sql.Named("ending", 0), sql.Named("n", 1))
	if !strings.Contains(plan, "SEARCH c USING INDEX claimable (identity=? AND version=? AND wrapping_key=?)") || strings.Contains(plan, "SCAN c") || strings.Contains(plan, "TEMP B-TREE") {
		t.Errorf("plan =\n%s\nwant it to use claimable", plan)
	}
}

// An act that reads the versions of one identity reads no others.
func TestVersionsOfAnIdentityAreFoundByIndexes(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	for _, plan := range plansOf(t, s, func(a *sqlstore.Acts) error { _, err := a.Versions(t.Context(), "alice"); return err }) {
		for _, step := range strings.Split(plan, "\n") {
			if strings.HasPrefix(step, "SCAN ") && step != "SCAN all_versions" { // what the others found
				t.Errorf("plan =\n%s\nwant no scan of a table", plan)
			}
		}
	}
}
