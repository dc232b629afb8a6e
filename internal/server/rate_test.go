package server

import (
	"testing"
	"time"
)

func TestABurstIsLetThroughAndThenSoManyASecond(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		rate  Rate
		burst int
		every time.Duration
	}{
		{Rate{PerSecond: 10, Burst: 3}, 3, 100 * time.Millisecond},
		{Rate{PerSecond: 1, Burst: 1}, 1, time.Second},
		{Rate{PerSecond: 4}, 4, 250 * time.Millisecond},
	} {
		b := new(bucket)
		for i := range tt.burst {
			if wait := b.take(tt.rate, now); wait != 0 {
				t.Errorf("%+v: number %d waits %v, want a burst of %d", tt.rate, i, wait, tt.burst)
			}
		}
		if wait := b.take(tt.rate, now); wait != tt.every {
			t.Errorf("%+v: after the burst it is %v, want %v", tt.rate, wait, tt.every)
		}
		later := now.Add(tt.every)
		if wait := b.take(tt.rate, later); wait != 0 {
			t.Errorf("%+v: %v later it is %v, want one", tt.rate, tt.every, wait)
		}
		if wait := b.take(tt.rate, later); wait != tt.every {
			t.Errorf("%+v: and then %v, want %v", tt.rate, wait, tt.every)
		}
		if b.take(tt.rate, now.Add(time.Hour)) != 0 {
			t.Errorf("%+v: nothing after an hour", tt.rate)
		}
	}
}

func TestWithoutARateAllIsLetThrough(t *testing.T) {
	b, now := new(bucket), time.Unix(1_800_000_000, 0)
	for range 100000 {
		if wait := b.take(Rate{}, now); wait != 0 {
			t.Fatalf("take() = %v, want 0", wait)
		}
	}
}
