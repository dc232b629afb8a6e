package token

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ThalesGroup/crypto11"
)

// DefaultSessions is how many operations run at once where Config does not say.
const DefaultSessions = 8

// Config says which token to open and how. Label, Serial, Slot, Manufacturer
// and Model narrow the choice; those left empty fit any token, and exactly one
// initialised token must fit them all.
type Config struct {
	Module       string // path of the PKCS#11 library
	Label        string // CK_TOKEN_INFO label, without padding
	Serial       string // CK_TOKEN_INFO serialNumber, without padding
	Slot         *uint  // slot ID; may change between runs, so label or serial are better
	Manufacturer string // CK_TOKEN_INFO manufacturerID, without padding
	Model        string // CK_TOKEN_INFO model, without padding

	// PIN is read once by Open, after the token is found, and may be nil for a
	// token that needs no login.
	PIN PINSource

	// Refusals remember refused PINs across processes; nil: within this one only.
	Refusals Refusals
	// ForceLogin sends the PIN also where the token says that a wrong one was sent since
	// the last right one, or that one more locks it.
	ForceLogin bool

	// Sessions is how many operations may run at once; 0 is DefaultSessions. The
	// token sees up to twice as many sessions and one more. It is lowered to what
	// the token allows.
	Sessions int
}

// Token is an open token with the user logged in. Its methods may be called by
// several goroutines at once, and return ErrClosed once Close was called.
type Token struct {
	module *module
	info   Info
	pool   *pool
	ec     *crypto11.Context // ECDSA only
	close  func()
}

// Open finds the token, reads the PIN and logs in. The PIN is tried once: after
// a refusal (ErrPIN) the same PIN is not sent to that token again by this
// process, nor by any other that shares cfg.Refusals, because tokens lock. A token
// that says that a wrong PIN was sent to it is ErrPINAtRisk, unless cfg.ForceLogin is
// set. Another Token on the same token shares its login; its PIN must be the same.
//
// Errors: ErrModule, ErrNoToken, ErrAmbiguousToken, ErrUninitialized,
// ErrPINSource, ErrPIN, ErrPINAtRisk, *Error.
func Open(ctx context.Context, cfg Config) (*Token, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m, err := loadModule(cfg.Module)
	if err != nil {
		return nil, err
	}
	info, err := m.choose(cfg)
	if err != nil {
		return nil, err
	}
	sessions, err := cfg.sessions(info)
	if err != nil {
		return nil, fmt.Errorf("open token %q: %w", info.Label, err)
	}
	pin, err := readPIN(ctx, cfg.PIN, info)
	if err != nil {
		return nil, fmt.Errorf("log in to token %q: %w", info.Label, err)
	}
	defer pin.Clear()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return m.open(info, sessions, credentials{pin, cfg.Refusals, cfg.ForceLogin})
}

// sessions is how many operations may run at once on the token. crypto11 opens
// a session for each and one that stays, the raw side one for each.
func (cfg Config) sessions(info Info) (int, error) {
	n := cfg.Sessions
	if n == 0 {
		n = DefaultSessions
	}
	if n < 0 {
		return 0, fmt.Errorf("%d sessions asked for", n)
	}
	if info.MaxSessions == 0 {
		return n, nil
	}
	if info.MaxSessions < 3 {
		return 0, fmt.Errorf("it allows %d sessions, 3 are needed", info.MaxSessions)
	}
	return int(min(uint(n), (info.MaxSessions-1)/2)), nil
}

// open initialises the module where this is its first Token, and logs in.
// crypto11 is first, because it fails on an initialised module, and last.
func (m *module) open(chosen Info, sessions int, c credentials) (*Token, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ec, err := crypto11.Configure(m.crypto11Config(chosen, sessions))
	if err != nil {
		return nil, fmt.Errorf("open token %q: %w", chosen.Label, callError("C_Initialize", err))
	}
	t, err := m.logIn(ec, chosen, sessions, c)
	if err != nil {
		return nil, errors.Join(err, ec.Close())
	}
	m.users++
	return t, nil
}

func (m *module) logIn(ec *crypto11.Context, chosen Info, sessions int, c credentials) (*Token, error) {
	info, err := m.locate(chosen)
	if err != nil {
		return nil, fmt.Errorf("open token %q: %w", chosen.Label, err)
	}
	user := c.pin.Len() > 0 // it is cleared before the next session opens
	open := func() (*session, error) { return openSession(m.api, info.Slot, user) }
	first, err := open()
	if err != nil {
		return nil, fmt.Errorf("open token %q: %w", info.Label, err)
	}
	if err := m.login(first, info, c); err != nil {
		return nil, errors.Join(fmt.Errorf("log in to token %q: %w", info.Label, err), first.close())
	}
	t := &Token{module: m, info: info, ec: ec, pool: newPool(sessions, open)}
	t.pool.idle = append(t.pool.idle, first)
	t.close = sync.OnceFunc(t.shut)
	return t, nil
}

// Close waits for the operations that run, closes the sessions, and finalises
// the module where this was its last Token. SoftHSM has to be finalised before
// the process exits. Closing again does nothing. It returns nil today.
func (t *Token) Close() error {
	t.close()
	return nil
}

func (t *Token) shut() {
	t.pool.close()
	t.module.mu.Lock()
	defer t.module.mu.Unlock()
	_ = t.ec.Close() // it always returns nil
	t.module.logout(t.info.Slot)
	t.module.users--
}

// Info describes the token as it was when it was opened.
func (t *Token) Info() Info { return t.info }

// Sessions returns how many operations run at once.
func (t *Token) Sessions() int { return t.pool.size() }

// Random fills b from the token's random number generator (C_GenerateRandom).
func (t *Token) Random(ctx context.Context, b []byte) error {
	err := t.pool.with(ctx, func(s *session) error { return s.random(b) })
	if err != nil {
		return fmt.Errorf("generate random bytes: %w", err)
	}
	return nil
}

func (s *session) random(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	r, err := s.api.GenerateRandom(s.handle, len(b))
	if err != nil {
		return callError("C_GenerateRandom", err)
	}
	copy(b, r)
	clear(r)
	return nil
}
