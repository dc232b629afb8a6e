package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Config says which token to open and how. Package token documents the fields.
type Config struct {
	Module string
	Want   Criteria
	// Credentials returns what the login is made with. Open calls it once, after it has found
	// the token.
	Credentials func(context.Context, Info) (Credentials, error)

	Sessions          int // 1 or more
	Timeout, Patience time.Duration
	Observe           func(Recovery) // or nil
	Watch             func(Call)     // or nil
	Quirks            Quirks
}

// Quirks are what some modules need and others do not. Package token documents the fields.
type Quirks struct {
	InitArgs     string
	LibraryCalls bool
	TokenObjects bool
	KWP          uint
	UnwrapPoint  bool
	LocalUntold  bool
	OneAtATime   bool
	TokenNonce   bool
	Gone         []RV
}

// Engine is an open token with the user logged in.
type Engine struct {
	module *module
	cfg    Config
	creds  Credentials

	// See doc.go for the locks and flags.
	relinking sync.Mutex
	link      atomic.Pointer[link]  // nil: there is none at the moment
	over      atomic.Pointer[error] // why nothing is done any more
	info      atomic.Pointer[slotInfo]
	stuck     chan struct{} // closed once the module did not answer
	epochs    atomic.Uint64
}

func newEngine(m *module, cfg Config, creds Credentials, info *slotInfo) *Engine {
	e := &Engine{module: m, cfg: cfg, creds: creds, stuck: make(chan struct{})}
	e.info.Store(info)
	return e
}

// Open finds the token, has cfg.Credentials read the PIN, and logs in. The Engine owns the PIN.
func Open(ctx context.Context, cfg Config) (e *Engine, err error) {
	m, info, held, err := find(cfg)
	if held {
		defer func() { m.endHold(cfg.Timeout, err) }()
	}
	if err != nil {
		return nil, err
	}
	if cfg.Sessions, err = cfg.sessions(info); err != nil {
		return nil, fmt.Errorf("open token %q: %w", info.Label, err)
	}
	if info.UserPINLocked {
		return nil, fmt.Errorf("log in to token %q: %w", info.Label, &refusal{cause: &Error{Func: "C_GetTokenInfo", RV: CKR_PIN_LOCKED}})
	}
	creds, err := cfg.Credentials(ctx, info.Info)
	if err != nil {
		return nil, fmt.Errorf("log in to token %q: %w", info.Label, err)
	}
	cfg.Credentials = nil
	if err = ctx.Err(); err == nil {
		e = newEngine(m, cfg, creds, &info)
		_, err = e.connect()
	}
	if err != nil {
		creds.PIN.Clear()
		return nil, err
	}
	return e, nil
}

// Beside opens another Engine on the same token, with the same PIN, and with the quirks that
// it has except for LibraryCalls and TokenObjects.
func (e *Engine) Beside(libraryCalls, tokenObjects bool) (*Engine, error) {
	if why := e.over.Load(); why != nil {
		return nil, *why
	}
	cfg, creds := e.cfg, e.creds
	cfg.Quirks.LibraryCalls, cfg.Quirks.TokenObjects = libraryCalls, tokenObjects
	creds.PIN = NewPIN(creds.PIN.Reveal())
	info := *e.info.Load()
	other := newEngine(e.module, cfg, creds, &info)
	if _, err := other.connect(); err != nil {
		creds.PIN.Clear()
		return nil, err
	}
	return other, nil
}

// find loads the module and chooses the token. held reports that the module stays initialized.
func find(cfg Config) (m *module, chosen slotInfo, held bool, err error) {
	type found struct {
		module *module
		info   slotInfo
		held   bool
	}
	f, err := answer(cfg.Timeout, nil, func() (f found, err error) {
		if f.module, err = loadModule(cfg.Module); err == nil {
			f.held = f.module.hold(cfg)
			f.info, err = f.module.choose(cfg)
		}
		return f, err
	})
	if errors.Is(err, ErrStuck) {
		err = fmt.Errorf("find token in %q: %w", cfg.Module, err)
	}
	return f.module, f.info, f.held, err
}

// endHold ends what hold began, if no link came of it.
func (m *module) endHold(timeout time.Duration, why error) {
	if errors.Is(why, ErrStuck) {
		return // the goroutine that waits for the module has the lock
	}
	_, _ = answer(timeout, nil, func() (none, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.letGo()
		return none{}, nil
	})
}

// sessions is how many operations may run at once on the token: each has a session, beside
// one that crypto11 keeps and one for when a link replaces another. With LibraryCalls
// crypto11 opens one for each operation too.
func (cfg Config) sessions(info slotInfo) (int, error) {
	n := cfg.Sessions
	if n < 0 {
		return 0, fmt.Errorf("%d sessions requested", n)
	}
	if cfg.Quirks.OneAtATime {
		n = 1
	}
	if info.MaxSessions == 0 {
		return n, nil
	}
	if info.MaxSessions < 3 {
		return 0, fmt.Errorf("it allows %d sessions, 3 are needed", info.MaxSessions)
	}
	most := info.MaxSessions - 2
	if cfg.Quirks.LibraryCalls {
		most = (info.MaxSessions - 1) / 2
	}
	return int(min(uint(n), most)), nil
}

// Close waits for the running operations, closes the sessions, and finalizes the module if
// this was its last link. Closing again does nothing.
func (e *Engine) Close() error {
	e.end(ErrClosed)
	select {
	case <-e.stuck: // the goroutine that waits for the module has the locks
		return ErrStuck
	default:
	}
	e.relinking.Lock()
	defer e.relinking.Unlock()
	defer e.creds.PIN.Clear()
	l := e.link.Swap(nil)
	if l == nil {
		return nil
	}
	if err := l.pool.drain(); err != nil {
		return err
	}
	_, err := answer(e.cfg.Timeout, nil, func() (none, error) {
		e.module.mu.Lock()
		defer e.module.mu.Unlock()
		defer e.exclusive()()
		e.module.disconnect(l)
		return none{}, nil
	})
	return err
}

// end records why nothing is done any more; the first reason stays. It reports whether
// there was none.
func (e *Engine) end(why error) bool { return e.over.CompareAndSwap(nil, &why) }

// Info describes the token as it was when the link was made.
func (e *Engine) Info() Info { return e.info.Load().Info }

// Sessions returns how many operations run at once.
func (e *Engine) Sessions() int { return e.cfg.Sessions }

// Usage is how an Engine is used at a moment. Package token documents the fields.
type Usage struct {
	Open    bool
	Limit   int
	InUse   int
	Idle    int
	Waiting int
	Over    bool
}

// Usage returns how the Engine is used at the moment. It makes no call and waits for none.
func (e *Engine) Usage() Usage {
	u := Usage{Over: e.over.Load() != nil}
	if l := e.link.Load(); l != nil {
		l.pool.usage(&u)
		u.Open = !u.Over && !l.pool.closed()
	}
	return u
}
