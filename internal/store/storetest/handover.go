package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Private keys that are released to devices.

// released is a batch of key packages for one device.
func released(from, n uint64, digest string) []store.KeyPackage {
	b := batch(from, n)
	for i := range b {
		b[i].Custody, b[i].ReleaseDigest = "release", []byte(digest)
	}
	return b
}

func handingOver(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, append(released(0, 3, "a"), append(released(3, 1, "b"), batch(4, 1)...)...)), nil)
	if k := state(t, f, ref(0), store.Available, true); string(k.ReleaseDigest) != "a" || !k.HandedOverAt.IsZero() || !k.Unconfirmed() {
		t.Errorf("it was added as %+v, want it for a, and not handed over", k)
	}
	check(t, "ConfirmHandover before it was handed over", second(f.ConfirmHandover(ctx, [][]byte{ref(0)}, made)), store.ErrState)
	for what, c := range map[string]struct {
		refs [][]byte
		want error
	}{
		"an unknown one":         {[][]byte{ref(0), ref(9)}, store.ErrNotFound},
		"one of another device":  {[][]byte{ref(0), ref(3)}, store.ErrOtherRelease},
		"one that is for no one": {[][]byte{ref(0), ref(4)}, store.ErrState},
	} {
		check(t, "HandOver of "+what, f.HandOver(ctx, c.refs, []byte("a"), made), c.want)
		if k := state(t, f, ref(0), store.Available, true); !k.HandedOverAt.IsZero() {
			t.Errorf("HandOver of %s handed another over", what)
		}
	}
	check(t, "HandOver", f.HandOver(ctx, [][]byte{ref(0), ref(1)}, []byte("a"), made), nil)
	check(t, "HandOver again", f.HandOver(ctx, [][]byte{ref(0)}, []byte("a"), made.Add(time.Hour)), nil)
	if k := state(t, f, ref(0), store.Available, true); !k.HandedOverAt.Equal(made) || !k.ConfirmedAt.IsZero() || !k.Unconfirmed() {
		t.Errorf("it was handed over at %v, want the first time", k.HandedOverAt)
	}
	_, err := f.Reserve(ctx, reservation(ref(0), []byte("w"), made.Add(time.Hour), made))
	check(t, "Reserve of one that is a device's", err, store.ErrForDevice)
	_, err = f.Reserve(ctx, reservation(ref(2), []byte("w"), made.Add(time.Hour), made))
	check(t, "Reserve of one that is to be a device's", err, store.ErrForDevice)
}

func second[T any](_ T, err error) error { return err }

