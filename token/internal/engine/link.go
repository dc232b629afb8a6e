package engine

import (
	"errors"
	"fmt"

	"github.com/ThalesGroup/crypto11"
)

// link is what an Engine holds of its token at a time: a login, sessions, and the context of
// crypto11. A recovery makes another one beside it, or in its place.
type link struct {
	engine *Engine
	info   slotInfo
	user   bool // the user logs in
	pool   *pool
	ec     *crypto11.Context // nil if crypto11 is not used
	// keeper is a session that nothing uses: a login ends with the last session. crypto11 keeps
	// such a session itself; then this is nil.
	keeper *Session
}

// errLinkGone reports an operation that waited for a session of a link that was replaced
// meanwhile.
var errLinkGone = errors.New("the session was given up")

// current returns the link, and makes one if there is none.
func (e *Engine) current() (*link, error) {
	if why := e.over.Load(); why != nil {
		return nil, *why
	}
	if l := e.link.Load(); l != nil {
		return l, nil
	}
	e.relinking.Lock()
	defer e.relinking.Unlock()
	if why := e.over.Load(); why != nil { // it was closed meanwhile
		return nil, *why
	}
	if l := e.link.Load(); l != nil { // another goroutine was faster
		return l, nil
	}
	return e.connect()
}

// connect makes a link and puts it in use. The caller holds e.relinking, or no other goroutine
// knows e.
func (e *Engine) connect() (*link, error) {
	l, err := answer(e.cfg.Timeout, nil, func() (*link, error) {
		e.module.mu.Lock()
		defer e.module.mu.Unlock()
		defer e.exclusive()()
		return e.module.connect(e)
	})
	if errors.Is(err, ErrStuck) {
		e.endStuck(err)
		return nil, fmt.Errorf("open token %q: %w", e.Info().Label, err)
	}
	if err != nil {
		return nil, err
	}
	e.info.Store(&l.info)
	e.link.Store(l)
	return l, nil
}

// connect initializes the module if this is its first link, and logs in. The caller holds m.mu.
func (m *module) connect(e *Engine) (*link, error) {
	chosen := *e.info.Load()
	ec, err := m.initialize(e, chosen)
	if err != nil {
		return nil, fmt.Errorf("open token %q: %w", chosen.Label, err)
	}
	l := &link{engine: e, ec: ec, user: len(e.creds.PIN.Reveal()) > 0}
	m.links[l] = struct{}{}
	if err := m.logIn(l, chosen); err != nil {
		m.release(l)
		return nil, err
	}
	return l, nil
}

// initialize opens a context of crypto11, which initializes the module if it is not yet
// initialized. crypto11 comes first, because it fails on an initialized module, and goes last. A
// module that needs arguments, or that gives crypto11 a state of its own, is initialized here,
// without crypto11.
func (m *module) initialize(e *Engine, chosen slotInfo) (*crypto11.Context, error) {
	if err := m.setArgs(e.cfg.Quirks.InitArgs); err != nil {
		return nil, err
	}
	if m.initArgs != "" || m.several {
		if len(m.links) > 0 {
			return nil, nil
		}
		return nil, m.begin()
	}
	ec, err := m.configure(chosen, e.cfg)
	if FailedWith(err, CKR_CRYPTOKI_ALREADY_INITIALIZED) && len(m.links) == 0 {
		// While a device is gone, its module may fail to finalize.
		_ = m.finalize()
		ec, err = m.configure(chosen, e.cfg)
	}
	m.letGo() // its session may be one too many
	return ec, err
}

func (m *module) configure(chosen slotInfo, cfg Config) (*crypto11.Context, error) {
	ec, err := crypto11.Configure(m.crypto11Config(chosen, cfg))
	err = callError("C_Initialize", err)
	if _, call := errors.AsType[*Error](err); err != nil && !call {
		err = fmt.Errorf("%w: %w", errTokenChanged, err) // crypto11 looked for it
	}
	return ec, err
}

func (m *module) logIn(l *link, chosen slotInfo) error {
	info, err := m.locate(chosen)
	if err != nil {
		return fmt.Errorf("open token %q: %w", chosen.Label, err)
	}
	l.info = info
	e := l.engine
	l.pool = newPool(e.cfg.Sessions, e.epochs.Add(1), e.stuck, l.openSession)
	if l.ec == nil {
		if l.keeper, err = l.openSession(); err != nil {
			return fmt.Errorf("open token %q: %w", info.Label, err)
		}
	}
	first, err := l.pool.take()
	if err != nil {
		return fmt.Errorf("open token %q: %w", info.Label, err)
	}
	if err := m.login(first, info, e.creds); err != nil {
		return errors.Join(fmt.Errorf("log in to token %q: %w", info.Label, err), first.Close())
	}
	l.pool.put(first, true)
	return nil
}

func (l *link) openSession() (*Session, error) {
	e, m := l.engine, l.engine.module
	api, one := m.api, m.one
	if e.cfg.Quirks.LibraryCalls {
		one = nil
	}
	if tell := e.cfg.Watch; tell != nil {
		api = watched{api, tell}
		if one != nil {
			one = watchedOne{one, tell}
		}
	}
	s, err := openSession(api, l.info.Slot, l.user)
	if err != nil {
		return nil, err
	}
	s.link, s.one = l, one
	return s, nil
}

// disconnect closes the sessions of a link on which nothing runs, and finalizes the module if it
// was the last link. It does nothing to a link that a restart has taken away. The caller holds
// m.mu.
func (m *module) disconnect(l *link) {
	if _, there := m.links[l]; !there {
		return
	}
	l.pool.discard()
	m.logout(l.info.Slot)
	m.release(l)
}

// release gives back what connect took of the module. Failures are ignored: a module that cannot
// be finalized is gone.
func (m *module) release(l *link) {
	delete(m.links, l)
	if l.keeper != nil {
		_ = l.keeper.Close()
	}
	if l.ec != nil {
		_ = l.ec.Close() // it always returns nil, even if it cannot finalize the module
	}
	if len(m.links) == 0 {
		_ = m.finalize()
	}
}
