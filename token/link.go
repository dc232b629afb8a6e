package token

import (
	"errors"
	"fmt"

	"github.com/ThalesGroup/crypto11"
)

// link is what a Token has of its token at a time: a login, sessions, and the context of
// crypto11. A recovery makes another one beside it, or in its place.
type link struct {
	token *Token
	info  Info
	user  bool // the user logs in
	pool  *pool
	ec    *crypto11.Context // nil where crypto11 is not used
	// keeper is a session that nothing uses: a login ends with the last session. crypto11
	// has one of its own, and then this is nil.
	keeper *session
}

// errLinkGone reports an operation that waited for a session of a link that another one
// has replaced.
var errLinkGone = errors.New("the session was given up")

// current returns the link, and makes one where there is none.
func (t *Token) current() (*link, error) {
	if why := t.over.Load(); why != nil {
		return nil, *why
	}
	if l := t.link.Load(); l != nil {
		return l, nil
	}
	t.relinking.Lock()
	defer t.relinking.Unlock()
	if why := t.over.Load(); why != nil { // it was closed meanwhile
		return nil, *why
	}
	if l := t.link.Load(); l != nil { // another one was faster
		return l, nil
	}
	return t.connect()
}

// connect makes a link and has the Token use it. The caller holds t.relinking, or is the
// only one to know t.
func (t *Token) connect() (*link, error) {
	l, err := answer(t.cfg.Timeout, nil, func() (*link, error) {
		t.module.mu.Lock()
		defer t.module.mu.Unlock()
		defer t.exclusive()()
		return t.module.connect(t)
	})
	if errors.Is(err, ErrStuck) {
		t.endStuck(err)
		return nil, fmt.Errorf("open token %q: %w", t.Info().Label, err)
	}
	if err != nil {
		return nil, err
	}
	t.info.Store(&l.info)
	t.link.Store(l)
	return l, nil
}

// connect initialises the module where this is its first link, and logs in. The caller
// holds m.mu.
func (m *module) connect(t *Token) (*link, error) {
	chosen := t.Info()
	ec, err := m.initialize(t, chosen)
	if err != nil {
		return nil, fmt.Errorf("open token %q: %w", chosen.Label, err)
	}
	l := &link{token: t, ec: ec, user: len(t.creds.pin.Reveal()) > 0}
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
func (m *module) initialize(t *Token, chosen Info) (*crypto11.Context, error) {
	if err := m.setArgs(t.cfg.Quirks.InitArgs); err != nil {
		return nil, err
	}
	if m.initArgs != "" || m.several {
		if len(m.links) > 0 {
			return nil, nil
		}
		return nil, m.begin()
	}
	ec, err := m.configure(chosen, t.cfg)
	if failedWith(err, CKR_CRYPTOKI_ALREADY_INITIALIZED) && len(m.links) == 0 {
		// A device that is away may not let its module be finalised.
		_ = m.finalize()
		ec, err = m.configure(chosen, t.cfg)
	}
	m.letGo() // its session may be one too many
	return ec, err
}

func (m *module) configure(chosen Info, cfg Config) (*crypto11.Context, error) {
	ec, err := crypto11.Configure(m.crypto11Config(chosen, cfg))
	err = callError("C_Initialize", err)
	if _, call := errors.AsType[*Error](err); err != nil && !call {
		err = fmt.Errorf("%w: %w", errTokenChanged, err) // crypto11 looked for it
	}
	return ec, err
}

func (m *module) logIn(l *link, chosen Info) error {
	info, err := m.locate(chosen)
	if err != nil {
		return fmt.Errorf("open token %q: %w", chosen.Label, err)
	}
	l.info = info
	t := l.token
	l.pool = newPool(t.cfg.Sessions, t.epochs.Add(1), t.stuck, l.openSession)
	if l.ec == nil {
		if l.keeper, err = l.openSession(); err != nil {
			return fmt.Errorf("open token %q: %w", info.Label, err)
		}
	}
	first, err := l.pool.take()
	if err != nil {
		return fmt.Errorf("open token %q: %w", info.Label, err)
	}
	if err := m.login(first, info, t.creds); err != nil {
		return errors.Join(fmt.Errorf("log in to token %q: %w", info.Label, err), first.close())
	}
	l.pool.put(first, true)
	return nil
}

func (l *link) openSession() (*session, error) {
	t, m := l.token, l.token.module
	api, one := m.api, m.one
	if t.cfg.Quirks.LibraryCalls {
		one = nil
	}
	if tell := t.cfg.Watch; tell != nil {
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
		_ = l.keeper.close()
	}
	if l.ec != nil {
		_ = l.ec.Close() // it always returns nil, also where it does not get to finalise the module
	}
	if len(m.links) == 0 {
		_ = m.finalize()
	}
}
