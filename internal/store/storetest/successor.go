package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Keys that take the places of others.

// succession is the intent to make a key that takes the place of another.
func succession(id string, o store.Object, instead string) store.Intent {
	i := making([]byte(id), o)
	i.Succeeds, i.Instead = true, []byte(instead)
	return i
}

func oneKeySucceedsAnother(t *testing.T, f *fixture) {
	ctx := t.Context()
	wrap := func(id string) store.WrappingKey {
		k := wrappingKey(id)
		k.Purpose = store.Wrap
		return k
	}
	for _, c := range []struct {
		object store.Object
		add    func(id string) error
	}{
		{store.ObjectSealingKey, func(id string) error { return f.AddWrappingKey(ctx, wrappingKey("seal "+id)) }},
		{store.ObjectWrappingKey, func(id string) error { return f.AddWrappingKey(ctx, wrap("wrap "+id)) }},
		{store.ObjectAuditKey, func(id string) error { return f.AddAuditKey(ctx, auditKey("audit "+id)) }},
	} {
		prefix := map[store.Object]string{store.ObjectSealingKey: "seal ", store.ObjectWrappingKey: "wrap ", store.ObjectAuditKey: "audit "}[c.object]
		intend := func(id, instead string) func() error {
			if instead != "" {
				instead = prefix + instead
			}
			return func() error { return f.Intend(ctx, succession(prefix+id, c.object, instead)) }
		}
		refused(t, f, "Intend to succeed one that is not there", store.ErrState, intend("1", "0"))
		check(t, "Intend to be the first", intend("1", "")(), nil)
		refused(t, f, "Intend to be the first, too", store.ErrExists, intend("2", ""))
		intents(t, f, succession(prefix+"1", c.object, ""))
		check(t, "Add", c.add("1"), nil)
		intents(t, f)
		refused(t, f, "Intend to be the first once there is one", store.ErrState, intend("2", ""))
		check(t, "Intend", intend("2", "1")(), nil)
		refused(t, f, "Intend while another is under way", store.ErrExists, intend("3", "1"))
		check(t, "Add of one that succeeds none", c.add("4"), nil)
		refused(t, f, "Add in the place of one that is not current any more", store.ErrState, func() error { return c.add("2") })
		intents(t, f, succession(prefix+"2", c.object, prefix+"1"))
		check(t, "Settle", f.Settle(ctx, []byte(prefix+"2"), made), nil)
		refused(t, f, "Intend to succeed one that is not current any more", store.ErrState, intend("3", "1"))
		check(t, "Intend", intend("3", "4")(), nil)
		check(t, "Settle", f.Settle(ctx, []byte(prefix+"3"), made), nil)
		check(t, "Intend once the other was given up", intend("5", "4")(), nil)
		check(t, "Add", c.add("5"), nil)
	}
	refused(t, f, "Intend of a key that takes no other's place", store.ErrState, func() error {
		return f.Intend(ctx, succession("s", store.ObjectSignatureKey, ""))
	})
}

// Of many keys that would take the place of one, one is under way at a time, and one succeeds.
func succeedingOnce(t *testing.T, f *fixture) {
	other := f.again()
	defer other.Close()
	var begun atomic.Int32
	var wg sync.WaitGroup
	for n := range 8 {
		s := []store.Store{f, other}[n%2]
		wg.Go(func() {
			id := fmt.Sprint("a", n)
			switch err := s.Intend(t.Context(), succession(id, store.ObjectAuditKey, "")); {
			case err == nil:
				begun.Add(1)
				if err := s.AddAuditKey(t.Context(), auditKey(id)); err != nil {
					t.Errorf("AddAuditKey() err = %v, want nil", err)
				}
			case !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrState):
				t.Errorf("Intend() err = %v, want %v or %v", err, store.ErrExists, store.ErrState)
			}
		})
	}
	wg.Wait()
	keys, err := f.AuditKeys(t.Context())
	check(t, "AuditKeys", err, nil)
	if begun.Load() != 1 || len(keys) != 1 {
		t.Errorf("%d have begun, and there are %d keys, want one", begun.Load(), len(keys))
	}
}
