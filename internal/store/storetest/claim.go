package storetest

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Handing out, retiring, the leaf, the times of grace, and counting.

// reserve reserves a key package for an hour.
func reserve(t *testing.T, f *fixture, r, digest, leaf []byte) error {
	t.Helper()
	var under []byte
	if k, err := f.KeyPackage(t.Context(), r); err == nil {
		under = k.WrappingKeyID
	}
	_, err := f.Reserve(t.Context(), store.Reservation{Ref: r, Digest: digest, Leaf: leaf, LeafUnder: under, Until: made.Add(time.Hour), Now: made})
	return err
}

func refsOf(list []store.KeyPackage) (refs [][]byte) {
	for _, k := range list {
		refs = append(refs, k.Ref)
	}
	return refs
}

func claiming(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, at := t.Context(), made.Add(time.Minute)
	check(t, "AddIdentity", f.AddIdentity(ctx, identity("bob")), nil)
	b := batch(0, 10)
	b[0].State = store.Pending
	b[1].State = store.Published
	b[2].LastResort = true
	b[3].NotAfter = at.Add(-time.Second)
	b[4].NotBefore = at.Add(time.Second)
	b[5].Identity = "bob"
	b[6].NotBefore, b[6].NotAfter = at, at.Add(time.Second)
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, b), nil)
	for _, n := range []int{0, -1} {
		if got, err := f.Claim(ctx, "alice", n, at); err != nil || len(got) != 0 {
			t.Errorf("Claim(%d) = %d key packages, %v, want none", n, len(got), err)
		}
	}
	if got, err := f.Claim(ctx, "nobody", 5, at); err != nil || len(got) != 0 {
		t.Errorf("Claim of nobody's = %d key packages, %v, want none", len(got), err)
	}
	for _, want := range [][][]byte{{ref(6), ref(7)}, {ref(8), ref(9)}, nil} {
		got, err := f.Claim(ctx, "alice", 2, at)
		check(t, "Claim", err, nil)
		if !slices.EqualFunc(refsOf(got), want, bytes.Equal) {
			t.Errorf("Claim() = %x, want %x", refsOf(got), want)
		}
		for _, k := range got {
			stored := state(t, f, k.Ref, store.Claimed, true)
			if fmt.Sprintf("%+v", k) != fmt.Sprintf("%+v", stored) || !k.ClaimedAt.Equal(at) {
				t.Errorf("Claim() = %+v, want it as it is stored, claimed at %v: %+v", k, at, stored)
			}
		}
	}
	for n, want := range []store.State{store.Pending, store.Published, store.Available, store.Available, store.Available, store.Available} {
		state(t, f, ref(uint64(n)), want, true)
	}
	refused(t, f, "Move of a claimed one", store.ErrState, func() error {
		return f.Move(ctx, [][]byte{ref(6)}, []store.State{store.Available, store.Claimed}, store.Published, at)
	})
	check(t, "Reserve of a claimed one", reserve(t, f, ref(6), []byte("w"), nil), nil)
	check(t, "Release", f.Release(ctx, ref(6), []byte("w"), at), nil)
	if k := state(t, f, ref(6), store.Claimed, true); !k.ClaimedAt.Equal(at) {
		t.Errorf("claimed at %v, want %v", k.ClaimedAt, at)
	}
}

