package token

import (
	"context"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// session is a session of the engine, with what this package does in one.
type session struct{ *engine.Session }

// do runs f with a session of its own and tries it again after a recovery: see engine.Do.
func do[T any](ctx context.Context, t *Token, f func(session) (T, error)) (T, error) {
	return engine.Do(ctx, t.engine, func(s *engine.Session) (T, error) { return f(session{s}) })
}

// none is what an operation returns that returns nothing.
type none = struct{}

// run is do for what returns nothing.
func run(ctx context.Context, t *Token, f func(session) error) error {
	_, err := do(ctx, t, func(s session) (none, error) { return none{}, f(s) })
	return err
}

// attr is short for an attribute of a template.
func attr(t uint, value any) *pkcs11.Attribute { return pkcs11.NewAttribute(t, value) }

// another opens a session beside s, for the same operation. The caller closes it.
func (s session) another() (session, error) {
	own, err := s.Another()
	return session{own}, err
}
