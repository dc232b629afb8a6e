package operator

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// errCut is the error of a store that is cut off.
var errCut = fmt.Errorf("the store is cut off: %w", store.ErrAway)

// cut is a store that is cut off at one of its calls: that call and all later ones fail. With
// cancel it continues to work, and the context ends after that call, as by Ctrl-C.
type cut struct {
	store.Store
	left   atomic.Int64 // calls until then
	cancel func()
}

// call makes one call of the store.
func call[T any](s *cut, f func() (T, error)) (T, error) {
	left := s.left.Add(-1)
	if s.cancel == nil && left < 0 {
		var none T
		return none, errCut
	}
	v, err := f()
	if s.cancel != nil && left == 0 {
		s.cancel()
	}
	return v, err
}

// do is call for functions that return no value.
func (s *cut) do(f func() error) error {
	_, err := call(s, func() (struct{}, error) { return struct{}{}, f() })
	return err
}

// interrupted calls an act over and over, each time in a state that fresh has made, and interrupts
// it at its first call of the store, at its second, and so on, until it completes. It calls an
// interrupted act again. Then check examines the state.
func (f *fixture) interrupted(t *testing.T, fresh func(state string), act func(context.Context, *Operator, string) error, check func(state string)) {
	t.Helper()
	for _, cancels := range []bool{false, true} {
		through := false
		for k := int64(0); !through; k++ {
			state := fmt.Sprintf("cut-%d", k)
			if cancels {
				state = fmt.Sprintf("cancelled-%d", k)
			}
			fresh(state)
			ctx, cancel := context.WithCancel(t.Context())
			s := &cut{Store: f.store}
			s.left.Store(k)
			if cancels {
				s.cancel = cancel
				s.left.Store(k + 1)
			}
			err := act(ctx, f.over(t, s), state)
			cancel()
			switch through = s.left.Load() > 0; {
			case err == nil:
			case !errors.Is(err, errCut) && !errors.Is(err, context.Canceled):
				t.Errorf("%s: err = %v, want %v or %v", state, err, errCut, context.Canceled)
			default:
				if err := act(t.Context(), f.Operator, state); err != nil {
					t.Errorf("%s: once more: err = %v, want nil", state, err)
				}
			}
			if check(state); t.Failed() {
				t.FailNow()
			}
		}
	}
}

func (s *cut) AddIdentity(ctx context.Context, id store.Identity) error {
	return s.do(func() error { return s.Store.AddIdentity(ctx, id) })
}

func (s *cut) Identity(ctx context.Context, name string) (store.Identity, error) {
	return call(s, func() (store.Identity, error) { return s.Store.Identity(ctx, name) })
}

func (s *cut) Identities(ctx context.Context) ([]store.Identity, error) {
	return call(s, func() ([]store.Identity, error) { return s.Store.Identities(ctx) })
}

func (s *cut) Versions(ctx context.Context, name string) ([]store.Identity, error) {
	return call(s, func() ([]store.Identity, error) { return s.Store.Versions(ctx, name) })
}

func (s *cut) ChangeIdentity(ctx context.Context, id store.Identity, was []byte, at time.Time) error {
	return s.do(func() error { return s.Store.ChangeIdentity(ctx, id, was, at) })
}

func (s *cut) ProposeIdentity(ctx context.Context, id store.Identity) error {
	return s.do(func() error { return s.Store.ProposeIdentity(ctx, id) })
}

func (s *cut) SwitchIdentity(ctx context.Context, name string, version uint64, until, at time.Time) (store.Backlog, error) {
	return call(s, func() (store.Backlog, error) { return s.Store.SwitchIdentity(ctx, name, version, until, at) })
}

func (s *cut) RetireIdentity(ctx context.Context, name string, until, at time.Time) (store.Backlog, error) {
	return call(s, func() (store.Backlog, error) { return s.Store.RetireIdentity(ctx, name, until, at) })
}

