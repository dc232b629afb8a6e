package postgres

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/audit"
	"github.com/hsm-kp/hsm-kp/store"
)

// The trail is a chain: from the moment that a transaction has its end until it is committed,
// and on the disk, no other one ends. So a database takes as many transactions a second as its
// disk takes commits, whatever the number of clients. Claims, and entries that come by
// themselves, such as those of signatures, are many and small. Those that come while a
// transaction is under way wait for the next, which is of all of them: the more there are, the
// more share one commit.

// groupSize is how many acts one transaction is of, at most.
const groupSize = 256

// groups are how many transactions of groups a process has under way at once: while one is
// committed, the next finds its rows.
const groups = 2

// act is one that shares a transaction with others: a claim of n key packages, or entries.
type act struct {
	ctx      context.Context
	identity string
	n        int
	at       time.Time
	claimed  []store.KeyPackage
	entries  []audit.Entry
	err      error
	done     chan struct{}
}

// queue has the acts that wait.
type queue struct {
	store   *Store
	mu      sync.Mutex
	waiting []*act
	running int
	closed  context.Context
	close   context.CancelFunc
}

func newQueue(s *Store) *queue {
	q := &queue{store: s}
	q.closed, q.close = context.WithCancel(context.Background())
	return q
}

// do waits until an act is done. Its transaction ends early where the contexts of all that it is
// of have ended; so where ctx ends alone, the act may be done all the same.
func (q *queue) do(ctx context.Context, one *act) error {
	one.ctx, one.done = ctx, make(chan struct{})
	q.mu.Lock()
	q.waiting = append(q.waiting, one)
	if q.running < groups {
		q.running++
		go q.run()
	}
	q.mu.Unlock()
	<-one.done
	return one.err
}

// run does what waits, and ends when nothing does.
func (q *queue) run() {
	for group := q.next(); len(group) > 0; group = q.next() {
		q.serve(group)
	}
}

func (q *queue) next() []*act {
	q.mu.Lock()
	defer q.mu.Unlock()
	group := q.waiting[:min(groupSize, len(q.waiting))]
	if q.waiting = q.waiting[len(group):]; len(q.waiting) == 0 {
		q.waiting = nil
	}
	if len(group) == 0 {
		q.running--
	}
	return group
}

// serve does acts in one transaction. Where it fails, each is done by itself: what one
// fails for is no matter of the others.
func (q *queue) serve(group []*act) {
	err := q.together(group)
	for _, one := range group {
		if err != nil && len(group) > 1 && one.ctx.Err() == nil && shared(err) {
			one.err = q.together([]*act{one})
		} else {
			one.err = err
		}
		if one.err != nil {
			one.claimed = nil
			if one.ctx.Err() != nil {
				one.err = one.ctx.Err()
			}
		}
		close(one.done)
	}
}

// shared reports whether an error of several acts may be that of one of them, and not of the
// server.
func shared(err error) bool { return !lost(err) && !dialing(err) }

// together does acts in one transaction, which ends early where all their contexts have ended.
func (q *queue) together(group []*act) error {
	ctx, cancel := context.WithCancel(q.closed)
	defer cancel()
	left := len(group)
	var mu sync.Mutex
	for _, one := range group {
		defer context.AfterFunc(one.ctx, func() {
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				cancel()
			}
		})()
	}
	return q.store.write(ctx, beside, func(ctx context.Context, tx *transaction) error { return tx.acts(ctx, group) })
}

// planOnce has statements planned once a connection, and not for each of their arguments: that
// would take as long as a small group's claim does.
const planOnce = "SET LOCAL plan_cache_mode = force_generic_plan"

// acts does those of which the contexts have not ended. What they ask for goes over in one
// message.
func (tx *transaction) acts(ctx context.Context, group []*act) error {
	group = slices.DeleteFunc(slices.Clone(group), func(one *act) bool { return one.ctx.Err() != nil })
	wants := wantsOf(group)
	if len(wants) > 0 {
		tx.later(planOnce)
	}
	for _, w := range wants {
		tx.claim(w)
	}
	numbers := tx.find(group)
	if err := tx.flush(ctx); err != nil {
		return err
	}
	for _, w := range wants {
		if err := tx.handOut(w); err != nil {
			return err
		}
	}
	for _, one := range group {
		for _, e := range one.entries {
			e.Actor = actorOf(one, e)
			if err := tx.record(numbers[string(e.Ref)], e); err != nil {
				return err
			}
		}
	}
	return nil
}

func actorOf(one *act, e audit.Entry) string {
	if e.Actor != "" {
		return e.Actor
	}
	return store.Actor(one.ctx)
}

// find asks, later, for the rows of the key packages that entries are about.
func (tx *transaction) find(group []*act) map[string]int64 {
	var refs [][]byte
	for _, one := range group {
		for _, e := range one.entries {
			if len(e.Ref) > 0 {
				refs = append(refs, e.Ref)
			}
		}
	}
	numbers := make(map[string]int64, len(refs))
	if len(refs) > 0 {
		var ref []byte
		var number int64
		tx.later("SELECT ref, id FROM contents WHERE ref = ANY($1)", refs).Query(func(rows pgx.Rows) error {
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
	one := &act{entries: entries}
	for _, e := range entries {
		if e.Actor == "" {
			e.Actor = store.Actor(ctx)
		}
		if err := e.Check(); err != nil {
			return fmt.Errorf("add to the audit trail: %w", err)
		}
	}
	return s.queue.do(ctx, one)
}
