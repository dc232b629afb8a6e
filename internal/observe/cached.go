package observe

import (
	"context"
	"sync"
	"time"
)

const (
	// patience is how long somebody waits for a value that is being made anew, before the
	// one before it has to do.
	patience = 3 * time.Second
	// thrift is how many times longer than it took to make a value lasts, at least.
	thrift = 20
)

// cached makes a value where somebody asks for it, not more often than every so long, and one
// at a time. What is made lasts longer where making takes long.
type cached[T any] struct {
	base  context.Context // ends with the process's work
	every time.Duration
	limit time.Duration // for one making
	now   func() time.Time
	f     func(context.Context) (T, error)

	mu     sync.Mutex
	value  T     // the last that was made
	err    error // of the last making
	failed uint64
	due    time.Time     // when the next is made
	making chan struct{} // closed once it is made; nil: none is
}

// made is what a cached value is at a moment.
type made[T any] struct {
	value  T // the last that could be made; zero: none
	err    error
	failed uint64 // makings
}

// get returns the value, and waits for a while where it has to be made.
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

// wait waits for what is being made.
func (c *cached[T]) wait() {
	c.mu.Lock()
	making := c.making
	c.mu.Unlock()
	if making != nil {
		<-making
	}
}
