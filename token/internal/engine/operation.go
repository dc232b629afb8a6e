package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// do runs f with a session of its own, as one of the operations that may run at once, and
// recovers the token and runs f again where it failed for want of one. f touches nothing
// outside but what it returns: a module that does not answer leaves it running.
func Do[T any](ctx context.Context, e *Engine, f func(*Session) (T, error)) (T, error) {
	var r recovery
	for {
		l, err := e.current()
		var epoch uint64
		if err == nil {
			epoch = l.pool.current()
			var v T
			if v, err = with(ctx, l, f); err == nil {
				if r.tries > 0 {
					e.observe(Recovery{Step: StepDone, Try: r.tries, Since: time.Since(r.began)})
				}
				return v, nil
			}
		}
		if err = e.recover(ctx, &r, l, epoch, err); err != nil {
			var zero T
			return zero, err
		}
	}
}

// none is what a call returns that returns nothing.
type none = struct{}

// with runs f once with a session of the link. The session is kept for the next one when
// f returns nil, and closed otherwise, also when f panics. It waits for a free place
// until ctx is done or the link is given up.
func with[T any](ctx context.Context, l *link, f func(*Session) (T, error)) (T, error) {
	var zero T
	if err := l.pool.acquire(ctx); err != nil {
		return zero, err
	}
	m := l.engine.module
	var pulse atomic.Uint64
	var leave leaving
	v, err := answerThen(l.engine.cfg.Timeout, &pulse, func() (T, error) {
		defer leave.early(l.pool, time.Now())
		if l.engine.cfg.Quirks.OneAtATime {
			defer l.engine.exclusive()()
		} else {
			m.calls.RLock()
			defer m.calls.RUnlock()
		}
		if l.pool.closed() { // the module was finalised while this waited
			return zero, errLinkGone
		}
		s, err := l.pool.take()
		if err != nil {
			return zero, err
		}
		s.pulse, s.logins = &pulse, m.logging.Load()
		sound := false
		defer func() { l.pool.put(s, sound) }()
		v, err := f(s)
		sound = err == nil
		return v, err
	}, func() { leave.late(l.pool) })
	if errors.Is(err, ErrStuck) {
		l.engine.endStuck(err)
	}
	return v, err
}

// long is what makes an operation a long one. After a short one the processor is what others
// wait for, and the caller has it next, to go on with what the module has returned. After a
// long one it is the session, and whoever waits for that is next: the scheduler runs first
// what was woken last.
const long = time.Millisecond

// leaving is how an operation leaves its place.
type leaving struct{ long bool }

// early leaves it, before the caller hears of it, where the operation was a short one.
func (o *leaving) early(p *pool, begun time.Time) {
	if o.long = time.Since(begun) > long; !o.long {
		p.release()
	}
}

// late leaves it where early did not.
func (o *leaving) late(p *pool) {
	if o.long {
		p.release()
	}
}

// exclusive waits until no operation runs in the module where none may run beside another one,
// and returns what ends that. What is called with it makes no other operation.
func (e *Engine) exclusive() (end func()) {
	if !e.cfg.Quirks.OneAtATime {
		return func() {}
	}
	e.module.calls.Lock()
	return e.module.calls.Unlock
}

// endStuck gives the Token up, and with it those that wait for what will not come.
func (e *Engine) endStuck(err error) {
	if e.end(err) {
		close(e.stuck)
	}
}

// errNotEnded reports an operation that ended its goroutine.
var errNotEnded = errors.New("the operation did not return")

// answer runs f, which calls the module, and waits for it for so long, and anew after each
// beat of pulse, if it has one. A module that does not answer cannot be stopped: f is left
// behind, and the error is ErrStuck. A panic of f is passed on.
func answer[T any](timeout time.Duration, pulse *atomic.Uint64, f func() (T, error)) (T, error) {
	return answerThen(timeout, pulse, f, func() {})
}

// answerThen is answer, and calls then after what f returned, or its panic, was passed on.
func answerThen[T any](timeout time.Duration, pulse *atomic.Uint64, f func() (T, error), then func()) (T, error) {
	type outcome struct {
		v        T
		err      error
		panicked any
	}
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		returned := false
		defer func() {
			if !returned {
				o.panicked = recover()
				o.err = errNotEnded // by runtime.Goexit
			}
			done <- o
			then()
		}()
		o.v, o.err = f()
		returned = true
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var seen uint64
	for {
		select {
		case o := <-done:
			if o.panicked != nil {
				panic(o.panicked)
			}
			return o.v, o.err
		case <-timer.C:
		}
		if pulse == nil || pulse.Load() == seen {
			var zero T
			return zero, fmt.Errorf("%w within %v", ErrStuck, timeout)
		}
		seen = pulse.Load()
		timer.Reset(timeout)
	}
}
