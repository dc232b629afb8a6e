package config

import (
	"math"
	"testing"
	"time"
)

func TestParseDuration(t *testing.T) {
	const day = 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"84d": 84 * day, "0": 0, "0s": 0, "90m": 90 * time.Minute, "1d12h": 36 * time.Hour, "1d2h3m4s": day + 2*time.Hour + 3*time.Minute + 4*time.Second,
		"106751d": 106751 * day, "106751d23h47m16s": math.MaxInt64 / time.Second * time.Second, "0100d": 100 * day,
	} {
		if got, err := ParseDuration(text); err != nil || time.Duration(got) != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "84", "d", "d5", "5dd", "1.5d", "-1h", "1d 12h", "-1d", "+1d", "1d-1h", "1.5h", "500ms", "1h1d", "1d1d", " 1d", "1d ", "1D", "١d", "soon",
		"106752d", "106751d23h47m17s", "9223372037s", "106751d106751d", "153722868m", "2562048h", "99999999999999999999d"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, got)
		}
	}
}

func TestDurationIsReadAsItIsWritten(t *testing.T) {
	for _, d := range []time.Duration{0, time.Second, 90 * time.Minute, 24 * time.Hour, 84 * 24 * time.Hour, 36*time.Hour + time.Second, math.MaxInt64 / time.Second * time.Second} {
		got, err := ParseDuration(Duration(d).String())
		if err != nil || time.Duration(got) != d {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", Duration(d).String(), got, err, d)
		}
	}
}

// A parsed duration is never negative, and is parsed as the same from what String writes.
func FuzzParseDuration(f *testing.F) {
	for _, text := range []string{"84d", "1d12h", "90m", "0", "106751d23h47m16s", "99999999999999999999d", "-1h", "1.5d", "d5"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDuration(text)
		if err != nil {
			return
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d || d < 0 {
			t.Errorf("ParseDuration(%q) = %v, and of that %v, %v", text, d, again, err)
		}
	})
}
