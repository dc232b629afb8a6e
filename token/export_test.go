package token

import (
	"context"
	"testing"
)

// Cryptoki lets tests stand between this package and a module.
type Cryptoki = cryptoki

// Intercept has every raw call to the module at path go through what wrap
// returns, until the test ends. crypto11's calls do not.
func Intercept(tb testing.TB, path string, wrap func(Cryptoki) Cryptoki) {
	tb.Helper()
	m, err := loadModule(path)
	if err != nil {
		tb.Fatalf("loadModule() err = %v, want nil", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	real := m.api
	m.api = wrap(real)
	tb.Cleanup(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.api = real
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
	return t.pool.with(ctx, func(s *session) error { return s.api.Logout(s.handle) })
}

// Hold takes one of the places for operations until release is called.
func (t *Token) Hold(ctx context.Context) (release func(), err error) {
	if err := t.pool.acquire(ctx); err != nil {
		return nil, err
	}
	return func() { <-t.pool.permits }, nil
}

// Idle returns how many sessions are kept.
func (t *Token) Idle() int {
	t.pool.mu.Lock()
	defer t.pool.mu.Unlock()
	return len(t.pool.idle)
}

// DestroyPublicHalf destroys the public key object alone.
func (k *SigningKey) DestroyPublicHalf(ctx context.Context) error {
	return k.token.pool.with(ctx, func(s *session) error { return s.destroy(k.verify) })
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
