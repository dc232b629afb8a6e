package engine

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestTwoKindsOfCallsAreKeptApart has many goroutines of both kinds: none meets the other kind,
// those of one kind meet, and all get their turn.
func TestTwoKindsOfCallsAreKeptApart(t *testing.T) {
	var a turnstile
	var inside [2]atomic.Int64
	var together atomic.Int64
	var all sync.WaitGroup
	for i := range 16 {
		kind := i % 2
		all.Go(func() {
			for range 500 {
				a.enter(kind)
				if inside[kind].Add(1) > 1 {
					together.Add(1)
				}
				if n := inside[1-kind].Load(); n != 0 {
					t.Errorf("%d of the other kind are inside", n)
				}
				runtime.Gosched()
				inside[kind].Add(-1)
				a.leave(kind)
			}
		})
	}
	all.Wait()
	if together.Load() == 0 {
		t.Error("those of one kind never were inside together")
	}
}
