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

// reasonOf is the reason that a service gave for an error. Where it gave none, the connection
// was lost, or the service is gone.
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

// claimOne claims a key package of an identity, and notes what it was told.
func (c *client) claimOne(service int, identity string) (*hsmkpv1.KeyPackage, error) {
	r, err := c.apis[service].Claim(context.Background(), connect.NewRequest(&hsmkpv1.ClaimRequest{Identity: identity}))
	if err != nil {
		return nil, err
	}
	k := r.Msg.GetKeyPackages()[0]
	c.refs = append(c.refs, ref(k.GetRef()))
	return k, nil
}

// crowd is clients at work until it is over.
type crowd struct {
	wg   sync.WaitGroup
	over chan struct{}
	end  func()
}

// newCrowd is at work until end is called, or the test ends.
func newCrowd(t testing.TB) *crowd {
	over := make(chan struct{})
	c := &crowd{over: over, end: sync.OnceFunc(func() { close(over) })}
	t.Cleanup(c.leave)
	return c
}

// do does something again and again, with a pause in between.
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

// leave ends it, and waits until everybody has ended.
func (c *crowd) leave() {
	c.end()
	c.wg.Wait()
}