// Each key package goes to one of many callers.
func claimingOnce(t *testing.T, f *fixture) {
	furnish(t, f)
	const stock, claimers = 60, 8
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(0, stock)), nil)
	other := f.again()
	defer other.Close()
	got := make([][]store.KeyPackage, claimers)
	var wg sync.WaitGroup
	for i := range claimers {
		s := []store.Store{f, other}[i%2]
		wg.Go(func() {
			for range stock {
				claimed, err := s.Claim(t.Context(), "alice", 3, made)
				if err != nil {
					t.Errorf("Claim() err = %v, want nil", err)
				}
				if got[i] = append(got[i], claimed...); len(claimed) == 0 {
					return
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[string]bool)
	for _, claimed := range got {
		for _, k := range claimed {
			if seen[string(k.Ref)] {
				t.Errorf("%x was handed out twice", k.Ref)
			}
			seen[string(k.Ref)] = true
		}
	}
	if len(seen) != stock {
		t.Errorf("%d were handed out, want %d", len(seen), stock)
	}
}

// A key package that is written to a folder goes to nobody else.
func moving(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	oneOfEachState(t, f)
	every := store.States
	for _, to := range every {
		for i, s := range every {
			if to == store.Published && slices.Contains([]store.State{store.Reserved, store.Consumed, store.Retired, store.Expired, store.Erased}, s) {
				continue // counts as moved: see movingWhatWasOvertaken
			}
			if store.Allowed(s, store.Write, to) || store.Allowed(s, store.Publish, to) {
				continue
			}
			refused(t, f, fmt.Sprintf("Move of a %s one to %s", s, to), store.ErrState, func() error {
				return f.Move(ctx, [][]byte{ref(uint64(i))}, every, to, made)
			})
		}
	}
	at := made.Add(time.Hour)
	three := [][]byte{ref(number(store.Pending)), ref(number(store.Available)), ref(number(store.Published))}
	check(t, "Move to Pending", f.Move(ctx, three, []store.State{store.Pending, store.Available, store.Published}, store.Pending, at), nil)
	for i, r := range three {
		want := time.Time{}
		if i == 2 {
			want = made // it was published
		}
		if k := state(t, f, r, store.Pending, true); !k.PublishedAt.Equal(want) {
			t.Errorf("key package %d was published at %v, want %v", i, k.PublishedAt, want)
		}
	}
	if got, err := f.Claim(ctx, "alice", 5, made); err != nil || len(got) != 0 {
		t.Errorf("Claim() = %d key packages, %v, want none: they are pending", len(got), err)
	}
}

func movingWhatWasOvertaken(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, at := t.Context(), made.Add(time.Minute)
	oneOfEachState(t, f)
	overtaken := []store.State{store.Reserved, store.Consumed, store.Retired, store.Expired}
	refused(t, f, "Move of an erased one", store.ErrErased, func() error {
		return f.Move(ctx, [][]byte{ref(number(store.Erased))}, []store.State{store.Pending}, store.Published, at)
	})
	var refs [][]byte
	for _, s := range overtaken {
		refs = append(refs, ref(number(s)))
		refused(t, f, fmt.Sprintf("Move of a %s one that was not pending", s), store.ErrState, func() error {
			return f.Move(ctx, [][]byte{ref(number(s))}, []store.State{store.Available, s}, store.Published, at)
		})
	}
	check(t, "Move", f.Move(ctx, refs, []store.State{store.Pending}, store.Published, at), nil)
	for i, s := range overtaken {
		if k := state(t, f, refs[i], s, s.Open()); !k.PublishedAt.Equal(at) {
			t.Errorf("the %s one was published at %v, want %v", s, k.PublishedAt, at)
		}
	}
	refused(t, f, "Move of a claimed one", store.ErrState, func() error {
		return f.Move(ctx, [][]byte{refs[0], ref(number(store.Claimed))}, []store.State{store.Pending}, store.Published, at)
	})
}

func retiringKeyPackages(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, until := t.Context(), made.Add(48*time.Hour)
	oneOfEachState(t, f)
	for _, s := range store.States {
		if !slices.Contains(retiring, s) {
			refused(t, f, fmt.Sprintf("Retire of a %s one", s), store.ErrState, func() error {
				return f.Retire(ctx, [][]byte{ref(number(store.Available)), ref(number(s))}, until, made)
			})
		}
	}
	refused(t, f, "Retire of an unknown one", store.ErrNotFound, func() error {
		return f.Retire(ctx, [][]byte{ref(number(store.Available)), ref(99)}, until, made)
	})
	var refs [][]byte
	for _, s := range retiring {
		refs = append(refs, ref(number(s)))
	}
	check(t, "Retire", f.Retire(ctx, refs, until, made), nil)
	retiredWithIdentity(t, f, until)
	r := ref(number(store.Reserved))
	refused(t, f, "Retire of a reserved one again", store.ErrState, func() error { return f.Retire(ctx, [][]byte{r}, until.Add(time.Hour), made) })
	check(t, "Retire of none", f.Retire(ctx, nil, until, made), nil)
	check(t, "Consume", f.Consume(ctx, r, []byte("w"), made), nil)
	state(t, f, r, store.Consumed, false)

	// A retired one opens Welcomes, and is retired afterwards if it was not the one.
	a := ref(number(store.Available))
	check(t, "Reserve", reserve(t, f, a, []byte("w"), nil), nil)
	refused(t, f, "Retire of one reserved from Retired", store.ErrState, func() error { return f.Retire(ctx, [][]byte{a}, until.Add(time.Hour), made) })
	check(t, "Release", f.Release(ctx, a, []byte("w"), made), nil)
	if k := state(t, f, a, store.Retired, true); !k.RetiredUntil.Equal(until) {
		t.Errorf("retired until %v, want %v", k.RetiredUntil, until)
	}
}

// A lifetime that is over does not begin anew, whatever opens or retires the key package.
func retiringWhatExpired(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, r := t.Context(), ref(number(store.Expired))
	oneOfEachState(t, f)
	check(t, "Reserve", reserve(t, f, r, []byte("w"), nil), nil)
	refused(t, f, "Retire of one reserved from Expired", store.ErrState, func() error {
		return f.Retire(ctx, [][]byte{r}, made.Add(1000*time.Hour), made)
	})
	_, err := f.RetireIdentity(ctx, "alice", made.Add(1000*time.Hour), made)
	check(t, "RetireIdentity", err, nil)
	check(t, "Release", f.Release(ctx, r, []byte("w"), made), nil)
	state(t, f, r, store.Expired, true)
	_, err = f.Sweep(ctx, made.Add(2*time.Hour), time.Hour)
	check(t, "Sweep", err, nil)
	state(t, f, r, store.Erased, false)
}

func keepingTheLeaf(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	b := batch(1, 3)
	b[2].LastResort = true
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, b), nil)
	leaf := func(n uint64, s store.State, sealed, leaf string) {
		t.Helper()
		state(t, f, ref(n), s, sealed != "")
		keys(t, f, n, sealed, leaf, "k1")
	}
	refused(t, f, "EraseLeaf of an unknown one", store.ErrNotFound, func() error { return f.EraseLeaf(ctx, ref(9), made) })
	refused(t, f, "EraseLeaf of one that is not consumed", store.ErrState, func() error { return f.EraseLeaf(ctx, ref(1), made) })
	got, err := f.Reserve(ctx, store.Reservation{Ref: ref(1), Digest: []byte("w"), Leaf: []byte("leaf"), LeafUnder: []byte("k1"), Until: made.Add(time.Hour), Now: made})
	check(t, "Reserve", err, nil)
	if string(got.Leaf) != "leaf" || string(got.Sealed) != "sealed" {
		t.Errorf("Reserve() = %+v, want it with its leaf", got)
	}
	refused(t, f, "EraseLeaf of a reserved one", store.ErrState, func() error { return f.EraseLeaf(ctx, ref(1), made) })
	check(t, "Reserve with another leaf", reserve(t, f, ref(1), []byte("w"), []byte("other")), nil)
	leaf(1, store.Reserved, "sealed", "other")
	check(t, "Release", f.Release(ctx, ref(1), []byte("w"), made), nil)
	leaf(1, store.Available, "sealed", "")
	check(t, "Reserve", reserve(t, f, ref(1), []byte("w"), []byte("leaf")), nil)
	check(t, "Consume", f.Consume(ctx, ref(1), []byte("w"), made), nil)
	leaf(1, store.Consumed, "", "leaf")
	for range 2 { // the second time changes nothing
		check(t, "EraseLeaf", f.EraseLeaf(ctx, ref(1), made), nil)
		leaf(1, store.Consumed, "", "")
	}
	check(t, "Reserve", reserve(t, f, ref(2), []byte("w"), nil), nil)
	check(t, "Consume", f.Consume(ctx, ref(2), []byte("w"), made), nil)
	leaf(2, store.Consumed, "", "")
	check(t, "Reserve of a last resort", reserve(t, f, ref(3), []byte("w"), []byte("leaf")), nil)
	check(t, "Consume", f.Consume(ctx, ref(3), []byte("w"), made), nil)
	leaf(3, store.Available, "sealed", "")

	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(10, 1)), nil)
	check(t, "Reserve", reserve(t, f, ref(10), []byte("w"), []byte("leaf")), nil)
	_, err = f.Sweep(ctx, made.Add(time.Hour), time.Hour) // its reservation ends
	check(t, "Sweep", err, nil)
	leaf(10, store.Available, "sealed", "")
}

