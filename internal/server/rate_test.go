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
		l := tt.rate.limiter()
		for i := range tt.burst {
			if wait := take(l, now); wait != 0 {
				t.Errorf("%+v: number %d waits %v, want a burst of %d", tt.rate, i, wait, tt.burst)
			}
		}
		if wait := take(l, now); wait != tt.every {
			t.Errorf("%+v: after the burst it is %v, want %v", tt.rate, wait, tt.every)
		}
		later := now.Add(tt.every)
		if wait := take(l, later); wait != 0 {
			t.Errorf("%+v: %v later it is %v, want one", tt.rate, tt.every, wait)
		}
		if wait := take(l, later); wait != tt.every {
			t.Errorf("%+v: and then %v, want %v", tt.rate, wait, tt.every)
		}
		if take(l, now.Add(time.Hour)) != 0 {
			t.Errorf("%+v: nothing after an hour", tt.rate)
		}
	}
}

func TestWithoutARateAllIsLetThrough(t *testing.T) {
	l, now := Rate{}.limiter(), time.Unix(1_800_000_000, 0)
	for range 100000 {
		if wait := take(l, now); wait != 0 {
			t.Fatalf("take() = %v, want 0", wait)
		}
	}
}

func TestWhoWaitsAsLongAsItIsToldIsLetThrough(t *testing.T) {
	for _, perSecond := range []int{3, 7, 999, 999_983} {
		l, now := Rate{PerSecond: perSecond, Burst: 1}.limiter(), time.Unix(1_800_000_000, 0)
		take(l, now)
		for range 1000 {
			now = now.Add(take(l, now))
			if wait := take(l, now); wait != 0 {
				t.Fatalf("%d a second: after the wait it is %v, want one", perSecond, wait)
			}
		}
	}
}
