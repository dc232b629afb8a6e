package server

import (
	"cmp"
	"math"
	"time"

	"golang.org/x/time/rate"
)

// Rate is a number of requests a second, with a burst at once.
type Rate struct {
	PerSecond int // 0: no limit
	Burst     int // 0: as many as in a second
}

// limiter returns the limiter of a Rate. It lives in memory, as a quota does.
func (r Rate) limiter() *rate.Limiter {
	if r.PerSecond == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(r.PerSecond), cmp.Or(r.Burst, r.PerSecond))
}

// take takes one request from l and returns 0. If none is left, it takes nothing and returns how
// long it is until the next.
func take(l *rate.Limiter, now time.Time) time.Duration {
	if l.AllowN(now, 1) {
		return 0
	}
	missing := (1 - l.TokensAt(now)) / float64(l.Limit())
	return max(time.Duration(math.Ceil(missing*float64(time.Second))), 1)
}
