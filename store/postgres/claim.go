package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/audit"
	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/store/record"
)

// The trail is a chain: from the moment that a transaction has its end until it is committed,
// and on the disk, no other one ends. So a database takes as many transactions a second as its
// disk takes commits, whatever the number of clients. Claims are many and small. Those that
// come while a transaction is under way wait for the next, which is of all of them: the more
// there are, the more share one commit.

// claimGroup is how many claims one transaction is of, at most.
const claimGroup = 256

// claimers are how many transactions of claims a process has under way at once: while one is
// committed, the next finds its rows.
const claimers = 2

// claims are those that wait.
type claims struct {
	store   *Store
	mu      sync.Mutex
	waiting []*claim
	running int
	closed  context.Context
	close   context.CancelFunc
}

// claim is what one caller asks for.
type claim struct {
	ctx      context.Context
	identity string
	n        int
	at       time.Time
	claimed  []store.KeyPackage
	err      error
	done     chan struct{}
}

func newClaims(s *Store) *claims {
	c := &claims{store: s}
	c.closed, c.close = context.WithCancel(context.Background())
	return c
}

// Claim implements store.Store. Where ctx ends while the claim is being committed, it returns
// what was claimed.
func (s *Store) Claim(ctx context.Context, identity string, n int, at time.Time) ([]store.KeyPackage, error) {
	if err := ctx.Err(); err != nil || n <= 0 {
		return nil, err
	}
	c := &claim{ctx: ctx, identity: identity, n: n, at: at, done: make(chan struct{})}
	s.claims.add(c)
	<-c.done // a transaction ends with the contexts of all that it is for
	return c.claimed, c.err
}

func (c *claims) add(one *claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, one)
	if c.running < claimers {
		c.running++
		go c.run()
	}
}

// run does what waits, and ends when nothing does.
func (c *claims) run() {
	for {
		c.mu.Lock()
		group := c.waiting[:min(claimGroup, len(c.waiting))]
		c.waiting = c.waiting[len(group):]
		if len(group) == 0 {
			c.waiting = nil
			c.running--
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		c.serve(group)
	}
}

// serve does claims in one transaction. Where it fails, each is done by itself: what one
// fails for is no matter of the others.
func (c *claims) serve(group []*claim) {
	err := c.together(group)
	for _, one := range group {
		if err != nil && len(group) > 1 && one.ctx.Err() == nil && shared(err) {
			one.err = c.together([]*claim{one})
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

// shared reports whether an error of several claims may be that of one of them, and not of the
// server.
func shared(err error) bool { return !lost(err) && !dialing(err) }

// together does claims in one transaction, which ends early where all their contexts have
// ended.
func (c *claims) together(group []*claim) error {
	ctx, cancel := context.WithCancel(c.closed)
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
	return c.store.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		return tx.claim(ctx, group)
	})
}

// want is what claims ask for that are served by one statement.
type want struct {
	identity string
	at       int64
}

// claimSome hands out the first rows that are free, in one statement. Rows that another
// transaction is about to hand out are passed over. What is under a key that is being
// shredded, or in a backlog, is left out. How many stands in the text: for a plan that is kept
// for any number, PostgreSQL takes it for a tenth of the rows, and sorts them all.
const claimSome = `WITH first AS (SELECT c.id FROM key_packages c WHERE c.state = 'available' AND NOT c.last_resort
		AND ` + free + ` AND c.not_after > @at
		ORDER BY c.id + 0 LIMIT %d FOR NO KEY UPDATE SKIP LOCKED)
	UPDATE key_packages k SET state = 'claimed', claimed_at = @at FROM first WHERE k.id = first.id RETURNING k.id`

// free is what signs still, is valid at a time, and in no backlog.
const free = `c.identity = (SELECT id FROM identities WHERE name = @name)
		AND c.version = (SELECT version FROM identities WHERE name = @name AND retired_at IS NULL)
		AND c.not_before <= @at
		AND NOT EXISTS (SELECT 1 FROM backlogs o WHERE o.finished_at IS NULL AND o.wrapping_key = c.wrapping_key)
		AND NOT EXISTS (SELECT 1 FROM backlogs o WHERE o.finished_at IS NULL AND o.identity = c.identity AND o.before > c.version AND o.last >= c.id)`

// claim does claims of which the contexts have not ended.
func (tx *transaction) claim(ctx context.Context, group []*claim) error {
	wants := make(map[want][]*claim)
	var order []want
	for _, one := range group {
		one.claimed = nil
		if one.ctx.Err() != nil {
			continue
		}
		w := want{one.identity, seconds(one.at)}
		if wants[w] == nil {
			order = append(order, w)
		}
		wants[w] = append(wants[w], one)
	}
	for _, w := range order {
		if err := tx.claimFor(ctx, w, wants[w]); err != nil {
			return err
		}
	}
	return nil
}

// claimFor does claims that ask for the same, the first ones first.
func (tx *transaction) claimFor(ctx context.Context, w want, group []*claim) error {
	n := 0
	for _, one := range group {
		n += one.n
	}
	numbers, err := query(ctx, tx, value[int64], fmt.Sprintf(claimSome, n), pgx.NamedArgs{"name": w.identity, "at": w.at})
	if err != nil || len(numbers) == 0 {
		return err
	}
	rows, err := query(ctx, tx, scanKeyPackage, selectKeyPackage+" WHERE k.id = ANY($1) ORDER BY k.id", numbers)
	if err != nil {
		return err
	}
	for _, one := range group {
		mine := rows[:min(one.n, len(rows))]
		rows = rows[len(mine):]
		for i := range mine {
			e := record.EntryOf(&mine[i].KeyPackage, audit.Claimed, one.at)
			e.Actor = store.Actor(one.ctx)
			if err := tx.record(mine[i].ID, e); err != nil {
				return err
			}
			one.claimed = append(one.claimed, mine[i].KeyPackage)
		}
	}
	return nil
}
