package token_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/token"
)

// watching counts what Config.Watch is called with.
type watching struct {
	mu   sync.Mutex
	seen map[string]map[token.RV]int
	took time.Duration
}

func (w *watching) watch(c token.Call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen == nil {
		w.seen = make(map[string]map[token.RV]int)
	}
	if w.seen[c.Func] == nil {
		w.seen[c.Func] = make(map[token.RV]int)
	}
	w.seen[c.Func][c.RV]++
	w.took += c.Took
}

func (w *watching) count(function string, rv token.RV) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[function][rv]
}

// The watcher sees whatever the module counts, through onecall and through the libraries.
func TestEveryCallOfASessionIsWatched(t *testing.T) {
	for _, long := range []bool{false, true} {
		t.Run(fmt.Sprintf("library calls %v", long), func(t *testing.T) {
			w := new(watching)
			f := openFaulty(t, func(c *token.Config) { c.Watch, c.Quirks.LibraryCalls = w.watch, long })
			for _, op := range operations {
				if err := op.do(t, f); err != nil {
					t.Fatalf("%s: %v", op.name, err)
				}
			}
			if err := f.tok.Random(t.Context(), make([]byte, 8)); err != nil {
				t.Fatal(err)
			}
			for function := range f.AllCalls() {
				call, begins := strings.CutSuffix(function, "Init")
				if begins && w.count(call, 0) > 0 {
					continue // part of the call
				}
				switch function {
				case "C_Initialize", "C_Finalize", "C_GetInfo", "C_GetSlotList", "C_GetTokenInfo", "C_GetMechanismInfo":
					continue // no session makes them
				case "C_CloseSession":
					if f.Calls(function) == 1 {
						continue // that of crypto11, with which Open holds the module
					}
				}
				if w.count(function, 0) == 0 {
					t.Errorf("%s was called %d times, and nobody was told", function, f.Calls(function))
				}
			}
			if w.took <= 0 {
				t.Errorf("all calls took %v", w.took)
			}
		})
	}
}

func TestAFailedCallIsWatchedByItsCode(t *testing.T) {
	w := new(watching)
	f := openFaulty(t, func(c *token.Config) { c.Watch = w.watch })
	for _, function := range []string{"C_Sign", "C_SignInit"} {
		f.Fail(t, function, 1, 1, token.CKR_DEVICE_ERROR)
		input, opts := toSign(token.P256, []byte("message"))
		if _, err := f.signing.Sign(nil, input, opts); err != nil {
			t.Fatal(err)
		}
		if got := w.count(function, token.CKR_DEVICE_ERROR); got != 1 {
			t.Errorf("%s failed %d times to whoever watches, want 1: %v", function, got, w.seen)
		}
	}
}

func TestUsageIsThatOfTheMoment(t *testing.T) {
	f := openFaulty(t, nil)
	if u := f.tok.Usage(); !u.Open || u.Over || u.Limit != 4 || u.InUse != 0 || u.Idle == 0 || u.Waiting != 0 {
		t.Errorf("at rest: %+v, want 4 places, all free", u)
	}
	var waiting sync.WaitGroup
	f.SetLatency(500 * time.Millisecond)
	for range 12 {
		waiting.Go(func() {
			if err := f.tok.Random(t.Context(), make([]byte, 1)); err != nil {
				t.Error(err)
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if u := f.tok.Usage(); u.InUse == 4 && u.Waiting > 0 {
			f.SetLatency(0)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("under load: %+v, want 4 in use and some that wait", f.tok.Usage())
		}
	}
	waiting.Wait()
	if err := f.tok.Close(); err != nil {
		t.Fatal(err)
	}
	if u := f.tok.Usage(); u.Open || !u.Over {
		t.Errorf("closed: %+v, want it over", u)
	}
}
