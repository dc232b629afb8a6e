package engine

import (
	"errors"
	"fmt"

	"github.com/ThalesGroup/crypto11"
)

// link is what a Token has of its token at a time: a login, sessions, and the context of
// crypto11. A recovery makes another one beside it, or in its place.
type link struct {
	engine *Engine
	info   slotInfo
	user   bool // the user logs in
	pool   *pool
	ec     *crypto11.Context // nil if crypto11 is not used
	// keeper is a session that nothing uses: a login ends with the last session. crypto11
	// has one of its own, and then this is nil.
	keeper *Session
}

// errLinkGone reports an operation that waited for a session of a link that another one
// has replaced.
var errLinkGone = errors.New("the session was given up")

// current returns the link, and makes one where there is none.
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
	if l := e.link.Load(); l != nil { // another one was faster
		return l, nil
	}
	return e.connect()
}

// connect makes a link and has the Token use it. The caller holds e.relinking, or is the
// only one to know t.
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

// connect initialises the module where this is its first link, and logs in. The caller
// holds m.mu.
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

// initialize opens a context of crypto11, which initialises the module where it is not
// yet. crypto11 is first, because it fails on an initialised module, and last. A module
// that needs arguments, or is another one for crypto11, is initialised here, without it.
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
		// A device that is away may not let its module be finalised.
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

// disconnect closes the sessions of a link on which nothing runs, and finalises the module
// where it was the last one. A link that a restart took is no more. The caller holds m.mu.
func (m *module) disconnect(l *link) {
	if _, there := m.links[l]; !there {
		return
	}
	l.pool.discard()
	m.logout(l.info.Slot)
	m.release(l)
}

// release gives up what connect took of the module. What fails is not told: a module that
// cannot be finalised is one that is gone.
func (m *module) release(l *link) {
	delete(m.links, l)
	if l.keeper != nil {
		_ = l.keeper.Close()
	}
	if l.ec != nil {
		_ = l.ec.Close() // it always returns nil, also where it does not get to finalise the module
	}
	if len(m.links) == 0 {
		_ = m.finalize()
	}
}
