package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// What Welcomes, and the end of lifetimes, do to key packages.

// state checks the state of a key package, and whether it has its sealed keys.
func state(t *testing.T, f *fixture, r []byte, want store.State, sealed bool) store.KeyPackage {
	t.Helper()
	k, err := f.again().KeyPackage(t.Context(), r)
	check(t, "KeyPackage", err, nil)
	if k.State != want || (len(k.Sealed) > 0) != sealed {
		t.Errorf("KeyPackage() is %s with %d sealed bytes, want %s, sealed keys %v", k.State, len(k.Sealed), want, sealed)
	}
	return k
}

func reservation(r, digest []byte, until, now time.Time) store.Reservation {
	return store.Reservation{Ref: r, Digest: digest, Until: until, Now: now}
}

func reserving(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(0, 2)), nil)
	check(t, "Move", f.Move(t.Context(), [][]byte{ref(1)}, []store.State{store.Available}, store.Published, made), nil)
	_, err := f.Reserve(t.Context(), reservation(ref(9), []byte("w1"), made.Add(time.Minute), made))
	check(t, "Reserve of an unknown one", err, store.ErrNotFound)
	check(t, "Release of an unknown one", f.Release(t.Context(), ref(9), []byte("w1"), made), store.ErrNotFound)
	check(t, "Release of one that is not reserved", f.Release(t.Context(), ref(0), []byte("w1"), made), store.ErrState)
	for i, from := range []store.State{store.Available, store.Published} {
		r := ref(uint64(i))
		got, err := f.Reserve(t.Context(), reservation(r, []byte("w1"), made.Add(time.Minute), made))
		check(t, "Reserve", err, nil)
		if got.State != store.Reserved || string(got.WelcomeDigest) != "w1" || !got.ReservedUntil.Equal(made.Add(time.Minute)) || len(got.Sealed) == 0 {
			t.Errorf("Reserve() = %+v, want it reserved for w1 for a minute, with its keys", got)
		}
		_, err = f.Reserve(t.Context(), reservation(r, []byte("w2"), made.Add(time.Hour), made.Add(59*time.Second)))
		check(t, "Reserve for another Welcome", err, store.ErrReserved)
		_, err = f.Reserve(t.Context(), reservation(r, []byte("w1"), made.Add(2*time.Minute), made))
		check(t, "Reserve for the same Welcome", err, nil)
		_, err = f.Reserve(t.Context(), reservation(r, []byte("w2"), made.Add(time.Hour), made.Add(2*time.Minute)))
		check(t, "Reserve once its time has come", err, nil)
		check(t, "Move out of a reservation", f.Move(t.Context(), [][]byte{r}, []store.State{store.Available, store.Published}, store.Published, made), store.ErrState)
		check(t, "Release for the Welcome before", f.Release(t.Context(), r, []byte("w1"), made), store.ErrState)
		check(t, "Release", f.Release(t.Context(), r, []byte("w2"), made), nil)
		k := state(t, f, r, from, true)
		if k.WelcomeDigest != nil || !k.ReservedUntil.IsZero() {
			t.Errorf("after Release() it is %+v, want nothing of a reservation", k)
		}
	}
}

// A Welcome may come between the file and its record.
func publishingWhatIsReserved(t *testing.T, f *fixture) {
	furnish(t, f)
	b := batch(0, 3)
	for i := range b {
		b[i].State = store.Pending
	}
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), b), nil)
	for _, r := range []uint64{0, 1} {
		_, err := f.Reserve(t.Context(), reservation(ref(r), []byte("w"), made.Add(time.Hour), made))
		check(t, "Reserve", err, nil)
	}
	check(t, "Consume", f.Consume(t.Context(), ref(1), []byte("w"), made), nil)
	check(t, "Move", f.Move(t.Context(), [][]byte{ref(0), ref(1), ref(2)}, []store.State{store.Pending}, store.Published, made), nil)
	state(t, f, ref(0), store.Reserved, true)
	state(t, f, ref(1), store.Consumed, false)
	state(t, f, ref(2), store.Published, true)
	check(t, "Release", f.Release(t.Context(), ref(0), []byte("w"), made), nil)
	if k := state(t, f, ref(0), store.Published, true); !k.PublishedAt.Equal(made) {
		t.Errorf("published at %v, want %v", k.PublishedAt, made)
	}
}

