package postgres

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// act is an act that shares a transaction with others: a claim of n key packages, or entries by
// themselves, such as those of signatures.
type act struct {
	identity string
	n        int
	at       time.Time
	claimed  []store.KeyPackage
	entries  []audit.Entry
}

// waiting is an act, with the context of its caller.
type waiting = record.Waiting[*act]

// together runs acts in one transaction.
func (s *Store) together(ctx context.Context, group []*waiting) error {
	return s.writeOnce(ctx, concurrent, func(ctx context.Context, tx *transaction) error { return tx.acts(ctx, group) })
}

// planOnce makes the server plan a statement once per connection. A plan for each set of arguments
// would take as long as the claim of a small group.
const planOnce = "SET LOCAL plan_cache_mode = force_generic_plan"

// acts runs acts. One message has all their questions, and takes the end of the trail last. The
// next one has their entries, with COMMIT.
func (tx *transaction) acts(ctx context.Context, group []*waiting) error {
	tx.early = tx.mayWait
	wants := wantsOf(group)
	if len(wants) > 0 {
		tx.queue(planOnce)
	}
	for _, w := range wants {
		tx.claim(w)
	}
	numbers := tx.find(group)
	tx.takeEnd(slices.ContainsFunc(group, func(one *waiting) bool { return len(one.Act.entries) > 0 }))
	if err := tx.flush(ctx); err != nil {
		return err
	}
	for _, w := range wants {
		if err := tx.handOut(ctx, w); err != nil {
			return err
		}
	}
	for _, one := range group {
		for _, e := range one.Act.entries {
			if err := tx.Record(ctx, numbers[string(e.Ref)], e); err != nil {
				return err
			}
		}
	}
	return nil
}

// find queues a query for the rows of the key packages that entries are about.
func (tx *transaction) find(group []*waiting) map[string]int64 {
	var refs [][]byte
	for _, one := range group {
		for _, e := range one.Act.entries {
			if len(e.Ref) > 0 {
				refs = append(refs, e.Ref)
			}
		}
	}
	numbers := make(map[string]int64, len(refs))
	if len(refs) > 0 {
		var ref []byte
		var number int64
		tx.queue("SELECT ref, id FROM contents WHERE ref = ANY($1)", refs).Query(func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, []any{&ref, &number}, func() error { numbers[string(ref)] = number; return nil })
			return err
		})
	}
	return numbers
}

// Record implements store.Store.
func (s *Store) Record(ctx context.Context, entries ...audit.Entry) error {
	if err := ctx.Err(); err != nil || len(entries) == 0 {
		return err
	}
	entries, err := record.By(store.Actor(ctx), entries)
	if err != nil {
		return err
	}
	return s.claims.Do(ctx, &act{entries: entries})
}
