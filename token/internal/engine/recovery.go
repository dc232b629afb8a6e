package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/backoff"
)

// Step is a step of a recovery. Package token documents the steps.
type Step int

// The steps, from the least to the most.
const (
	StepNone Step = iota
	StepWait
	StepSession
	StepLogin
	StepModule
	StepDone
)

// Recovery describes one step of a recovery.
type Recovery struct {
	Step  Step
	Cause error         // what the operation failed with; nothing secret; nil with StepDone
	Try   int           // the first is 1
	Delay time.Duration // before the operation is tried again
	Since time.Duration // the first fault of the operation
}

// unrepeatable marks the error of a call that must not be repeated: it may have done what it was
// asked for.
type unrepeatable struct{ error }

func (e unrepeatable) Unwrap() error { return e.error }

// Once marks err, if it is not nil, as of a call that must not be repeated.
func Once(err error) error {
	if err == nil {
		return nil
	}
	return unrepeatable{err}
}

// StepOf returns the step that an error asks for. An error of the data asks for none, whatever
// the module returned with it.
func (q Quirks) StepOf(err error) Step {
	if isAnyOf(err, ErrDecrypt, ErrKeyMismatch, ErrKeyChanged, ErrStuck, ErrClosed, ErrPIN, ErrPINAtRisk) {
		return StepNone
	}
	if _, made := errors.AsType[unrepeatable](err); made {
		return StepNone
	}
	switch {
	case isAnyOf(err, errLinkGone, errLoginMoved):
		return StepWait
	case isAnyOf(err, errTokenChanged):
		return StepModule
	case FailedWith(err, CKR_SESSION_COUNT):
		return StepWait
	case FailedWith(err, CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED, CKR_OBJECT_HANDLE_INVALID, CKR_KEY_HANDLE_INVALID,
		CKR_WRAPPING_KEY_HANDLE_INVALID, CKR_UNWRAPPING_KEY_HANDLE_INVALID, CKR_OPERATION_ACTIVE, CKR_OPERATION_NOT_INITIALIZED):
		return StepSession
	case FailedWith(err, CKR_USER_NOT_LOGGED_IN, CKR_DEVICE_ERROR, CKR_DEVICE_REMOVED, CKR_TOKEN_NOT_PRESENT), FailedWith(err, q.Gone...):
		return StepLogin
	case FailedWith(err, CKR_CRYPTOKI_NOT_INITIALIZED):
		return StepModule
	}
	return StepNone
}

func isAnyOf(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// errLoginMoved reports a search that found nothing while the login was lost and made again: it
// proves nothing, and nothing needs recovering any more.
var errLoginMoved = errors.New("the login was made again during the search")

// recovery is the recovery of one operation.
type recovery struct {
	began time.Time // of the first fault
	tries int
	last  Step
}

// next returns the step for a fault after those before it.
func (r *recovery) next(asked Step) Step {
	r.tries++
	if asked == StepWait {
		return StepWait
	}
	if r.last != StepNone {
		asked = max(asked, min(r.last+1, StepModule))
	}
	r.last = asked
	return asked
}

// retries are the delays before an operation is tried again, after the first time.
var retries = backoff.Backoff{First: 50 * time.Millisecond, Most: 5 * time.Second}

// delay returns how long to wait after so many tries: nothing after the first.
func delay(tries int) time.Duration {
	if tries <= 1 {
		return 0
	}
	return retries.Delay(tries - 2)
}

// recover does what err asks for. It returns nil if the operation should be tried again. l is the
// link that it failed on, or nil if none could be made; epoch is that of its handles.
func (e *Engine) recover(ctx context.Context, r *recovery, l *link, epoch uint64, err error) error {
	if errors.Is(err, ErrKeyChanged) {
		e.end(err)
	}
	asked := e.cfg.Quirks.StepOf(err)
	if why := e.over.Load(); asked == StepNone || ctx.Err() != nil || why != nil {
		if why != nil && asked != StepNone {
			return *why
		}
		return err
	}
	if errors.Is(err, errLinkGone) {
		return nil // another goroutine has recovered it
	}
	if r.tries == 0 {
		r.began = time.Now()
	}
	step := r.next(asked)
	wait := delay(r.tries)
	if step == StepWait {
		wait = max(wait, delay(2))
	}
	spent := time.Since(r.began)
	if e.cfg.Patience < 0 {
		return err
	}
	if spent >= e.cfg.Patience {
		return fmt.Errorf("%w (tried %d times in %v)", err, r.tries, spent.Round(time.Millisecond))
	}
	wait = min(wait, e.cfg.Patience-spent) // the last try is at the end
	e.observe(Recovery{Step: step, Cause: err, Try: r.tries, Delay: wait, Since: spent})
	if err := backoff.Sleep(ctx, wait); err != nil {
		return err
	}
	if l == nil {
		return nil // current makes one
	}
	return e.renew(step, l, epoch)
}

func (e *Engine) observe(r Recovery) {
	if e.cfg.Observe != nil {
		e.cfg.Observe(r)
	}
}

// RenewSessions ends the sessions that may have a copy of a key that was destroyed.
func (e *Engine) RenewSessions() error {
	l := e.link.Load()
	if l == nil {
		return nil
	}
	return e.renewSessions(l)
}

func (e *Engine) renewSessions(l *link) error {
	return e.withModule(func() {
		defer e.exclusive()()
		l.pool.renew(e.epochs.Add(1))
	})
}

// renew takes a step on the link that an operation failed on. If the link was replaced meanwhile,
// that was the step. An error ends the operation.
func (e *Engine) renew(step Step, l *link, epoch uint64) error {
	if step == StepWait {
		return nil
	}
	e.relinking.Lock()
	defer e.relinking.Unlock()
	if e.link.Load() != l {
		return nil
	}
	switch step {
	case StepSession:
		if l.pool.current() != epoch {
			return nil
		}
		return e.renewSessions(l)
	case StepLogin:
		return e.relink(l)
	}
	return e.restart()
}

// withModule calls f, which calls the module, and ends the Engine if the module does not answer.
func (e *Engine) withModule(f func()) error {
	_, err := answer(e.cfg.Timeout, nil, func() (none, error) { f(); return none{}, nil })
	if errors.Is(err, ErrStuck) {
		e.endStuck(err)
	}
	return err
}

// relink makes a link beside the old one, waits for what runs on the old one, and closes it. If
// no new one can be made, the old one stays; the next try is a step further.
func (e *Engine) relink(old *link) error {
	if _, err := e.connect(); err != nil {
		if e.cfg.Quirks.StepOf(err) == StepNone {
			return err
		}
		return nil
	}
	if err := old.pool.drain(); err != nil {
		return err
	}
	return e.withModule(func() {
		e.module.mu.Lock()
		defer e.module.mu.Unlock()
		defer e.exclusive()()
		e.module.disconnect(old)
	})
}

// restart takes away the links of all Engines of the module, once nothing runs on them, and
// finalizes the module. Each Engine makes itself a new link, and the first initializes the
// module. e.relinking is held; those of other Engines are not, so one of them may be about to use
// a link that is closed here: with checks for that.
func (e *Engine) restart() error {
	m := e.module
	return e.withModule(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.calls.Lock() // waits for what runs, in all Engines
		defer m.calls.Unlock()
		m.letGo()
		for l := range m.links {
			l.engine.link.CompareAndSwap(l, nil)
			l.pool.forsake()
			m.release(l)
		}
		clear(m.logins)
	})
}
