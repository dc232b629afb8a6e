package postgres

import (
	"context"

	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/store/group"
)

// The trail is a chain, so that transactions end one after the other, each with a write to the
// disk (see claims). A device is provisioned with three of them, of a row or two each: an intent,
// an identity, its key packages. Those of several devices share transactions.

// act is one of those that share a transaction, beside those on key packages.
type act func(context.Context, *transaction) error

// together is how many acts share a transaction at most.
const together = 64

// share runs f in a transaction that others may have part in.
func (s *Store) share(ctx context.Context, f act) error { return s.small.Do(ctx, f) }

// writeAll does acts in one transaction, each in the name of its own actor.
func (s *Store) writeAll(ctx context.Context, acts []group.Act[act]) error {
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		for _, a := range acts {
			tx.actor = store.Actor(a.Context)
			if err := a.What(valued{ctx, a.Context}, tx); err != nil {
				return err
			}
		}
		return nil
	})
}

// valued is a context with the values of another one.
type valued struct {
	context.Context
	values context.Context
}

// Value implements context.Context.
func (v valued) Value(key any) any { return v.values.Value(key) }
