package record

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
)

// gate is a queue whose transactions wait until they are let through, and fail if one of their acts
// is negative.
type gate struct {
	*Queue[int]
	begun chan []int
	pass  chan struct{}
}

var (
	errNegative = errors.New("negative")
	errServer   = errors.New("the server cannot be reached")
)

func newGate(failure error) *gate {
	g := &gate{begun: make(chan []int), pass: make(chan struct{})}
	g.Queue = NewQueue(func(ctx context.Context, group []*Waiting[int]) error {
		var acts []int
		for _, one := range group {
			acts = append(acts, one.Act)
		}
		g.begun <- acts
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-g.pass:
		}
		if slices.ContainsFunc(acts, func(n int) bool { return n < 0 }) {
			return failure
		}
		return nil
	}, func(err error) bool { return errors.Is(err, errNegative) })
	return g
}

// behind makes acts wait behind one that is under way, and returns a function that waits for their
// errors.
func (g *gate) behind(t *testing.T, contexts []context.Context, acts ...int) (wait func() []error) {
	errs := make([]error, len(acts))
	var wg sync.WaitGroup
	wg.Go(func() { g.Do(context.Background(), 0) })
	<-g.begun
	for i, act := range acts {
		ctx := t.Context()
		if i < len(contexts) {
			ctx = contexts[i]
		}
		wg.Go(func() { errs[i] = g.Do(ctx, act) })
		g.await(i + 1)
	}
	return func() []error { wg.Wait(); return errs }
}

func (g *gate) await(n int) {
	for {
		g.mu.Lock()
		there := len(g.waiting)
		g.mu.Unlock()
		if there == n {
			return
		}
	}
}

// finish lets transactions through until the queue is empty, and returns their acts.
func (g *gate) finish() (groups [][]int) {
	g.pass <- struct{}{}
	for {
		g.mu.Lock()
		running := g.running
		g.mu.Unlock()
		if !running {
			return groups
		}
		select {
		case acts := <-g.begun:
			groups = append(groups, acts)
			g.pass <- struct{}{}
		default:
		}
	}
}

func TestWhatComesMeanwhileSharesTheNextTransaction(t *testing.T) {
	g := newGate(errNegative)
	g.behind(t, nil, 1, 2, 3)
	if got := g.finish(); len(got) != 1 || !slices.Equal(got[0], []int{1, 2, 3}) {
		t.Errorf("transactions of %v, want one of 1, 2 and 3", got)
	}
}

func TestOneThatFailsIsNoMatterOfTheOthers(t *testing.T) {
	g := newGate(errNegative)
	wait := g.behind(t, nil, 1, -2, 3)
	if got := g.finish(); len(got) != 4 {
		t.Errorf("transactions of %v, want one of all and one of each", got)
	}
	errs := wait()
	if errs[0] != nil || !errors.Is(errs[1], errNegative) || errs[2] != nil {
		t.Errorf("Do() err = %v, want only the second to fail", errs)
	}
}

func TestTheServersErrorIsEverybodys(t *testing.T) {
	g := newGate(errServer)
	wait := g.behind(t, nil, 1, -2)
	if got := g.finish(); len(got) != 1 {
		t.Errorf("transactions of %v, want one", got)
	}
	errs := wait()
	if !errors.Is(errs[0], errServer) || !errors.Is(errs[1], errServer) {
		t.Errorf("Do() err = %v, want %v of both", errs, errServer)
	}
}

// The act of a caller who gave up before the transaction began is left out, and not reported as done.
func TestWhoGaveUpIsLeftOut(t *testing.T) {
	g := newGate(errNegative)
	ctx, cancel := context.WithCancel(t.Context())
	wait := g.behind(t, []context.Context{ctx}, 1, 2)
	cancel()
	if got := g.finish(); len(got) != 1 || !slices.Equal(got[0], []int{2}) {
		t.Errorf("transactions of %v, want one of 2", got)
	}
	errs := wait()
	if !errors.Is(errs[0], context.Canceled) || errs[1] != nil {
		t.Errorf("Do() err = %v, want the first to be canceled", errs)
	}
}

// A transaction whose outcome is not known yet keeps its own callers waiting, and no others.
func TestOthersGoOnWhileATransactionIsUnsettled(t *testing.T) {
	known := make(chan error)
	g := newGate(&Unsettled{Settle: func() error { return <-known }})
	wait := g.behind(t, nil, 1, -2)
	g.pass <- struct{}{}
	if got := <-g.begun; !slices.Equal(got, []int{1, -2}) {
		t.Errorf("a transaction of %v, want one of 1 and -2", got)
	}
	g.pass <- struct{}{}
	other := make(chan error)
	go func() { other <- g.Do(t.Context(), 3) }()
	<-g.begun
	g.pass <- struct{}{}
	if err := <-other; err != nil {
		t.Errorf("Do() err = %v, want nil", err)
	}
	known <- errServer
	for _, err := range wait() {
		if !errors.Is(err, errServer) {
			t.Errorf("Do() err = %v, want %v", err, errServer)
		}
	}
}