// A key package that was not consumed is erased when its grace is over, and not before.
func sweepingWithGrace(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	const grace = time.Hour
	end := made.Add(10 * time.Minute)
	b := batch(1, 7)
	for i := range b[:4] {
		b[i].NotAfter = end
		b[i].State = []store.State{store.Pending, store.Available, store.Published, store.Available}[i]
	}
	b[3].LastResort = true
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, b), nil)
	check(t, "Retire", f.Retire(ctx, [][]byte{ref(5), ref(6)}, end, made), nil)
	_, err := f.Reserve(ctx, reservation(ref(6), []byte("w"), end.Add(2*time.Second), made))
	check(t, "Reserve", err, nil)
	sweep := func(at time.Time, want store.Swept) {
		t.Helper()
		got, err := f.Sweep(ctx, at, grace)
		if err != nil || got != want {
			t.Errorf("Sweep() after %v = %+v, %v, want %+v", at.Sub(made), got, err, want)
		}
	}
	sweep(end.Add(-time.Second), store.Swept{})
	state(t, f, ref(5), store.Retired, true)
	sweep(end, store.Swept{Erased: 1}) // the last second of the lifetimes
	if k := state(t, f, ref(5), store.Erased, false); !k.ErasedAt.Equal(end) {
		t.Errorf("erased at %v, want %v", k.ErasedAt, end)
	}
	sweep(end.Add(time.Second), store.Swept{Expired: 4})
	for n := uint64(1); n <= 4; n++ {
		state(t, f, ref(n), store.Expired, true)
	}
	state(t, f, ref(6), store.Reserved, true) // a reservation goes first
	sweep(end.Add(2*time.Second), store.Swept{Released: 1, Erased: 1})
	state(t, f, ref(6), store.Erased, false)

	// An expired one opens a late Welcome.
	_, err = f.Reserve(ctx, reservation(ref(1), []byte("w"), end.Add(2*grace), end))
	check(t, "Reserve of an expired one", err, nil)
	_, err = f.Reserve(ctx, reservation(ref(4), []byte("w"), end.Add(2*grace), end))
	check(t, "Reserve of an expired last resort", err, nil)
	check(t, "Consume", f.Consume(ctx, ref(4), []byte("w"), end), nil)
	state(t, f, ref(4), store.Expired, true)
	sweep(end.Add(grace), store.Swept{})
	sweep(end.Add(grace+time.Second), store.Swept{Erased: 3})
	state(t, f, ref(1), store.Reserved, true)
	check(t, "Consume", f.Consume(ctx, ref(1), []byte("w"), end), nil)
	state(t, f, ref(1), store.Consumed, false)
	for n := uint64(2); n <= 4; n++ {
		state(t, f, ref(n), store.Erased, false)
	}
	state(t, f, ref(7), store.Available, true)
	sweep(end.Add(3*grace), store.Swept{})
}

