package postgres

import (
	"context"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// To provision a device takes three acts of a row or two each: an intent, an identity, its key
// packages. The acts for several devices share transactions, as claims do.

// smallAct is an act that may share a transaction with others.
type smallAct func(context.Context, *transaction) error

// share runs f in a transaction that it may share with others that wait for one.
func (s *Store) share(ctx context.Context, f smallAct) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.small.Do(ctx, f)
}

// smallActs runs acts in one transaction, each in the name of its own actor.
func (s *Store) smallActs(ctx context.Context, group []*record.Waiting[smallAct]) error {
	return s.writeOnce(ctx, concurrent, func(ctx context.Context, tx *transaction) error {
		for _, one := range group {
			tx.actor = store.Actor(one.Context)
			if err := one.Act(valued{ctx, one.Context}, tx); err != nil {
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
