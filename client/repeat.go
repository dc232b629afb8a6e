package client

import (
	"context"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"
)

// repeated calls an operation that changes nothing when it is repeated, again while the service
// is UNAVAILABLE: it cannot be reached, or its token or its store are away. The last error is
// returned.
func repeated[In, Out any](ctx context.Context, c *Client, name string, call func(context.Context, *connect.Request[In]) (*connect.Response[Out], error), in *In) (*Out, error) {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	for attempt := 1; ; attempt++ {
		out, err := once(ctx, c, name, call, in)
		if err == nil || connect.CodeOf(err) != connect.CodeUnavailable || attempt >= c.attempts || !pause(ctx, attempt) {
			return out, err
		}
	}
}

// pause waits before the next attempt: about 50 ms, 100 ms, and so on to 2 s, half of it by
// chance. It reports whether there is time for another one.
func pause(ctx context.Context, attempt int) bool {
	d := min(50*time.Millisecond<<min(attempt-1, 10), 2*time.Second)
	d = d/2 + rand.N(d/2)
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