// Sweeps of several processes do each thing once.
func sweepingAtOnce(t *testing.T, f *fixture) {
	furnish(t, f)
	const n = 300
	b := batch(0, n)
	for i := range b {
		b[i].NotAfter = made
	}
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), b), nil)
	other := f.again()
	defer other.Close()
	swept := make([]store.Swept, 4)
	var wg sync.WaitGroup
	for i := range swept {
		s := []store.Store{f, other}[i%2]
		wg.Go(func() {
			var err error
			if swept[i], err = s.Sweep(t.Context(), made.Add(time.Hour), 0); err != nil {
				t.Errorf("Sweep() err = %v, want nil", err)
			}
		})
	}
	wg.Wait()
	var sum store.Swept
	for _, s := range swept {
		sum.Expired, sum.Erased = sum.Expired+s.Expired, sum.Erased+s.Erased
	}
	if sum != (store.Swept{Expired: n, Erased: n}) {
		t.Errorf("the sweeps did %+v, want each of %d once", sum, n)
	}
}

func stock(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	check(t, "AddIdentity", f.AddIdentity(ctx, identity("bob")), nil)
	oneOfEachState(t, f)
	b := batch(100, 5)
	b[0].LastResort, b[1].LastResort = true, true
	b[2].Version = 2
	b[3].Identity = "bob"
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, b), nil)
	want := map[store.Stock]bool{
		{Version: 1, State: store.Available, LastResort: true, Custody: b[0].Custody, Count: 2}: true,
		{Version: 2, State: store.Available, Custody: b[0].Custody, Count: 1}:                   true,
	}
	for _, s := range store.States {
		line := store.Stock{Version: 1, State: s, Custody: b[0].Custody, Count: 1}
		if s == store.Available {
			line.Count = 2
		}
		want[line] = true
	}
	got, err := f.Stock(ctx, "alice")
	check(t, "Stock", err, nil)
	for _, line := range got {
		if !want[line] {
			t.Errorf("Stock() has %+v", line)
		}
		delete(want, line)
	}
	if len(want) > 0 {
		t.Errorf("Stock() lacks %v", want)
	}
	if got, err := f.Stock(ctx, "nobody"); err != nil || len(got) != 0 {
		t.Errorf("Stock(nobody) = %v, %v, want nothing", got, err)
	}
}