func confirmingHandovers(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, released(0, 4, "a")), nil)
	check(t, "HandOver", f.HandOver(ctx, [][]byte{ref(0), ref(1), ref(2)}, []byte("a"), made), nil)
	for what, c := range map[string]struct {
		ref  []byte
		want error
	}{"an unknown one": {ref(9), store.ErrNotFound}, "one that was not handed over": {ref(3), store.ErrState}} {
		check(t, "ConfirmHandover of "+what, second(f.ConfirmHandover(ctx, [][]byte{ref(0), c.ref}, made)), c.want)
		state(t, f, ref(0), store.Available, true)
	}
	for _, want := range []uint64{1, 0} {
		n, err := f.ConfirmHandover(ctx, [][]byte{ref(0), ref(0)}, made.Add(time.Hour))
		if err != nil || n != want {
			t.Errorf("ConfirmHandover() = %d, %v, want %d", n, err, want)
		}
	}
	k := state(t, f, ref(0), store.Available, false)
	if !k.ConfirmedAt.Equal(made.Add(time.Hour)) || k.Unconfirmed() || k.Custody != "release" || string(k.ReleaseDigest) != "a" {
		t.Errorf("once confirmed it is %+v", k)
	}
	check(t, "HandOver of a confirmed one", f.HandOver(ctx, [][]byte{ref(0)}, []byte("a"), made), store.ErrState)
	_, err := f.Reserve(ctx, reservation(ref(0), []byte("w"), made.Add(time.Hour), made))
	check(t, "Reserve of a confirmed one", err, store.ErrForDevice)

	// It is handed out, retired and ended like all others.
	check(t, "Move", f.Move(ctx, [][]byte{ref(0)}, []store.State{store.Available}, store.Published, made), nil)
	check(t, "Retire", f.Retire(ctx, [][]byte{ref(1)}, made.Add(time.Hour), made), nil)
	if n, err := f.ConfirmHandover(ctx, [][]byte{ref(1)}, made); err != nil || n != 1 {
		t.Errorf("ConfirmHandover() of a retired one = %d, %v, want 1", n, err)
	}
	state(t, f, ref(1), store.Retired, false)

	// Nobody gets one that its device may not have.
	for _, confirmed := range []int{0, 1} {
		level, err := f.Level(ctx, "alice", "main", made)
		if err != nil || int(level.Available) != confirmed {
			t.Errorf("Level() = %+v, %v, want %d available", level, err, confirmed)
		}
		if confirmed == 1 {
			sent, err := f.Dispatch(ctx, store.Dispatch{Identity: "alice", Directory: "main", N: 5, Now: made, Until: made.Add(time.Minute)})
			if err != nil || len(sent) != 1 || string(sent[0].Ref) != string(ref(2)) {
				t.Errorf("Dispatch() = %+v, %v, want the one that is confirmed", sent, err)
			}
			check(t, "Acknowledge", f.Acknowledge(ctx, [][]byte{ref(2)}, "main", made), nil)
			check(t, "HandOver", f.HandOver(ctx, [][]byte{ref(3)}, []byte("a"), made), nil)
			check(t, "ConfirmHandover", second(f.ConfirmHandover(ctx, [][]byte{ref(3)}, made)), nil)
		}
		claimed, err := f.Claim(ctx, "alice", 5, made)
		if err != nil || len(claimed) != confirmed || confirmed == 1 && string(claimed[0].Ref) != string(ref(3)) {
			t.Errorf("Claim() = %+v, %v, want %d", claimed, err, confirmed)
		}
		check(t, "ConfirmHandover", second(f.ConfirmHandover(ctx, [][]byte{ref(2)}, made)), nil)
	}
	late := made.Add(100 * 24 * time.Hour)
	if swept, err := f.Sweep(ctx, late, time.Hour); err != nil || swept != (store.Swept{Expired: 3, Erased: 4}) {
		t.Errorf("Sweep() = %+v, %v", swept, err)
	}
	state(t, f, ref(0), store.Erased, false)
	state(t, f, ref(2), store.Erased, false)
	check(t, "HandOver of an erased one", f.HandOver(ctx, [][]byte{ref(2)}, []byte("a"), late), store.ErrErased)
	if n, err := f.ConfirmHandover(ctx, [][]byte{ref(2)}, late); err != nil || n != 0 {
		t.Errorf("ConfirmHandover() of an erased one = %d, %v, want 0", n, err)
	}
}

// Private keys for a device depend on their wrapping key until the device has them.
func handoversAndWrappingKeys(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, released(0, 3, "a")), nil)
	check(t, "HandOver", f.HandOver(ctx, [][]byte{ref(0), ref(1), ref(2)}, []byte("a"), made), nil)
	check(t, "ConfirmHandover", second(f.ConfirmHandover(ctx, [][]byte{ref(0)}, made)), nil)
	check(t, "AddWrappingKey", f.AddWrappingKey(ctx, wrappingKey("k2")), nil)
	if d, err := f.Dependents(ctx, []byte("k1")); err != nil || d.KeyPackages != 2 {
		t.Errorf("Dependents() = %+v, %v, want 2 key packages", d, err)
	}
	n, err := f.Rewrap(ctx, []store.Rewrapped{{
		Ref: ref(1), Sealed: []byte("sealed anew"), WasSealed: []byte("sealed"), WrappingKeyID: []byte("k2"), WasWrappingKeyID: []byte("k1"),
	}}, made)
	if err != nil || n != 1 {
		t.Errorf("Rewrap() = %d, %v, want 1", n, err)
	}
	if k := state(t, f, ref(1), store.Available, true); !k.HandedOverAt.Equal(made) || string(k.ReleaseDigest) != "a" {
		t.Errorf("once rewrapped it is %+v", k)
	}
	intent := store.Intent{KeyID: []byte("k1"), Object: store.ObjectSealingKey, Destroy: true, CreatedAt: made}
	check(t, "ChangeIdentity", f.ChangeIdentity(ctx, restamped(t, f), identity("alice").Stamp, made), nil)
	b, err := f.CondemnWrappingKey(ctx, intent, true)
	check(t, "CondemnWrappingKey", err, nil)
	state(t, f, ref(2), store.Erased, false)
	check(t, "HandOver of a shredded one", f.HandOver(ctx, [][]byte{ref(2)}, []byte("a"), made), store.ErrErased)
	if n, err := f.ConfirmHandover(ctx, [][]byte{ref(2), ref(1)}, made); err != nil || n != 1 {
		t.Errorf("ConfirmHandover() = %d, %v, want 1", n, err)
	}
	if b, err = f.WorkOff(ctx, b.ID, 5, made); err != nil || !b.Finished() || b.Moved != 1 {
		t.Errorf("WorkOff() = %+v, %v, want one moved", b, err)
	}
	state(t, f, ref(0), store.Available, false)
}

