package operator

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"
)

// The duration of a lease, and how often it is extended.
const (
	leaseTime  = time.Minute
	leaseAgain = 15 * time.Second
)

// lease takes the lease on a name, and extends it until it is given back. If that fails for so
// long that another run may have it, the context ends. The error is store.ErrHeld if another run
// has it.
func (o *Operator) lease(ctx context.Context, name string) (context.Context, func(), error) {
	holder := rand.Text()
	take := func() error {
		now := o.now()
		return o.store.Lease(ctx, name, holder, now.Add(leaseTime), now)
	}
	if err := take(); err != nil {
		return nil, nil, err
	}
	holding, stop := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		again := time.NewTicker(leaseAgain)
		defer again.Stop()
		for last := time.Now(); ; {
			select {
			case <-holding.Done():
				return
			case <-again.C:
			}
			switch err := take(); {
			case err == nil:
				last = time.Now()
			case time.Since(last) > leaseTime/2:
				stop(fmt.Errorf("prolong the lease to %s: %w", name, err))
			}
		}
	}()
	giveBack := func() {
		stop(nil)
		<-ended
		if err := o.store.Unlease(context.WithoutCancel(ctx), name, holder); err != nil {
			o.warnf("give back the lease to %s: %w", name, err)
		}
	}
	return holding, giveBack, nil
}
