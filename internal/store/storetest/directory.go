package storetest

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Key packages that go to directories.

// toMain asks for n of alice's key packages for the directory "main", for a minute.
func toMain(n int, now time.Time) store.Dispatch {
	return store.Dispatch{Identity: "alice", Directory: "main", N: n, Now: now, Until: now.Add(time.Minute)}
}

// dispatch leases key packages, and returns the refs that are sent for the first time and the refs
// that are sent again.
func dispatch(t *testing.T, f *fixture, d store.Dispatch) (first, again [][]byte) {
	t.Helper()
	got, err := f.Dispatch(t.Context(), d)
	check(t, "Dispatch", err, nil)
	for _, k := range got {
		stored, err := f.KeyPackage(t.Context(), k.Ref)
		if err != nil || !reflect.DeepEqual(stored, k.KeyPackage) || k.State != store.Pending || k.Directory != d.Directory || !k.LeasedUntil.Equal(d.Until) {
			t.Errorf("Dispatch() = %+v, want it leased to %s until %v, and as it is stored: %+v, %v", k, d.Directory, d.Until, stored, err)
		}
		if k.Again {
			again = append(again, k.Ref)
		} else {
			first = append(first, k.Ref)
		}
	}
	return first, again
}

func wantRefs(t *testing.T, what string, got [][]byte, want ...uint64) {
	t.Helper()
	var refs [][]byte
	for _, n := range want {
		refs = append(refs, ref(n))
	}
	if !slices.EqualFunc(got, refs, bytes.Equal) {
		t.Errorf("%s = %x, want %x", what, got, refs)
	}
}

func dispatching(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, at := t.Context(), made.Add(time.Minute)
	check(t, "AddIdentity", f.AddIdentity(ctx, identity("bob")), nil)
	b := batch(0, 9)
	b[0].State = store.Pending
	b[1].State = store.Published
	b[2].LastResort = true
	b[3].NotAfter = at
	b[4].NotBefore = at.Add(2 * time.Hour)
	b[5].Identity = "bob"
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, b), nil)
	for _, n := range []int{0, -1} {
		if first, again := dispatch(t, f, toMain(n, at)); len(first)+len(again) != 0 {
			t.Errorf("Dispatch(%d) = %x, %x, want none", n, first, again)
		}
	}
	first, again := dispatch(t, f, toMain(2, at))
	wantRefs(t, "Dispatch()", first, 6, 7)
	wantRefs(t, "Dispatch() again", again)
	// While they are leased, they go to no other sender, directory or claim.
	other := toMain(10, at)
	other.Directory = "other"
	first, _ = dispatch(t, f, other)
	wantRefs(t, "Dispatch() to another", first, 8)
	if got, err := f.Claim(ctx, "alice", 10, at); err != nil || len(got) != 0 {
		t.Errorf("Claim() = %x, %v, want none", refsOf(got), err)
	}
	// When the lease is over, they go to the same directory again.
	later := toMain(10, at.Add(time.Minute))
	_, again = dispatch(t, f, later)
	wantRefs(t, "Dispatch() when the lease is over", again, 6, 7)
	resume := later
	resume.Now, resume.Resume = at.Add(time.Hour), true
	resume.Until = resume.Now.Add(time.Minute)
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(20, 1)), nil)
	first, again = dispatch(t, f, resume)
	wantRefs(t, "Dispatch() of those alone that were on their way", again, 6, 7)
	wantRefs(t, "Dispatch() of new ones", first)
	// A key package that is written to a folder is not on its way to a directory.
	check(t, "Move", f.Move(ctx, [][]byte{ref(6)}, []store.State{store.Pending}, store.Pending, at), nil)
	if k, err := f.KeyPackage(ctx, ref(6)); err != nil || k.Directory != "" || !k.LeasedUntil.IsZero() {
		t.Errorf("KeyPackage() = %+v, %v, want it on no way", k, err)
	}
}

