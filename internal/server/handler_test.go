package server

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestTokenAndStoreAreAskedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, away := 0, errors.New("away")
		r := &readiness{of: func(context.Context) error { asked++; return away }}
		for range 100 {
			if err := r.ask(t.Context()); err != away {
				t.Fatalf("ask() err = %v, want %v", err, away)
			}
		}
		if asked != 1 {
			t.Errorf("asked %d times in no time, want once", asked)
		}
		time.Sleep(readyFor)
		away = nil
		if err := r.ask(t.Context()); err != nil || asked != 2 {
			t.Errorf("ask() a second later err = %v, asked %d times, want nil and twice", err, asked)
		}
	})
}
