package profile

import (
	"testing"
	"time"
)

func TestLifetimesAreShownInDays(t *testing.T) {
	for d, want := range map[time.Duration]string{
		84 * 24 * time.Hour:           "84d",
		84*24*time.Hour + time.Hour:   "84d1h0m0s",
		36 * time.Hour:                "1d12h0m0s",
		90*24*time.Hour + time.Second: "90d1s",
	} {
		if got := days(uint64(d / time.Second)); got != want {
			t.Errorf("days(%v) = %q, want %q", d, got, want)
		}
	}
}
