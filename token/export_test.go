package token

import (
	"context"
	"testing"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// Cryptoki lets tests stand between this package and a module.
type Cryptoki = engine.Cryptoki

// Intercept is engine.Intercept until the test ends.
func Intercept(tb testing.TB, path string, wrap func(Cryptoki) Cryptoki) {
	tb.Helper()
	restore, err := engine.Intercept(path, wrap)
	if err != nil {
		tb.Fatalf("Intercept() err = %v, want nil", err)
	}
	tb.Cleanup(restore)
}

// Raw returns the module's calls.
func Raw(tb testing.TB, path string) Cryptoki {
	tb.Helper()
	api, err := engine.Raw(path)
	if err != nil {
		tb.Fatalf("Raw() err = %v, want nil", err)
	}
	return api
}

// Logout ends the login behind the Token's back, as a device may.
func (t *Token) Logout(ctx context.Context) error {
	api, err := engine.Raw(t.Info().Module)
	if err != nil {
		return err
	}
	return run(ctx, t, func(s session) error { return api.Logout(s.Handle()) })
}

// Hold takes one of the permits for operations until release is called.
func (t *Token) Hold(ctx context.Context) (release func(), err error) {
	held, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- run(context.WithoutCancel(ctx), t, func(session) error { close(held); <-end; return nil })
	}()
	select {
	case <-held:
		return func() { close(end) }, nil
	case err := <-done:
		return nil, err
	}
}

// Idle returns how many sessions are kept.
func (t *Token) Idle() int { return t.Usage().Idle }

// DestroyPublicHalf destroys only the public key object.
func (k *SigningKey) DestroyPublicHalf(ctx context.Context) error {
	return run(ctx, k.token, func(s session) error {
		h, err := k.in(s)
		if err != nil {
			return err
		}
		return s.Destroy(h.Verify)
	})
}

// ForgetRefusals makes this process forget the PINs that were refused, as a new one has.
func ForgetRefusals(tb testing.TB, path string) {
	tb.Helper()
	if err := engine.ForgetRefusals(path); err != nil {
		tb.Fatalf("ForgetRefusals() err = %v, want nil", err)
	}
}

// Verifies verifies a signature: of a digest for ECDSA, a message for EdDSA.
var Verifies = verifies

// Curves are all curves.
var Curves = allCurves

// DefaultSessions is what Config.Sessions stands for if it is zero.
const DefaultSessions = defaultSessions