func dispatchingWhatLasts(t *testing.T, f *fixture) {
	furnish(t, f)
	b := batch(0, 3)
	b[0].NotAfter = made.Add(time.Hour)
	b[1].NotAfter = made.Add(2 * time.Hour)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), b), nil)
	d := toMain(5, made)
	d.Ending = made.Add(time.Hour)
	first, _ := dispatch(t, f, d)
	wantRefs(t, "Dispatch() of what lasts for more than an hour", first, 1, 2)
	d.Now, d.Ending = d.Until, made.Add(2*time.Hour)
	d.Until = d.Now.Add(time.Minute)
	_, again := dispatch(t, f, d)
	wantRefs(t, "Dispatch() again of what lasts for more than two", again, 2)
}

func dispatchingALastResort(t *testing.T, f *fixture) {
	furnish(t, f)
	b := batch(0, 2)
	b[1].LastResort = true
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), b), nil)
	d := toMain(5, made)
	d.LastResort = true
	first, _ := dispatch(t, f, d)
	wantRefs(t, "Dispatch()", first, 1)
	d.Now = made.Add(time.Hour)
	_, again := dispatch(t, f, d)
	wantRefs(t, "Dispatch() again", again, 1)
}

func dispatchingOnce(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(0, 40)), nil)
	var mu sync.Mutex
	seen := make(map[string]bool)
	var all sync.WaitGroup
	for i := range 8 {
		s := store.Store(f)
		if i%2 == 1 {
			s = f.again()
		}
		all.Go(func() {
			for range 5 {
				got, err := s.Dispatch(context.Background(), toMain(1, made))
				if err != nil {
					t.Errorf("Dispatch err = %v, want nil", err)
				}
				mu.Lock()
				for _, k := range got {
					if seen[string(k.Ref)] {
						t.Errorf("%x was dispatched twice", k.Ref)
					}
					seen[string(k.Ref)] = true
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(seen) != 40 {
		t.Errorf("%d key packages were dispatched, want 40", len(seen))
	}
}

// exports returns how many entries say that a key package was published in a directory.
func exports(t *testing.T, f *fixture, directory string) (n int) {
	t.Helper()
	for _, e := range trail(t, f) {
		if e.Act == audit.Exported && e.Detail == `directory "`+directory+`"` {
			n++
		}
	}
	return n
}

func acknowledging(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, at := t.Context(), made.Add(time.Second)
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(0, 3)), nil)
	dispatch(t, f, toMain(2, made))
	refs := [][]byte{ref(0), ref(1)}
	check(t, "Acknowledge of one that was not sent", f.Acknowledge(ctx, [][]byte{ref(0), ref(2)}, "main", at), store.ErrState)
	check(t, "Acknowledge by another directory", f.Acknowledge(ctx, refs, "other", at), store.ErrState)
	check(t, "Acknowledge of an unknown one", f.Acknowledge(ctx, [][]byte{ref(0), ref(9)}, "main", at), store.ErrNotFound)
	if n := exports(t, f, "main"); n != 0 {
		t.Fatalf("the trail has %d, want all or none", n)
	}
	check(t, "Acknowledge", f.Acknowledge(ctx, refs, "main", at), nil)
	check(t, "Acknowledge twice", f.Acknowledge(ctx, refs, "main", at.Add(time.Hour)), nil)
	for _, r := range refs {
		k, err := f.KeyPackage(ctx, r)
		if err != nil || k.State != store.Published || k.Directory != "main" || !k.PublishedAt.Equal(at) || !k.LeasedUntil.IsZero() {
			t.Errorf("KeyPackage() = %+v, %v, want it published in main at %v", k, err, at)
		}
	}
	if n := exports(t, f, "main"); n != 2 {
		t.Errorf("the trail has %d, want 2", n)
	}
	first, again := dispatch(t, f, toMain(9, made.Add(time.Hour)))
	wantRefs(t, "Dispatch()", first, 2)
	wantRefs(t, "Dispatch() again", again)
}

func acknowledgingWhatWasOvertaken(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, at := t.Context(), made.Add(time.Second)
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(0, 4)), nil)
	dispatch(t, f, toMain(4, made))
	check(t, "Reserve", reserve(t, f, ref(0), []byte("welcome"), nil), nil)
	check(t, "Reserve", reserve(t, f, ref(1), []byte("other"), nil), nil)
	check(t, "Consume", f.Consume(ctx, ref(1), []byte("other"), at), nil)
	check(t, "Retire", f.Retire(ctx, [][]byte{ref(2)}, at.Add(time.Second), at), nil)
	refs := [][]byte{ref(0), ref(1), ref(2)}
	for range 2 {
		check(t, "Acknowledge", f.Acknowledge(ctx, refs, "main", at), nil)
	}
	for i, want := range []store.State{store.Reserved, store.Consumed, store.Retired} {
		if k, err := f.KeyPackage(ctx, refs[i]); err != nil || k.State != want || !k.PublishedAt.Equal(at) {
			t.Errorf("KeyPackage() = %s, published at %v, %v, want %s, %v", k.State, k.PublishedAt, err, want, at)
		}
	}
	if n := exports(t, f, "main"); n != 3 {
		t.Errorf("the trail has %d, want 3", n)
	}
	check(t, "Release", f.Release(ctx, ref(0), []byte("welcome"), at), nil)
	if k, err := f.KeyPackage(ctx, ref(0)); err != nil || k.State != store.Published {
		t.Errorf("KeyPackage() = %s, %v, want it published once it is released", k.State, err)
	}
	check(t, "Retire", f.Retire(ctx, [][]byte{ref(3)}, at.Add(time.Second), at), nil)
	if _, err := f.Sweep(ctx, at.Add(time.Hour), 0); err != nil {
		t.Fatal(err)
	}
	check(t, "Acknowledge of one that is erased", f.Acknowledge(ctx, [][]byte{ref(3)}, "main", at), store.ErrErased)
}

