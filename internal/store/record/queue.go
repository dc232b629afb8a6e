package record

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// Queue has small acts that share transactions. A commit is a write to the disk, and the trail is
// a chain, in which one transaction ends after the other: so a database takes as many transactions
// a second as its disk takes commits. Acts that come while a transaction of the queue is under way
// wait for the next, which is of all of them: the more there are, the more share one commit.
type Queue[A any] struct {
	together func(context.Context, []*Waiting[A]) error
	apart    func(error) bool
	mu       sync.Mutex
	waiting  []*Waiting[A]
	running  bool // a transaction of the queue is under way: never two, which would both be smaller
	closed   context.Context
	close    context.CancelFunc
}

// Waiting is an act of a Queue, with the context of its caller.
type Waiting[A any] struct {
	Context context.Context
	Act     A
	err     error
	done    chan struct{}
}

// queueSize is how many acts one transaction is of, at most.
const queueSize = 256

// Unsettled is the error of a transaction of which it is not known yet whether it was committed.
type Unsettled struct {
	// Settle waits until it is known, and returns nil where it was.
	Settle func() error
}

// Error implements error.
func (*Unsettled) Error() string { return "whether it was done is not known yet" }

// settle waits for what is not known yet.
func settle(err error) error {
	if u := (*Unsettled)(nil); errors.As(err, &u) {
		return u.Settle()
	}
	return err
}

// NewQueue returns a queue whose acts are done by together, all or none. Where that fails with an
// error that may be of one of them, as apart says, each is done by itself: what one fails for is
// no matter of the others. Those behind one that fails with Unsettled do not wait until it is known.
func NewQueue[A any](together func(context.Context, []*Waiting[A]) error, apart func(error) bool) *Queue[A] {
	q := &Queue[A]{together: together, apart: apart}
	q.closed, q.close = context.WithCancel(context.Background())
	return q
}

// Close ends the transaction that is under way, if there is one.
func (q *Queue[A]) Close() { q.close() }

// Do returns when an act is done. Its transaction ends early where the contexts of all that it is
// of have ended; so where ctx ends alone, the act may be done all the same, and counts as done.
func (q *Queue[A]) Do(ctx context.Context, act A) error {
	one := &Waiting[A]{Context: ctx, Act: act, done: make(chan struct{})}
	q.mu.Lock()
	q.waiting = append(q.waiting, one)
	if !q.running {
		q.running = true
		go q.run()
	}
	q.mu.Unlock()
	<-one.done
	return one.err
}

// run does what waits, and ends when nothing does.
func (q *Queue[A]) run() {
	for group := q.next(); len(group) > 0; group = q.next() {
		q.serve(group)
	}
}

func (q *Queue[A]) next() []*Waiting[A] {
	q.mu.Lock()
	defer q.mu.Unlock()
	group := q.waiting[:min(queueSize, len(q.waiting))]
	if q.waiting = q.waiting[len(group):]; len(q.waiting) == 0 {
		q.waiting = nil
	}
	q.running = len(group) > 0
	return group
}

func (q *Queue[A]) serve(group []*Waiting[A]) {
	group = slices.DeleteFunc(group, func(one *Waiting[A]) bool {
		if one.err = one.Context.Err(); one.err != nil {
			close(one.done)
		}
		return one.err != nil
	})
	err := q.try(group)
	if u := (*Unsettled)(nil); errors.As(err, &u) {
		go func() { q.end(group, u.Settle()) }()
		return
	}
	q.end(group, err)
}

// end tells a group how its transaction ended.
func (q *Queue[A]) end(group []*Waiting[A], err error) {
	for _, one := range group {
		one.err = err
		if err != nil && len(group) > 1 && one.Context.Err() == nil && q.apart(err) {
			one.err = settle(q.try([]*Waiting[A]{one}))
		}
		if one.err != nil && one.Context.Err() != nil {
			one.err = one.Context.Err()
		}
		close(one.done)
	}
}

// try does acts in one transaction, which ends early where all their contexts have ended.
func (q *Queue[A]) try(group []*Waiting[A]) error {
	if len(group) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(q.closed)
	defer cancel()
	var left atomic.Int64
	left.Store(int64(len(group)))
	for _, one := range group {
		defer context.AfterFunc(one.Context, func() {
			if left.Add(-1) == 0 {
				cancel()
			}
		})()
	}
	return q.together(ctx, group)
}
