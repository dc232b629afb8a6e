package directory

import (
	"net/http"
	"testing"
	"time"
)

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "-1": 0, "1.5": 0, "soon": 0, "99999999999999": 0,
		"Wed, 02 Jan 2030 03:04:15 GMT": 10 * time.Second, "Wed, 02 Jan 2030 03:04:00 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {text}}, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestALimiterLetsABurstThroughAndThenARate(t *testing.T) {
	l := newLimiter(10, 3)
	now := time.Now()
	var got []time.Duration
	for range 5 {
		got = append(got, l.ReserveN(now, 1).DelayFrom(now))
	}
	for i, want := range []time.Duration{0, 0, 0, 100 * time.Millisecond, 200 * time.Millisecond} {
		if got[i] != want {
			t.Errorf("turn %d is after %v, want %v", i, got[i], want)
		}
	}
	now = now.Add(time.Hour)
	if d := l.ReserveN(now, 1).DelayFrom(now); d > 0 {
		t.Errorf("after an hour a turn is after %v, want now", d)
	}
	if newLimiter(0, 1).Wait(t.Context()) != nil {
		t.Error("no limit waits")
	}
}
