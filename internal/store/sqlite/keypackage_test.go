package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Those of one identity are found without reading the others.
func TestListingOfAnIdentityUsesTheIndex(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	for _, f := range []store.Filter{{Identity: "alice"}, {Identity: "alice", State: store.Available}} {
		text, args := condition(f, false)
		scan := func(s scanner) (detail string, err error) {
			return detail, s.Scan(new(int), new(int), new(int), &detail)
		}
		plan, err := query(t.Context(), s.db, scan, "EXPLAIN QUERY PLAN "+selectKeyPackage+" WHERE "+text, append(args, sql.Named("after", 0), sql.Named("page", page))...)
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Join(plan, "\n")
		if !strings.Contains(all, "SEARCH key_packages USING COVERING INDEX key_packages_by_identity (identity=? AND state=? AND rowid>?)") ||
			strings.Contains(all, "SCAN k") || strings.Contains(all, "SCAN key_packages") {
			t.Errorf("plan of %+v =\n%s\nwant no scan of key_packages", f, all)
		}
	}
}

// A sweep that has nothing to do reads nothing.
func TestASweepUsesItsIndexes(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	scan := func(s scanner) (detail string, err error) {
		return detail, s.Scan(new(int), new(int), new(int), &detail)
	}
	plan, err := query(t.Context(), s.db, scan, "EXPLAIN QUERY PLAN "+sweepable, sql.Named("now", 0), sql.Named("before", 0), sql.Named("batch", 1))
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(plan, "\n")
	for _, index := range []string{"reservations_ending", "lifetimes_ending", "retirements_ending"} {
		if !strings.Contains(all, index) {
			t.Errorf("plan =\n%s\nwant it to use %s", all, index)
		}
	}
	if strings.Contains(all, "SCAN k") {
		t.Errorf("plan =\n%s\nwant no scan of key_packages", all)
	}
}

// What depends on a wrapping key is found without reading the rest.
func TestDependentsAreFoundByIndex(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	scan := func(s scanner) (detail string, err error) {
		return detail, s.Scan(new(int), new(int), new(int), &detail)
	}
	text, args := condition(store.Filter{WrappingKeyID: []byte("k1")}, true)
	for _, q := range []string{countDependents, selectKeyPackage + " WHERE " + text} {
		plan, err := query(t.Context(), s.db, scan, "EXPLAIN QUERY PLAN "+q, append(args, sql.Named("after", 0), sql.Named("page", page))...)
		if err != nil {
			t.Fatal(err)
		}
		if all := strings.Join(plan, "\n"); !strings.Contains(all, "key_packages_under") || strings.Contains(all, "SCAN k") {
			t.Errorf("plan of %s =\n%s\nwant it to use key_packages_under", q, all)
		}
	}
}

// What is next of a backlog is found without reading what is not in it, and without
// putting all that is into an order.
func TestBacklogsAreFoundByIndex(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	scan := func(s scanner) (detail string, err error) {
		return detail, s.Scan(new(int), new(int), new(int), &detail)
	}
	for step, conditions := range toFollow {
		for _, condition := range conditions {
			plan, err := query(t.Context(), s.db, scan, "EXPLAIN QUERY PLAN SELECT id FROM key_packages WHERE "+condition+" ORDER BY id LIMIT @n",
				sql.Named("backlog", 1), sql.Named("n", 1))
			if err != nil {
				t.Fatal(err)
			}
			index := map[store.Step]string{store.Retire: "key_packages_by_identity (identity=? AND state=? AND rowid<?)", store.Erase: "key_packages_under (wrapping_key=?)"}[step]
			if all := strings.Join(plan, "\n"); !strings.Contains(all, index) || strings.Contains(all, "SCAN key_packages") || strings.Contains(all, "TEMP B-TREE") {
				t.Errorf("plan of %s =\n%s\nwant it to use %s", condition, all, index)
			}
		}
	}
}

// What is in a backlog is passed over by a claim without reading it.
func TestAClaimUsesItsIndex(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	scan := func(s scanner) (detail string, err error) {
		return detail, s.Scan(new(int), new(int), new(int), &detail)
	}
	plan, err := query(t.Context(), s.db, scan, "EXPLAIN QUERY PLAN "+claimable, sql.Named("key", 1), sql.Named("last", false), sql.Named("name", "alice"), sql.Named("at", 0), sql.Named("ending", 0), sql.Named("n", 1))
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(plan, "\n"); !strings.Contains(all, "SEARCH c USING INDEX claimable (identity=? AND version=? AND wrapping_key=?)") || strings.Contains(all, "SCAN c") || strings.Contains(all, "TEMP B-TREE") {
		t.Errorf("plan =\n%s\nwant it to use claimable", all)
	}
}

// A batch whose context ends while it waits or runs leaves nothing behind, and
// its error says why.
func TestContextThatEndsInABatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, other := open(t, path), open(t, path)
	furnish(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.write(ctx, func(inside context.Context, tx *transaction) error {
		cancel()
		if inside.Err() != nil {
			t.Errorf("the context inside a transaction ended, want it not to")
		}
		for range 100 { // until the transaction is rolled back
			if _, err := tx.ExecContext(inside, "UPDATE wrapping_keys SET uses = uses + 1"); err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("write() err = %v, want %v", err, context.Canceled)
	}
	if err := other.AddKeyPackages(t.Context(), rows(0, 1)); err != nil {
		t.Errorf("AddKeyPackages() afterwards err = %v, want nil", err)
	}
	key, err := s.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil || key.Uses != 1 {
		t.Errorf("Uses = %d (%v), want 1", key.Uses, err)
	}
}

// Those of one identity are found without reading the others.
func TestVersionsOfAnIdentityAreFoundByIndexes(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	scan := func(s scanner) (detail string, err error) {
		return detail, s.Scan(new(int), new(int), new(int), &detail)
	}
	plan, err := query(t.Context(), s.db, scan, "EXPLAIN QUERY PLAN "+selectVersions+" WHERE name = ? ORDER BY version", "alice")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range plan {
		if strings.HasPrefix(step, "SCAN ") && !strings.Contains(step, "subquery") {
			t.Errorf("plan =\n%s\nwant no scan of a table", strings.Join(plan, "\n"))
		}
	}
}