func returning(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(0, 3)), nil)
	d := toMain(3, made)
	dispatch(t, f, d)
	check(t, "Acknowledge", f.Acknowledge(ctx, [][]byte{ref(1)}, "main", made), nil)
	check(t, "Return of another's", f.Return(ctx, [][]byte{ref(0)}, d.Until.Add(time.Second)), nil)
	if first, again := dispatch(t, f, d); len(first)+len(again) != 0 {
		t.Errorf("Dispatch() = %x, %x, want none", first, again)
	}
	check(t, "Return", f.Return(ctx, [][]byte{ref(0), ref(1), ref(2), ref(9)}, d.Until), nil)
	_, again := dispatch(t, f, d)
	wantRefs(t, "Dispatch() of what was returned", again, 0, 2)
	if k, err := f.KeyPackage(ctx, ref(1)); err != nil || k.State != store.Published {
		t.Errorf("KeyPackage() = %s, %v, want it published still", k.State, err)
	}
}

func aBacklogHasWhatIsOnItsWay(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, at := t.Context(), made.Add(time.Hour)
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(0, 3)), nil)
	dispatch(t, f, toMain(2, made))
	if _, err := f.RetireIdentity(ctx, "alice", at.Add(time.Hour), at); err != nil {
		t.Fatal(err)
	}
	if first, again := dispatch(t, f, toMain(5, at)); len(first)+len(again) != 0 {
		t.Errorf("Dispatch() = %x, %x, want nothing of one that is retired", first, again)
	}
	check(t, "Acknowledge", f.Acknowledge(ctx, [][]byte{ref(0)}, "main", at), nil)
	if k, err := f.KeyPackage(ctx, ref(0)); err != nil || k.State != store.Retired || !k.PublishedAt.Equal(at) {
		t.Errorf("KeyPackage() = %s, published at %v, %v, want it retired and published", k.State, k.PublishedAt, err)
	}
	if level, err := f.Level(ctx, "alice", "main", at); err != nil || level != (store.Level{}) {
		t.Errorf("Level() = %+v, %v, want none", level, err)
	}
}