// restamped is alice with a stamp of k2.
func restamped(t *testing.T, f *fixture) store.Identity {
	t.Helper()
	id, err := f.Identity(t.Context(), "alice")
	check(t, "Identity", err, nil)
	id.Stamp, id.StampKey = []byte("another stamp"), []byte("k2")
	return id
}

// After a confirmation and a handover at the same time, the keys are erased, and that is recorded
// once.
func confirmingOnce(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), released(0, 5, "a")), nil)
	refs := [][]byte{ref(0), ref(1), ref(2), ref(3), ref(4)}
	check(t, "HandOver", f.HandOver(t.Context(), refs, []byte("a"), made), nil)
	var erased atomic.Uint64
	var wg sync.WaitGroup
	for i := range 8 {
		s := f.again()
		wg.Go(func() {
			if i%2 == 0 {
				if err := s.HandOver(t.Context(), refs, []byte("a"), made); err != nil && !errors.Is(err, store.ErrState) {
					t.Errorf("HandOver err = %v, want nil or %v", err, store.ErrState)
				}
				return
			}
			n, err := s.ConfirmHandover(t.Context(), refs, made)
			if err != nil {
				t.Errorf("ConfirmHandover err = %v, want nil", err)
			}
			erased.Add(n)
		})
	}
	wg.Wait()
	if erased.Load() != 5 {
		t.Errorf("%d were erased, want 5", erased.Load())
	}
}

func listingHandovers(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	check(t, "AddIdentity", f.AddIdentity(ctx, identity("bob")), nil)
	all1 := append(released(0, 600, "a"), batch(600, 300)...)
	for i := range all1 {
		if i%3 == 0 {
			all1[i].Identity = "bob"
		}
		all1[i].LastResort = i%5 == 0
		if i%7 == 0 {
			all1[i].State = store.Published
		}
	}
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, all1), nil)
	var handed [][]byte
	for i := range uint64(50) {
		handed = append(handed, ref(i))
	}
	check(t, "HandOver", f.HandOver(ctx, handed, []byte("a"), made), nil)
	check(t, "ConfirmHandover", second(f.ConfirmHandover(ctx, handed, made)), nil)
	for _, filter := range []store.Filter{
		{Unconfirmed: true}, {Unconfirmed: true, Identity: "bob"}, {Unconfirmed: true, State: store.Published},
		{Unconfirmed: true, Identity: "alice", State: store.Available, LastResort: true}, {Unconfirmed: true, Identity: "nobody"},
	} {
		fits := slices.DeleteFunc(slices.Clone(all1[50:600]), func(k store.KeyPackage) bool {
			return filter.Identity != "" && k.Identity != filter.Identity || filter.State != "" && k.State != filter.State || filter.LastResort && !k.LastResort
		})
		if got := all(t, f, filter); !slices.EqualFunc(refsOf(got), refsOf(fits), bytes.Equal) {
			t.Errorf("KeyPackages(%+v) = %d key packages, want %d in the order they were added", filter, len(got), len(fits))
		}
	}
}

func trailOfAHandover(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, released(0, 1, "a")), nil)
	check(t, "HandOver", f.HandOver(ctx, [][]byte{ref(0)}, []byte("a"), made), nil)
	check(t, "HandOver again", f.HandOver(ctx, [][]byte{ref(0)}, []byte("a"), made), nil)
	for range 2 {
		check(t, "ConfirmHandover", second(f.ConfirmHandover(ctx, [][]byte{ref(0)}, made)), nil)
	}
	var acts []audit.Act
	for stored, err := range f.EntriesOf(ctx, ref(0)) {
		check(t, "EntriesOf", err, nil)
		e, err := audit.ParseEntry(stored.Bytes)
		check(t, "ParseEntry", err, nil)
		acts = append(acts, e.Act)
		if e.Act == audit.HandedOver && e.Detail != fmt.Sprintf("release key %x", "a") {
			t.Errorf("the entry says %q", e.Detail)
		}
	}
	if want := []audit.Act{audit.Generated, audit.HandedOver, audit.HandedOver, audit.Confirmed}; !slices.Equal(acts, want) {
		t.Errorf("the trail has %v, want %v", acts, want)
	}
}
