package server

import (
	"sync"
	"time"
)

// Rate lets through so many a second, and a burst at once.
type Rate struct {
	PerSecond int // 0: any number
	Burst     int // 0: as many as in a second
}

// bucket counts what a Rate lets through. It is in memory, as a quota is.
type bucket struct {
	mu   sync.Mutex
	next time.Time // when it is empty
}

// take lets one through and returns 0, or how long it is until the next.
func (b *bucket) take(r Rate, now time.Time) time.Duration {
	if r.PerSecond == 0 {
		return 0
	}
	interval := time.Second / time.Duration(r.PerSecond)
	burst := r.Burst
	if burst == 0 {
		burst = r.PerSecond
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if full := now.Add(-time.Duration(burst-1) * interval); b.next.Before(full) {
		b.next = full
	}
	if wait := b.next.Sub(now); wait > 0 {
		return wait
	}
	b.next = b.next.Add(interval)
	return 0
}
