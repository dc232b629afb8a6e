package directory

import (
	"context"
	"sync"
	"time"
)

// limiter lets through so many a second, and a burst at once. Those who wait are let through
// in the order in which they came.
type limiter struct {
	mu       sync.Mutex
	interval time.Duration // 0: no limit
	burst    time.Duration // of the bucket, in time
	next     time.Time     // when the bucket is empty
}

// newLimiter returns a limiter of rate a second, or none where it is 0, and of burst at once,
// 1 or more.
func newLimiter(rate float64, burst int) *limiter {
	if rate <= 0 {
		return new(limiter)
	}
	interval := time.Duration(float64(time.Second) / rate)
	return &limiter{interval: interval, burst: time.Duration(max(burst, 1)-1) * interval}
}

// wait waits for its turn, or for ctx to end.
func (l *limiter) wait(ctx context.Context) error {
	if l.interval == 0 {
		return ctx.Err()
	}
	return sleep(ctx, l.reserve(time.Now()))
}

// reserve takes a turn and returns how long it is until then.
func (l *limiter) reserve(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if full := now.Add(-l.burst); l.next.Before(full) {
		l.next = full
	}
	turn := l.next
	l.next = l.next.Add(l.interval)
	return turn.Sub(now)
}

// sleep waits, or ends with ctx.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
