package inventory

import (
	"slices"
	"sync"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// collector takes key packages from many goroutines and hands them to one in batches. It wakes that
// goroutine once a batch; a channel would wake it for each key package, which costs as much as
// storing it. It holds a few batches while another one is stored, so that nobody waits while the
// store folds its WAL into its file, which takes longer than making a batch. If these are full, add
// waits.
type collector struct {
	size int           // the size of a batch
	wait time.Duration // how long the first of a batch waits for the batch to fill

	mu    sync.Mutex
	ready sync.Cond // a batch is full, due or the last one
	room  sync.Cond // a batch was taken
	queue []store.KeyPackage
	taken []store.KeyPackage
	due   bool
	ended bool
}

// collectedBatches is how many batches a collector holds.
const collectedBatches = 4

func newCollector(size int, wait time.Duration) *collector {
	c := &collector{size: size, wait: wait, queue: make([]store.KeyPackage, 0, collectedBatches*size)}
	c.ready.L, c.room.L = &c.mu, &c.mu
	return c
}

// add waits for room. After end, it drops the record.
func (c *collector) add(record store.KeyPackage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) == cap(c.queue) && !c.ended {
		c.room.Wait()
	}
	if c.ended {
		return
	}
	c.queue = append(c.queue, record)
	if len(c.queue) == c.size || c.due {
		c.ready.Signal()
	}
}

// end says that no more records come, or that nobody takes them any more.
func (c *collector) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.ready.Signal()
	c.room.Broadcast()
}

// take returns the next batch: a full one, one that has waited for long enough, or the last. After
// the last, it returns an empty one. The batch is valid until take is called again.
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
	for len(c.queue) < c.size && !c.ended && !(c.due && len(c.queue) > 0) {
		c.ready.Wait()
	}
	n := min(len(c.queue), c.size)
	c.taken = append(c.taken[:0], c.queue[:n]...)
	c.queue = slices.Delete(c.queue, 0, n)
	c.room.Broadcast()
	return c.taken
}
