package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// Duration is a span of time that may be written with days: 84d, 1d12h, 90m.
type Duration time.Duration

// errDuration says how a duration is written.
var errDuration = errors.New("write a duration as 84d, 36h, 1d12h or 90m")

// ParseDuration reads a duration: whole days before a d, then what
// time.ParseDuration takes.
func ParseDuration(s string) (Duration, error) {
	days, rest, found := strings.Cut(s, "d")
	if !found {
		days, rest = "0", s
	}
	const day = 24 * time.Hour
	n, err := strconv.ParseInt(days, 10, 64)
	if err != nil || n < 0 || n > int64(math.MaxInt64/day)-1 {
		return 0, fmt.Errorf("%q: %w", s, errDuration)
	}
	d := time.Duration(n) * day
	if rest != "" {
		more, err := time.ParseDuration(rest)
		if err != nil || more > math.MaxInt64-d || (found && more < 0) {
			return 0, fmt.Errorf("%q: %w", s, errDuration)
		}
		d += more
	}
	if !found && s == "" {
		return 0, fmt.Errorf("%q: %w", s, errDuration)
	}
	return Duration(d), nil
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return errDuration
	}
	v, err := ParseDuration(n.Value)
	*d = v
	return err
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
