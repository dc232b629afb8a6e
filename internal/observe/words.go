package observe

import (
	"fmt"
	"strconv"
	"time"
)

// count writes a number with commas between thousands.
func count(n uint64) string {
	text := strconv.FormatUint(n, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// date and clock write a time in UTC.
func date(t time.Time) string  { return t.UTC().Format("2 Jan 2006") }
func clock(t time.Time) string { return t.UTC().Format("15:04:05") }

// took writes a duration in two or three digits.
func took(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// until writes how far a time is from now, in the future or the past.
func until(now, t time.Time) string {
	d := t.Sub(now)
	if d < 0 {
		return about(-d) + " ago"
	}
	return "in " + about(d)
}

// about writes a span of time in its largest unit.
func about(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 2*day:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d d", int(d/day))
}
