package backoff

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestDelaysGrowAndDiffer(t *testing.T) {
	b := Backoff{First: 250 * time.Millisecond, Most: 15 * time.Second}
	for attempt := range 100 {
		most := min(b.First<<min(attempt, 10), b.Most)
		if d := b.Delay(attempt); d < most/2 || d > most {
			t.Errorf("Delay(%d) = %v, want from %v to %v", attempt, d, most/2, most)
		}
	}
	seen := make(map[time.Duration]bool)
	for range 100 {
		seen[b.Delay(3)] = true
	}
	if len(seen) < 50 {
		t.Errorf("a hundred delays have %d values, want them to differ", len(seen))
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if err := Sleep(ctx, time.Millisecond); err != nil {
		t.Errorf("Sleep() err = %v, want nil", err)
	}
	cancel()
	for _, d := range []time.Duration{0, time.Hour} {
		if err := Sleep(ctx, d); !errors.Is(err, context.Canceled) {
			t.Errorf("Sleep(%v) err = %v, want %v", d, err, context.Canceled)
		}
	}
}