func (s *cut) CondemnSignatureKey(ctx context.Context, name string, version uint64, force bool, i store.Intent) error {
	return s.do(func() error { return s.Store.CondemnSignatureKey(ctx, name, version, force, i) })
}

func (s *cut) WrappingKeys(ctx context.Context) ([]store.WrappingKey, error) {
	return call(s, func() ([]store.WrappingKey, error) { return s.Store.WrappingKeys(ctx) })
}

func (s *cut) CurrentWrappingKey(ctx context.Context, p store.Purpose) (store.WrappingKey, error) {
	return call(s, func() (store.WrappingKey, error) { return s.Store.CurrentWrappingKey(ctx, p) })
}

func (s *cut) Intend(ctx context.Context, i store.Intent) error {
	return s.do(func() error { return s.Store.Intend(ctx, i) })
}

func (s *cut) Intents(ctx context.Context) ([]store.Intent, error) {
	return call(s, func() ([]store.Intent, error) { return s.Store.Intents(ctx) })
}

func (s *cut) Settle(ctx context.Context, keyID []byte, at time.Time) error {
	return s.do(func() error { return s.Store.Settle(ctx, keyID, at) })
}

func (s *cut) AddKeyPackages(ctx context.Context, batch []store.KeyPackage) error {
	return s.do(func() error { return s.Store.AddKeyPackages(ctx, batch) })
}

func (s *cut) KeyPackage(ctx context.Context, ref []byte) (store.KeyPackage, error) {
	return call(s, func() (store.KeyPackage, error) { return s.Store.KeyPackage(ctx, ref) })
}

func (s *cut) KeyPackages(ctx context.Context, filter store.Filter) iter.Seq2[store.KeyPackage, error] {
	all, err := call(s, func() (iter.Seq2[store.KeyPackage, error], error) { return s.Store.KeyPackages(ctx, filter), nil })
	if err != nil {
		return func(yield func(store.KeyPackage, error) bool) { yield(store.KeyPackage{}, err) }
	}
	return all
}

func (s *cut) Move(ctx context.Context, refs [][]byte, from []store.State, to store.State, at time.Time) error {
	return s.do(func() error { return s.Store.Move(ctx, refs, from, to, at) })
}

func (s *cut) Sweep(ctx context.Context, now time.Time, grace time.Duration) (store.Swept, error) {
	return call(s, func() (store.Swept, error) { return s.Store.Sweep(ctx, now, grace) })
}

func (s *cut) Stock(ctx context.Context, name string) ([]store.Stock, error) {
	return call(s, func() ([]store.Stock, error) { return s.Store.Stock(ctx, name) })
}

func (s *cut) Count(ctx context.Context, name string) (map[store.State]uint64, error) {
	return call(s, func() (map[store.State]uint64, error) { return s.Store.Count(ctx, name) })
}

func (s *cut) HandOver(ctx context.Context, refs [][]byte, digest []byte, at time.Time) error {
	return s.do(func() error { return s.Store.HandOver(ctx, refs, digest, at) })
}

func (s *cut) ConfirmHandover(ctx context.Context, refs [][]byte, at time.Time) (uint64, error) {
	return call(s, func() (uint64, error) { return s.Store.ConfirmHandover(ctx, refs, at) })
}

func (s *cut) Backlogs(ctx context.Context) ([]store.Backlog, error) {
	return call(s, func() ([]store.Backlog, error) { return s.Store.Backlogs(ctx) })
}

func (s *cut) Left(ctx context.Context, id uint64) (uint64, error) {
	return call(s, func() (uint64, error) { return s.Store.Left(ctx, id) })
}

func (s *cut) WorkOff(ctx context.Context, id uint64, n int, at time.Time) (store.Backlog, error) {
	return call(s, func() (store.Backlog, error) { return s.Store.WorkOff(ctx, id, n, at) })
}

func (s *cut) Record(ctx context.Context, entries ...audit.Entry) error {
	return s.do(func() error { return s.Store.Record(ctx, entries...) })
}