func levels(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	b := batch(0, 12)
	b[10].LastResort = true
	b[11].NotAfter = made.Add(time.Hour)
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, b), nil)
	dispatch(t, f, toMain(5, made))
	check(t, "Acknowledge", f.Acknowledge(ctx, [][]byte{ref(0), ref(1), ref(2)}, "main", made), nil)
	other := toMain(1, made)
	other.Directory = "other"
	dispatch(t, f, other)
	check(t, "Reserve", reserve(t, f, ref(0), []byte("welcome"), nil), nil)
	for _, c := range []struct {
		directory string
		after     time.Time
		want      store.Level
	}{
		{"main", made, store.Level{Available: 5, Underway: 2, Published: 2}},
		{"main", made.Add(time.Hour), store.Level{Available: 4, Underway: 2, Published: 2}},
		{"other", made, store.Level{Available: 5, Underway: 1}},
		{"main", made.Add(100 * 24 * time.Hour), store.Level{}},
	} {
		if got, err := f.Level(ctx, "alice", c.directory, c.after); err != nil || got != c.want {
			t.Errorf("Level(%s, %v) = %+v, %v, want %+v", c.directory, c.after, got, err, c.want)
		}
	}
	_, err := f.Level(ctx, "nobody", "main", made)
	check(t, "Level of nobody's", err, store.ErrNotFound)
}

func leases(t *testing.T, f *fixture) {
	ctx, until := t.Context(), made.Add(time.Minute)
	check(t, "Lease", f.Lease(ctx, "n", "one", until, made), nil)
	check(t, "Lease of another", f.Lease(ctx, "n", "two", until, made), store.ErrHeld)
	check(t, "Lease of another name", f.Lease(ctx, "m", "two", until, made), nil)
	check(t, "Lease once more", f.Lease(ctx, "n", "one", until.Add(time.Minute), made), nil)
	check(t, "Lease of another", f.Lease(ctx, "n", "two", until.Add(time.Hour), until), store.ErrHeld)
	check(t, "Lease when it is over", f.Lease(ctx, "n", "two", until.Add(time.Hour), until.Add(time.Minute)), nil)
	check(t, "Unlease by one who has it no more", f.Unlease(ctx, "n", "one"), nil)
	check(t, "Lease of one who lost it", f.Lease(ctx, "n", "one", until.Add(time.Hour), until.Add(time.Minute)), store.ErrHeld)
	check(t, "Unlease", f.Unlease(ctx, "n", "two"), nil)
	check(t, "Lease of what was given back", f.Lease(ctx, "n", "one", until, made), nil)
}

func leasingOnce(t *testing.T, f *fixture) {
	var had atomic.Int32
	var all sync.WaitGroup
	for _, holder := range []string{"a", "b", "c", "d"} {
		s := f.again()
		all.Go(func() {
			err := s.Lease(context.Background(), "n", holder, made.Add(time.Minute), made)
			if err == nil {
				had.Add(1)
			} else if !errors.Is(err, store.ErrHeld) {
				t.Errorf("Lease err = %v, want ErrHeld", err)
			}
		})
	}
	all.Wait()
	if had.Load() != 1 {
		t.Errorf("%d have the lease, want one", had.Load())
	}
}

func accounts(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	a := store.Account{Identity: "alice", Directory: "main", Client: []byte("id"), WrappingKeyID: []byte("k1"), Sealed: []byte("token"), CreatedAt: made}
	_, err := f.Account(ctx, "main", []byte("id"))
	check(t, "Account", err, store.ErrNotFound)
	check(t, "SetAccount", f.SetAccount(ctx, a), nil)
	second := wrappingKey("k2")
	check(t, "AddWrappingKey", f.AddWrappingKey(ctx, second), nil)
	if under, err := f.Accounts(ctx, []byte("k1")); err != nil || !reflect.DeepEqual(under, []store.Account{a}) {
		t.Errorf("Accounts() = %+v, %v, want %+v", under, err, a)
	}
	a.WrappingKeyID, a.Sealed = []byte("k2"), []byte("token, anew")
	check(t, "SetAccount", f.SetAccount(ctx, a), nil)
	if got, err := f.Account(ctx, "main", []byte("id")); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("Account() = %+v, %v, want %+v", got, err, a)
	}
	if under, err := f.Accounts(ctx, []byte("k1")); err != nil || len(under) != 0 {
		t.Errorf("Accounts() = %+v, %v, want none", under, err)
	}
	a.Identity, a.Client = "nobody", []byte("other")
	check(t, "SetAccount for nobody", f.SetAccount(ctx, a), store.ErrNotFound)
}
