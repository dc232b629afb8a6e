package directory

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/backoff"
)

// between is the backoff between attempts.
var between = backoff.Backoff{First: 250 * time.Millisecond, Most: 15 * time.Second}

// later is an error that may pass: after the time that the directory gave, or after a backoff if
// that is 0.
type later struct {
	error
	after time.Duration
}

func (e *later) Unwrap() error { return e.error }

// retry calls f until it succeeds or fails with an error that does not pass. It returns
// ErrUnreachable after the deadline. attempt counts from 0.
func retry(ctx context.Context, deadline time.Duration, f func(ctx context.Context, attempt int) error) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for attempt := 0; ; attempt++ {
		err := f(ctx, attempt)
		passing := (*later)(nil)
		if !errors.As(err, &passing) {
			return err
		}
		wait := max(passing.after, between.Delay(attempt))
		if end, ok := ctx.Deadline(); ok && time.Until(end) < wait {
			return fmt.Errorf("%w: %w", ErrUnreachable, passing.error)
		}
		if err := backoff.Sleep(ctx, wait); err != nil {
			return fmt.Errorf("%w: %w", ErrUnreachable, passing.error)
		}
	}
}

// retryAfter parses the header Retry-After (RFC 9110, Section 10.2.3): seconds, or a date. It
// returns 0 for anything else, and for a past date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(date.Sub(now), 0)
	}
	return 0
}
