package token

import (
	"context"
	"testing"
)

// Cryptoki lets tests stand between this package and a module.
type Cryptoki = cryptoki

// Intercept has every call of miekg/pkcs11 to the module at path go through what wrap
// returns, until the test ends, and none be made in one with others. crypto11's calls
// do not.
func Intercept(tb testing.TB, path string, wrap func(Cryptoki) Cryptoki) {
	tb.Helper()
	m, err := loadModule(path)
	if err != nil {
		tb.Fatalf("loadModule() err = %v, want nil", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	real, one := m.api, m.one
	m.api, m.one = wrap(real), nil
	tb.Cleanup(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.api, m.one = real, one
	})
}

// Raw returns the module's calls.
func Raw(tb testing.TB, path string) Cryptoki {
	tb.Helper()
	m, err := loadModule(path)
	if err != nil {
		tb.Fatalf("loadModule() err = %v, want nil", err)
	}
	return m.api
}

// Logout ends the login behind the Token's back, as a device may.
func (t *Token) Logout(ctx context.Context) error {
	return run(ctx, t, func(s *session) error { return s.api.Logout(s.handle) })
}

// Hold takes one of the places for operations until release is called.
func (t *Token) Hold(ctx context.Context) (release func(), err error) {
	p := t.link.Load().pool
	if err := p.acquire(ctx); err != nil {
		return nil, err
	}
	return p.release, nil
}

// Idle returns how many sessions are kept.
func (t *Token) Idle() int {
	p := t.link.Load().pool
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}

// DestroyPublicHalf destroys the public key object alone.
func (k *SigningKey) DestroyPublicHalf(ctx context.Context) error {
	return run(ctx, k.token, func(s *session) error {
		h, err := k.in(s)
		if err != nil {
			return err
		}
		return s.destroy(h.verify)
	})
}

// ForgetRefusals makes this process forget the PINs that were refused, as a new one has.
func ForgetRefusals(tb testing.TB, path string) {
	tb.Helper()
	m, err := loadModule(path)
	if err != nil {
		tb.Fatalf("loadModule() err = %v, want nil", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.refused)
}

// Verifies verifies a signature: of a digest for ECDSA, a message for EdDSA.
var Verifies = verifies

// Curves are all curves.
var Curves = allCurves

// DefaultSessions is what Config.Sessions stands for if it is zero.
const DefaultSessions = defaultSessions
