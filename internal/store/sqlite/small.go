package sqlite

import (
	"context"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

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
	return s.write(ctx, func(_ context.Context, tx *transaction) error {
		for _, one := range group {
			tx.actor = store.Actor(one.Context)
			if err := one.Act(context.WithoutCancel(one.Context), tx); err != nil {
				return err
			}
		}
		return nil
	})
}