func consuming(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(0, 2)), nil)
	check(t, "Consume of one that is not reserved", f.Consume(t.Context(), ref(0), []byte("w1"), made), store.ErrState)
	_, err := f.Reserve(t.Context(), reservation(ref(0), []byte("w1"), made, made))
	check(t, "Reserve", err, nil)
	check(t, "Consume for another Welcome", f.Consume(t.Context(), ref(0), []byte("w2"), made), store.ErrState)
	check(t, "Consume", f.Consume(t.Context(), ref(0), []byte("w1"), made.Add(time.Second)), nil)
	k := state(t, f, ref(0), store.Consumed, false)
	if string(k.WelcomeDigest) != "w1" || !k.ConsumedAt.Equal(made.Add(time.Second)) || !k.ReservedUntil.IsZero() {
		t.Errorf("after Consume() it is %+v, want the time and the Welcome", k)
	}
	check(t, "Consume again", f.Consume(t.Context(), ref(0), []byte("w1"), made), store.ErrState)
	check(t, "Release of a consumed one", f.Release(t.Context(), ref(0), []byte("w1"), made), store.ErrState)
	_, err = f.Reserve(t.Context(), reservation(ref(0), []byte("w1"), made, made))
	check(t, "Reserve of a consumed one", err, store.ErrConsumed)
	state(t, f, ref(1), store.Available, true)
}

func lastResort(t *testing.T, f *fixture) {
	furnish(t, f)
	b := batch(0, 1)
	b[0].LastResort, b[0].State = true, store.Published
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), b), nil)
	for i, w := range []string{"w1", "w2"} {
		_, err := f.Reserve(t.Context(), reservation(ref(0), []byte(w), made, made))
		check(t, "Reserve", err, nil)
		check(t, "Consume", f.Consume(t.Context(), ref(0), []byte(w), made), nil)
		k := state(t, f, ref(0), store.Published, true)
		if k.Opened != uint64(i+1) || !k.ConsumedAt.IsZero() {
			t.Errorf("after Consume() it is %+v, want it opened %d times and not consumed", k, i+1)
		}
	}
}

// Of many callers that want one key package for different Welcomes, one gets it.
func reservingOnce(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(0, 1)), nil)
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		s := f.again()
		wg.Go(func() {
			_, err := s.Reserve(t.Context(), reservation(ref(0), []byte{byte(i)}, made.Add(time.Hour), made))
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, store.ErrReserved):
				t.Errorf("Reserve err = %v, want %v", err, store.ErrReserved)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d reserved it, want 1", won.Load())
	}
}

func sweeping(t *testing.T, f *fixture) {
	furnish(t, f)
	b := batch(0, 5000)
	for i := range b {
		switch i % 5 {
		case 1:
			b[i].State = store.Published
		case 2:
			b[i].State = store.Pending
		case 4:
			b[i].NotAfter = made.Add(time.Hour)
		}
	}
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), b), nil)
	for _, r := range []uint64{0, 1, 4, 9} { // 0 and 1 end long after, 4 and 9 soon
		_, err := f.Reserve(t.Context(), reservation(ref(r), []byte("w"), made.Add(time.Minute), made))
		check(t, "Reserve", err, nil)
	}
	check(t, "Consume", f.Consume(t.Context(), ref(9), []byte("w"), made), nil)

	got, err := f.Sweep(t.Context(), made.Add(time.Second), time.Hour)
	if want := (store.Swept{}); err != nil || got != want {
		t.Errorf("Sweep() with nothing to do = %+v, %v, want %+v", got, err, want)
	}
	got, err = f.Sweep(t.Context(), made.Add(2*time.Hour), time.Minute)
	if want := (store.Swept{Released: 3, Expired: 999, Erased: 999}); err != nil || got != want {
		t.Errorf("Sweep() = %+v, %v, want %+v", got, err, want)
	}
	state(t, f, ref(0), store.Available, true)
	state(t, f, ref(1), store.Published, true)
	state(t, f, ref(4), store.Erased, false) // released, and erased by the same sweep
	state(t, f, ref(9), store.Consumed, false)
	state(t, f, ref(4999), store.Erased, false)
	state(t, f, ref(4998), store.Available, true)
	got, err = f.Sweep(t.Context(), made.Add(2*time.Hour), time.Minute)
	if err != nil || got != (store.Swept{}) {
		t.Errorf("Sweep() again = %+v, %v, want nothing", got, err)
	}
	_, err = f.Reserve(t.Context(), reservation(ref(4), []byte("w"), made, made))
	check(t, "Reserve of an expired one", err, store.ErrErased)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.Sweep(ended, made, time.Hour)
	check(t, "Sweep with a context that ended", err, context.Canceled)
}
