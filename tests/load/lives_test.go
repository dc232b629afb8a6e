package load

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
)

// reasonOf returns a service's reason for an error. It has none if the connection was lost or the
// service is gone.
func reasonOf(err error) (hsmkpv1.Reason, bool) {
	e, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return 0, false
	}
	for _, d := range e.Details() {
		v, err := d.Value()
		if detail, isOurs := v.(*hsmkpv1.ErrorDetail); err == nil && isOurs {
			return detail.GetReason(), true
		}
	}
	return 0, false
}

// claimOne claims a key package of an identity, and records the answer.
func (c *client) claimOne(service int, identity string) (*hsmkpv1.KeyPackage, error) {
	r, err := c.apis[service].Claim(context.Background(), connect.NewRequest(&hsmkpv1.ClaimRequest{Identity: identity}))
	if err != nil {
		return nil, err
	}
	k := r.Msg.GetKeyPackages()[0]
	c.refs = append(c.refs, ref(k.GetRef()))
	return k, nil
}

// crowd is a group of clients at work.
type crowd struct {
	wg   sync.WaitGroup
	over chan struct{}
	end  func()
}

// newCrowd returns a crowd that works until leave is called or the test ends.
func newCrowd(t testing.TB) *crowd {
	over := make(chan struct{})
	c := &crowd{over: over, end: sync.OnceFunc(func() { close(over) })}
	t.Cleanup(c.leave)
	return c
}

// do repeats something, with a pause in between.
func (c *crowd) do(pause time.Duration, f func()) {
	c.wg.Go(func() {
		for {
			select {
			case <-c.over:
				return
			case <-time.After(pause):
				f()
			}
		}
	})
}

// leave stops the work and waits until all goroutines have ended.
func (c *crowd) leave() {
	c.end()
	c.wg.Wait()
}
