package token

import (
	"context"
	"sync"

	"github.com/miekg/pkcs11"
)

// cryptoki lists the calls of the module that are in use here. *pkcs11.Ctx is
// the real one; tests count and break calls through it.
type cryptoki interface {
	Initialize(...pkcs11.InitializeOption) error
	Finalize() error
	GetInfo() (pkcs11.Info, error)
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	GetMechanismInfo(slot uint, m []*pkcs11.Mechanism) (pkcs11.MechanismInfo, error)
	InitToken(slot uint, pin, label string) error
	InitPIN(s pkcs11.SessionHandle, pin string) error
	OpenSession(slot uint, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(s pkcs11.SessionHandle) error
	GetSessionInfo(s pkcs11.SessionHandle) (pkcs11.SessionInfo, error)
	Login(s pkcs11.SessionHandle, user uint, pin string) error
	Logout(s pkcs11.SessionHandle) error
	DestroyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error
	GetAttributeValue(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, a []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	FindObjectsInit(s pkcs11.SessionHandle, template []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, max int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(s pkcs11.SessionHandle) error
	EncryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) error
	Encrypt(s pkcs11.SessionHandle, message []byte) ([]byte, error)
	DecryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) error
	Decrypt(s pkcs11.SessionHandle, ciphertext []byte) ([]byte, error)
	SignInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) error
	Sign(s pkcs11.SessionHandle, message []byte) ([]byte, error)
	GenerateKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error)
	WrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error)
	UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	DeriveKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, base pkcs11.ObjectHandle, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	GenerateRandom(s pkcs11.SessionHandle, length int) ([]byte, error)
}

var _ cryptoki = (*pkcs11.Ctx)(nil)

// session is one open session. It must not be used by two goroutines at once:
// modules keep the state of an operation in it, and SoftHSM crashes.
type session struct {
	api    cryptoki
	handle pkcs11.SessionHandle
	user   bool // the user is expected to be logged in
}

// openSession opens a session for reading and writing: some tokens know no other.
func openSession(api cryptoki, slot uint, user bool) (*session, error) {
	h, err := api.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return nil, callError("C_OpenSession", err)
	}
	return &session{api: api, handle: h, user: user}, nil
}

func (s *session) close() error {
	return callError("C_CloseSession", s.api.CloseSession(s.handle))
}

// requireLogin fails with CKR_USER_NOT_LOGGED_IN where the user's login has gone.
func (s *session) requireLogin() error {
	if !s.user {
		return nil // the token needs no login
	}
	info, err := s.api.GetSessionInfo(s.handle)
	if err != nil {
		return callError("C_GetSessionInfo", err)
	}
	if info.State != pkcs11.CKS_RW_USER_FUNCTIONS && info.State != pkcs11.CKS_RO_USER_FUNCTIONS {
		return &Error{Func: "C_GetSessionInfo", RV: CKR_USER_NOT_LOGGED_IN}
	}
	return nil
}

// pool bounds how many operations run at once and keeps the sessions they used.
type pool struct {
	open    func() (*session, error)
	permits chan struct{} // one element an operation that runs
	closing chan struct{}
	close   func() // waits for the operations, closes the sessions; once

	mu   sync.Mutex
	idle []*session
}

func newPool(size int, open func() (*session, error)) *pool {
	p := &pool{
		open:    open,
		permits: make(chan struct{}, size),
		closing: make(chan struct{}),
	}
	p.close = sync.OnceFunc(p.drain)
	return p
}

func (p *pool) size() int { return cap(p.permits) }

// with runs f with a session of its own. The session is kept for the next one
// when f returns nil, and closed otherwise, also when f panics. It waits for a
// free place until ctx is done or the pool closes.
func (p *pool) with(ctx context.Context, f func(*session) error) error {
	return p.hold(ctx, func() error {
		s, err := p.take()
		if err != nil {
			return err
		}
		sound := false
		defer func() { p.put(s, sound) }()
		if err := f(s); err != nil {
			return err
		}
		sound = true
		return nil
	})
}

// hold runs f as one of the operations that may run at once, without a session
// of the pool: crypto11 has its own.
func (p *pool) hold(ctx context.Context, f func() error) error {
	if err := p.acquire(ctx); err != nil {
		return err
	}
	defer func() { <-p.permits }()
	return f()
}

func (p *pool) acquire(ctx context.Context) error {
	select {
	case <-p.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	default:
	}
	select {
	case p.permits <- struct{}{}:
		return nil
	case <-p.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pool) take() (*session, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		s := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return s, nil
	}
	p.mu.Unlock()
	return p.open()
}

func (p *pool) put(s *session, sound bool) {
	if !sound {
		_ = s.close() // it is discarded because something failed: that error is the one to tell
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, s)
}

// drain turns new operations away, waits for those that run by taking every
// permit for good, and closes the sessions.
func (p *pool) drain() {
	close(p.closing)
	for range cap(p.permits) {
		p.permits <- struct{}{}
	}
	for _, s := range p.idle {
		_ = s.close() // the module is about to be finalised, which closes it too
	}
	p.idle = nil
}
