package config

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"
)

// Duration is a span of whole seconds that may be written with days: 84d, 1d12h, 90m. Parsed
// durations are never negative.
type Duration time.Duration

// errDuration says how to write a duration.
var errDuration = errors.New("write a duration as 84d, 36h, 1d12h or 90m")

var durationForm = regexp.MustCompile(`^(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$`)

var durationUnits = []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second}

// ParseDuration parses a duration: whole numbers of days (d), hours (h), minutes (m) and seconds
// (s), in this order, or 0.
func ParseDuration(s string) (Duration, error) {
	if s == "0" {
		return 0, nil
	}
	m := durationForm.FindStringSubmatch(s)
	if m == nil || s == "" {
		return 0, fmt.Errorf("%q: %w", s, errDuration)
	}
	var d time.Duration
	for i, unit := range durationUnits {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(m[i+1], 10, 64)
		if err != nil || n > int64((math.MaxInt64-d)/unit) {
			return 0, fmt.Errorf("%q: it is too long", s)
		}
		d += time.Duration(n) * unit
	}
	return Duration(d), nil
}

// String writes the duration with days.
func (d Duration) String() string {
	const day = 24 * time.Hour
	t := time.Duration(d)
	if t < day {
		return t.String()
	}
	out := fmt.Sprintf("%dd", t/day)
	if t%day != 0 {
		out += (t % day).String()
	}
	return out
}
