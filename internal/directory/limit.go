package directory

import "golang.org/x/time/rate"

// newLimiter returns a limiter of perSecond requests a second, or of any number if that is 0,
// and of burst at once, at least 1. Callers that wait are let through in the order in which
// they came.
func newLimiter(perSecond float64, burst int) *rate.Limiter {
	if perSecond <= 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(perSecond), max(burst, 1))
}