func filters(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	check(t, "AddIdentity", f.AddIdentity(ctx, identity("bob")), nil)
	check(t, "AddWrappingKey", f.AddWrappingKey(ctx, spare("k2", store.Seal)), nil)
	var want []store.KeyPackage
	for i := range uint64(1200) { // more than any page
		k := keyPackage(ref(i * 7919 % 1201))
		k.LastResort = i%2 == 0
		if i%3 == 0 {
			k.Identity = "bob"
		}
		if i%5 == 0 {
			k.State = store.Published
		}
		if i%4 == 0 {
			k.WrappingKeyID = []byte("k2")
		}
		want = append(want, k)
	}
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, want), nil)
	for _, filter := range []store.Filter{
		{Identity: "alice", LastResort: true},
		{Identity: "bob", LastResort: true, State: store.Published},
		{Identity: "nobody", LastResort: true},
		{WrappingKeyID: []byte("k1")},
		{WrappingKeyID: []byte("k2")},
		{WrappingKeyID: []byte("k9")},
	} {
		fits := slices.DeleteFunc(slices.Clone(want), func(k store.KeyPackage) bool {
			return filter.Identity != "" && k.Identity != filter.Identity || filter.State != "" && k.State != filter.State ||
				filter.LastResort && !k.LastResort || filter.WrappingKeyID != nil && !bytes.Equal(k.WrappingKeyID, filter.WrappingKeyID)
		})
		if got := all(t, f, filter); !slices.EqualFunc(refsOf(got), refsOf(fits), bytes.Equal) {
			t.Errorf("KeyPackages(%+v) = %d key packages, want %d in the order they were added", filter, len(got), len(fits))
		}
	}
}
