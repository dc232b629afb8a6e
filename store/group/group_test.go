package group_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/store/group"
)

var errOdd = errors.New("odd")

// numbers is a store of numbers that takes none that are odd.
type numbers struct {
	mu     sync.Mutex
	kept   []int
	groups [][]int
	slow   chan struct{} // each group waits for one element
}

func (n *numbers) do(ctx context.Context, acts []group.Act[int]) error {
	if n.slow != nil {
		select {
		case <-n.slow:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []int
	odd := false
	for _, a := range acts {
		all = append(all, a.What)
		odd = odd || a.What%2 != 0
	}
	n.groups = append(n.groups, all)
	if odd {
		return errOdd
	}
	n.kept = append(n.kept, all...)
	return nil
}

func always(error) bool { return true }

// ask has acts wait behind one that is under way, and returns their errors.
func ask(t *testing.T, n *numbers, q *group.Queue[int], acts ...int) []error {
	t.Helper()
	errs := make([]error, len(acts))
	var all sync.WaitGroup
	for i, a := range acts {
		all.Go(func() { errs[i] = q.Do(t.Context(), a) })
		time.Sleep(10 * time.Millisecond) // in this order
	}
	close(n.slow)
	all.Wait()
	return errs
}

func TestActsThatWaitAreDoneTogether(t *testing.T) {
	n := &numbers{slow: make(chan struct{})}
	errs := ask(t, n, group.New(3, n.do, always), 0, 2, 4, 6, 8)
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if want := [][]int{{0}, {2, 4, 6}, {8}}; !slices.EqualFunc(n.groups, want, slices.Equal) {
		t.Errorf("groups = %v, want %v", n.groups, want)
	}
}

func TestWhatOneFailsForIsNoMatterOfTheOthers(t *testing.T) {
	n := &numbers{slow: make(chan struct{})}
	errs := ask(t, n, group.New(10, n.do, always), 0, 2, 3, 4)
	for i, want := range []error{nil, nil, errOdd, nil} {
		if !errors.Is(errs[i], want) {
			t.Errorf("act %d err = %v, want %v", i, errs[i], want)
		}
	}
	if want := []int{0, 2, 4}; !slices.Equal(n.kept, want) {
		t.Errorf("kept = %v, want %v", n.kept, want)
	}
}

func TestAnErrorOfTheStoreIsThatOfAll(t *testing.T) {
	n := &numbers{slow: make(chan struct{})}
	errs := ask(t, n, group.New(10, n.do, func(error) bool { return false }), 0, 2, 3)
	if errs[0] != nil || !errors.Is(errs[1], errOdd) || !errors.Is(errs[2], errOdd) {
		t.Errorf("errs = %v, want the second group to fail", errs)
	}
	if len(n.groups) != 2 {
		t.Errorf("groups = %v, want two, and none tried again", n.groups)
	}
}

func TestOneThatGivesUpBeforeItsTurnIsNotDone(t *testing.T) {
	n := &numbers{slow: make(chan struct{})}
	q := group.New(10, n.do, always)
	var first error
	var all sync.WaitGroup
	all.Go(func() { first = q.Do(t.Context(), 0) })
	time.Sleep(10 * time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	var second error
	all.Go(func() { second = q.Do(ctx, 2) })
	time.Sleep(10 * time.Millisecond)
	cancel()
	close(n.slow)
	all.Wait()
	if first != nil || !errors.Is(second, context.Canceled) || !slices.Equal(n.kept, []int{0}) {
		t.Errorf("errs = %v, %v, kept = %v, want the first alone", first, second, n.kept)
	}
}

func TestAGroupEndsWithAllItsContexts(t *testing.T) {
	n := &numbers{slow: make(chan struct{})} // never
	q := group.New(10, n.do, always)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := q.Do(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Do() err = %v, want %v", err, context.Canceled)
	}
}

func TestManyCallersLoseNothing(t *testing.T) {
	n := &numbers{}
	q := group.New(7, n.do, always)
	var failed atomic.Int64
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			for k := range 100 {
				if err := q.Do(t.Context(), 100*i+k); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	all.Wait()
	if len(n.kept) != 2500 || failed.Load() != 2500 {
		t.Errorf("%d kept, %d refused, want 2500 of each", len(n.kept), failed.Load())
	}
}
