package observe

import (
	"context"
	"sync"
	"time"
)

const (
	// patience is how long a caller waits for a value that is being made before it gets the
	// previous one.
	patience = 3 * time.Second
	// thrift is how many times the duration of its making a value stays valid, at least.
	thrift = 20
)

// cached makes a value on demand, one at a time and not more often than once in an interval. A
// value that takes long to make stays valid longer.
type cached[T any] struct {
	base  context.Context // ends with the process's work
	every time.Duration
	limit time.Duration // of making a value
	now   func() time.Time
	f     func(context.Context) (T, error)

	mu     sync.Mutex
	value  T     // the last value that was made
	err    error // of the last attempt
	failed uint64
	due    time.Time     // when the value expires
	making chan struct{} // closed once the value is made; nil if none is being made
}

// made is the state of a cached value at one moment.
type made[T any] struct {
	value  T // the last that could be made; zero if there is none
	err    error
	failed uint64 // makings
}

// get returns the value. If it must be made first, get waits up to patience.
func (c *cached[T]) get(ctx context.Context) made[T] {
	c.mu.Lock()
	if c.making == nil && !c.now().Before(c.due) {
		c.making = make(chan struct{})
		go c.make(c.making)
	}
	making := c.making
	c.mu.Unlock()
	if making != nil {
		wait, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		select {
		case <-making:
		case <-wait.Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return made[T]{c.value, c.err, c.failed}
}

func (c *cached[T]) make(done chan struct{}) {
	ctx, cancel := context.WithTimeout(c.base, c.limit)
	defer cancel()
	begun := c.now()
	value, err := c.f(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err = err; err == nil {
		c.value = value
	} else {
		c.failed++
	}
	now := c.now()
	c.due = now.Add(max(c.every, thrift*now.Sub(begun)))
	c.making = nil
	close(done)
}

// wait waits for the value that is being made, if any.
func (c *cached[T]) wait() {
	c.mu.Lock()
	making := c.making
	c.mu.Unlock()
	if making != nil {
		<-making
	}
}
