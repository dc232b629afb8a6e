package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// Do runs f with a session of its own, as one of the operations that may run at once. If f fails
// because something is gone, Do recovers the token and runs f again. f changes nothing outside
// but what it returns: it keeps running after Do has returned if the module does not answer.
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

// with runs f once with a session of the link. It keeps the session for the next operation if f
// returns nil, and closes it otherwise, also if f panics. It waits for a permit until ctx is done
// or the link is given up.
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
		if l.pool.closed() { // the module was finalized while this waited
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

// long is what makes an operation a long one. After a short one, others wait for the processor:
// the caller gets it next, to go on with what the module has returned. After a long one, others
// wait for the session, and get it next: the scheduler runs first what was woken last.
const long = time.Millisecond

// leaving is how an operation gives back its permit.
type leaving struct{ long bool }

// early gives it back, before the caller gets the result, if the operation was a short one.
func (o *leaving) early(p *pool, begun time.Time) {
	if o.long = time.Since(begun) > long; !o.long {
		p.release()
	}
}

// late gives it back if early did not.
func (o *leaving) late(p *pool) {
	if o.long {
		p.release()
	}
}

// exclusive waits until no operation runs in the module, if it takes one call at a time, and
// returns what ends that. The caller starts no operation meanwhile.
func (e *Engine) exclusive() (end func()) {
	if !e.cfg.Quirks.OneAtATime {
		return func() {}
	}
	e.module.calls.Lock()
	return e.module.calls.Unlock
}

// endStuck ends the Engine, and with it those that wait for what will not come.
func (e *Engine) endStuck(err error) {
	if e.end(err) {
		close(e.stuck)
	}
}

// errNotEnded reports an operation that ended its goroutine.
var errNotEnded = errors.New("the operation did not return")

// answer runs f, which calls the module, and waits for it until the timeout, or as long again
// after each beat of pulse, if there is one. A module that does not answer cannot be stopped: f
// is left behind, and the error is ErrStuck. A panic of f is passed on.
func answer[T any](timeout time.Duration, pulse *atomic.Uint64, f func() (T, error)) (T, error) {
	return answerThen(timeout, pulse, f, func() {})
}

// answerThen is answer, and calls then after it has passed on the result of f, or its panic.
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
