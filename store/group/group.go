// Package group has small acts of several callers share a transaction of their store. A
// transaction costs a write to the disk, whatever is in it: acts that come while one is under way
// wait for the next, which is of all of them. It knows no database.
package group

import (
	"context"
	"sync"
)

// Act is what one caller asks for.
type Act[T any] struct {
	Context context.Context // the caller's: who acts, and for how long
	What    T
}

// Queue does acts in groups. The zero value is of no use: see New.
type Queue[T any] struct {
	most  int
	do    func(context.Context, []Act[T]) error
	apart func(error) bool

	mu      sync.Mutex
	waiting []*entry[T]
	running bool
}

type entry[T any] struct {
	Act[T]
	err  error
	done chan struct{}
}

// New returns a queue that does so many acts at once, at most. do does all of what it is given,
// in that order, or nothing; the context that it is given ends when those of all acts have ended.
// apart says of an error of several acts whether it may be that of one of them: then each is done
// by itself.
func New[T any](most int, do func(context.Context, []Act[T]) error, apart func(error) bool) *Queue[T] {
	return &Queue[T]{most: most, do: do, apart: apart}
}

// Do has an act done, and returns once it is. Where ctx ends before it is begun, it is not; later,
// the outcome is waited for all the same.
func (q *Queue[T]) Do(ctx context.Context, what T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e := &entry[T]{Act: Act[T]{ctx, what}, done: make(chan struct{})}
	q.add(e)
	<-e.done
	return e.err
}

func (q *Queue[T]) add(e *entry[T]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, e)
	if !q.running {
		q.running = true
		go q.run()
	}
}

// run does what waits, and ends when nothing does.
func (q *Queue[T]) run() {
	for {
		q.mu.Lock()
		n := min(q.most, len(q.waiting))
		group := q.waiting[:n:n]
		if q.waiting = q.waiting[n:]; n == 0 {
			q.waiting, q.running = nil, false
			q.mu.Unlock()
			return
		}
		q.mu.Unlock()
		q.serve(group)
	}
}

// serve does a group. Where that fails, each is done by itself: what one fails for is no matter
// of the others.
func (q *Queue[T]) serve(group []*entry[T]) {
	var begun []*entry[T]
	for _, e := range group {
		if e.err = e.Context.Err(); e.err == nil {
			begun = append(begun, e)
		}
	}
	if len(begun) > 0 {
		err := q.together(begun)
		for _, e := range begun {
			if e.err = err; err != nil && len(begun) > 1 && q.apart(err) {
				e.err = q.together([]*entry[T]{e})
			}
		}
	}
	for _, e := range group {
		close(e.done)
	}
}

// together does acts at once, until the contexts of all have ended.
func (q *Queue[T]) together(group []*entry[T]) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex
	left := len(group)
	acts := make([]Act[T], len(group))
	for i, e := range group {
		acts[i] = e.Act
		defer context.AfterFunc(e.Context, func() {
			mu.Lock()
			defer mu.Unlock()
			if left--; left == 0 {
				cancel()
			}
		})()
	}
	return q.do(ctx, acts)
}
