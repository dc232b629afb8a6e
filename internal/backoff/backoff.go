// Package backoff says how long to wait before a retry.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff waits First after the first attempt, twice as long after each further one, and never
// longer than Most. First is at least 2 ns.
type Backoff struct{ First, Most time.Duration }

// Delay returns how long to wait after an attempt, the first of which is 0. It is between half of
// the full time and all of it, at random, so that callers that failed together do not retry
// together.
func (b Backoff) Delay(attempt int) time.Duration {
	d := min(b.First<<min(attempt, 10), b.Most)
	return d/2 + rand.N(d/2)
}

// Sleep waits for d and returns nil, or returns ctx's error as soon as ctx ends.
func Sleep(ctx context.Context, d time.Duration) error {
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
