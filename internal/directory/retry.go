package directory

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// How long to wait before the second attempt, and at most between two.
const (
	firstDelay = 250 * time.Millisecond
	mostDelay  = 15 * time.Second
)

// later is an error that passes: after the time that the directory gave, or after one of our
// choice where that is 0.
type later struct {
	error
	after time.Duration
}

func (e *later) Unwrap() error { return e.error }

// retry calls f until it succeeds, fails with something that does not pass, or the deadline
// is over, and then with ErrUnreachable. attempt counts from 0.
func retry(ctx context.Context, deadline time.Duration, f func(ctx context.Context, attempt int) error) error {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	for attempt := 0; ; attempt++ {
		err := f(ctx, attempt)
		passing := (*later)(nil)
		if !errors.As(err, &passing) {
			return err
		}
		wait := max(passing.after, delay(attempt))
		if end, ok := ctx.Deadline(); ok && time.Until(end) < wait {
			return fmt.Errorf("%w: %w", ErrUnreachable, passing.error)
		}
		if err := sleep(ctx, wait); err != nil {
			return fmt.Errorf("%w: %w", ErrUnreachable, passing.error)
		}
	}
}

// delay is how long to wait after an attempt: twice as long each time, and between half of
// that and all of it, so that many who failed together do not come back together.
func delay(attempt int) time.Duration {
	d := min(firstDelay<<min(attempt, 10), mostDelay)
	return d/2 + rand.N(d/2)
}

// retryAfter reads the header Retry-After (RFC 9110, Section 10.2.3): seconds, or a date.
// What is neither, or past, is 0.
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
