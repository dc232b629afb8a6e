package client

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"github.com/hsm-kp/hsm-kp/internal/backoff"
)

// repeated calls an operation that may be repeated without harm. It calls it again as long as the
// service is UNAVAILABLE: the service, its token or its store cannot be reached. It returns the
// last error.
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

// between is how long to wait between two attempts.
var between = backoff.Backoff{First: 50 * time.Millisecond, Most: 2 * time.Second}

// pause waits after an attempt, the first of which is 1. It reports whether there is time for
// another one.
func pause(ctx context.Context, attempt int) bool {
	d := between.Delay(attempt - 1)
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return false
	}
	return backoff.Sleep(ctx, d) == nil
}
