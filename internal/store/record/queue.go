package record

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
)

// Queue runs small acts that share transactions: a group commit. A commit is a write to the disk,
// and the trail is a chain, in which one transaction ends after the other. So a database takes as
// many transactions a second as its disk takes commits. Acts that come while a transaction of the
// queue is under way wait for the next one and share it: the more there are, the more share one
// commit.
type Queue[A any] struct {
	together func(context.Context, []*Waiting[A]) error
	ofOneAct func(error) bool
	mu       sync.Mutex
	waiting  []*Waiting[A]
	running  bool // a transaction of the queue is under way; two would both be smaller
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

// queueSize is how many acts one transaction has at most.
const queueSize = 256

// Unsettled is the error of a transaction whose outcome is not known yet.
type Unsettled struct {
	// Settle waits until the outcome is known, and returns nil if it was committed.
	Settle func() error
}

// Error implements error.
func (*Unsettled) Error() string { return "it is not known yet whether it was done" }

// settle waits for the outcome if it is not known yet.
func settle(err error) error {
	if u := (*Unsettled)(nil); errors.As(err, &u) {
		return u.Settle()
	}
	return err
}

// NewQueue returns a queue whose acts are run by together, all or none. If that fails with an error
// that ofOneAct says may come from one of them, each is run by itself, so that one that fails does
// not fail the others. Acts behind a transaction that fails with Unsettled do not wait for its
// outcome.
func NewQueue[A any](together func(context.Context, []*Waiting[A]) error, ofOneAct func(error) bool) *Queue[A] {
	q := &Queue[A]{together: together, ofOneAct: ofOneAct}
	q.closed, q.close = context.WithCancel(context.Background())
	return q
}

// Close cancels the transaction that is under way, if there is one.
func (q *Queue[A]) Close() { q.close() }

// Do runs an act and returns when it is done. Its transaction is canceled if the contexts of all its
// acts have ended. So if ctx ends alone, the act may still be done, and then Do returns nil.
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

// run runs the acts that wait, and ends when none does.
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

// end reports to a group how its transaction ended.
func (q *Queue[A]) end(group []*Waiting[A], err error) {
	for _, one := range group {
		one.err = err
		if err != nil && len(group) > 1 && one.Context.Err() == nil && q.ofOneAct(err) {
			one.err = settle(q.try([]*Waiting[A]{one}))
		}
		if one.err != nil && one.Context.Err() != nil {
			one.err = one.Context.Err()
		}
		close(one.done)
	}
}

// try runs acts in one transaction, which is canceled if all their contexts have ended.
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
