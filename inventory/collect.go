package inventory

import (
	"sync"
	"time"

	"github.com/hsm-kp/hsm-kp/store"
)

// collector takes key packages from many goroutines and gives them to one in batches. It
// wakes that one once a batch: a channel would for each key package, which costs as much as
// storing it. It holds one batch while another one is stored; who has more waits.
type collector struct {
	wait time.Duration // for which the first of a batch waits for the batch to fill

	mu    sync.Mutex
	ready sync.Cond // the batch is full or due, or the last one
	room  sync.Cond // the batch was taken
	batch []store.KeyPackage
	next  []store.KeyPackage // what batch becomes when it is taken
	due   bool
	ended bool
}

func newCollector(size int, wait time.Duration) *collector {
	c := &collector{wait: wait, batch: make([]store.KeyPackage, 0, size), next: make([]store.KeyPackage, 0, size)}
	c.ready.L, c.room.L = &c.mu, &c.mu
	return c
}

// add waits for room. After end it drops what it is given.
func (c *collector) add(record store.KeyPackage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.batch) == cap(c.batch) && !c.ended {
		c.room.Wait()
	}
	if c.ended {
		return
	}
	c.batch = append(c.batch, record)
	if len(c.batch) == cap(c.batch) || c.due {
		c.ready.Signal()
	}
}

// end says that nothing more will come, or that nobody wants any more.
func (c *collector) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.ready.Signal()
	c.room.Broadcast()
}

// take returns the next batch: a full one, one that has waited for long enough, or the last,
// and none after that. It is valid until take is called again.
func (c *collector) take() []store.KeyPackage {
	timer := time.AfterFunc(c.wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.due = true
		c.ready.Signal()
	})
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = false
	for len(c.batch) < cap(c.batch) && !c.ended && !(c.due && len(c.batch) > 0) {
		c.ready.Wait()
	}
	taken := c.batch
	c.batch, c.next = c.next[:0], taken
	c.room.Broadcast()
	return taken
}
