package storetest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Backlogs: what is decided for many key packages at once, and written down one by one.

// workOff works a backlog off, n key packages at a time.
func workOff(t *testing.T, s store.Store, b store.Backlog, n int, at time.Time) store.Backlog {
	t.Helper()
	for !b.Finished() {
		var err error
		b, err = s.WorkOff(t.Context(), b.ID, n, at)
		check(t, "WorkOff", err, nil)
	}
	return b
}

// writtenDown works off a backlog and checks that it adds these entries, and that the store's
// answers are the same before and after.
func writtenDown(t *testing.T, f *fixture, b store.Backlog, at time.Time, want ...audit.Entry) {
	t.Helper()
	before := view(t, f)
	left, err := f.Left(t.Context(), b.ID)
	check(t, "Left", err, nil)
	if int(left) != len(want) {
		t.Errorf("Left() = %d, want %d", left, len(want))
	}
	recorded(t, f, "WorkOff", func() error {
		if b = workOff(t, f, b, 2, at); int(b.Moved) != len(want) || !b.FinishedAt.Equal(at) {
			t.Errorf("WorkOff() ends with %+v, want %d written down, and finished at %v", b, len(want), at)
		}
		return nil
	}, want...)
	backlogs(t, f)
	if after := view(t, f); after != before {
		t.Errorf("WorkOff changed what the store says from\n%s\nto\n%s", before, after)
	}
}

// view is what every reading method of a store says of key packages.
func view(t *testing.T, f *fixture) string {
	t.Helper()
	ctx := t.Context()
	var b strings.Builder
	list := func(what string, v any, err error) {
		check(t, what, err, nil)
		fmt.Fprintf(&b, "%s: %+v\n", what, v)
	}
	for _, name := range []string{"", "alice", "bob"} {
		counts, err := f.Count(ctx, name)
		list("Count", counts, err)
		stock, err := f.Stock(ctx, name)
		list("Stock", stock, err)
		for _, s := range append([]store.State{""}, store.States...) {
			list(fmt.Sprintf("KeyPackages of %q that are %q", name, s), all(t, f, store.Filter{Identity: name, State: s}), nil)
		}
		list("last resorts", all(t, f, store.Filter{Identity: name, LastResort: true}), nil)
		list("last resorts that are available", all(t, f, store.Filter{Identity: name, LastResort: true, State: store.Available}), nil)
	}
	for _, k := range all(t, f, store.Filter{}) {
		one, err := f.KeyPackage(ctx, k.Ref)
		list("KeyPackage", one, err)
	}
	keys, err := f.WrappingKeys(ctx)
	check(t, "WrappingKeys", err, nil)
	for _, k := range keys {
		d, err := f.Dependents(ctx, k.ID)
		list("Dependents", d, err)
		list("KeyPackages under it", all(t, f, store.Filter{WrappingKeyID: k.ID}), nil)
	}
	return b.String()
}

// backlogs checks the unfinished backlogs.
func backlogs(t *testing.T, f *fixture, want ...store.Backlog) {
	t.Helper()
	got, err := f.again().Backlogs(t.Context())
	check(t, "Backlogs", err, nil)
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("Backlogs() = %+v, want %+v", got, want)
	}
}

// rotate switches alice to her next version and writes nothing down. The grace of the versions
// before is as many hours as the number of the version.
func rotate(t *testing.T, f *fixture, number uint64) store.Backlog {
	t.Helper()
	next := version("alice", number, store.Next)
	next.StampKey = nil
	check(t, "ProposeIdentity", f.ProposeIdentity(t.Context(), next), nil)
	b, err := f.SwitchIdentity(t.Context(), "alice", number, made.Add(time.Duration(number)*time.Hour), made)
	check(t, "SwitchIdentity", err, nil)
	return b
}

// shredK1 condemns k1 with all that is under it, and writes nothing down.
func shredK1(t *testing.T, f *fixture) store.Backlog {
	t.Helper()
	b, err := f.CondemnWrappingKey(t.Context(), destruction([]byte("k1"), store.ObjectSealingKey), true)
	check(t, "CondemnWrappingKey", err, nil)
	return b
}

// Every answer says that what is in a backlog is retired, and every step that does not lead from
// that state is refused.
func aBacklogHoldsFromItsBeginning(t *testing.T, f *fixture) {
	rotated(t, f)
	ctx, at := t.Context(), made.Add(time.Minute)
	oneOfEachState(t, f)
	b := rotate(t, f, 2)
	until := made.Add(2 * time.Hour)
	retiredWithIdentity(t, f, until)
	claimed, err := f.Claim(ctx, "alice", 10, made)
	check(t, "Claim", err, nil)
	if len(claimed) != 0 {
		t.Errorf("Claim() = %+v, want nothing: it is retired", claimed)
	}
	anything := []store.State{store.Pending, store.Available, store.Published, store.Claimed}
	for _, s := range retiring {
		move := func(to store.State, from []store.State) func() error {
			return func() error { return f.Move(ctx, [][]byte{ref(number(s))}, from, to, at) }
		}
		refused(t, f, "Move to Pending of what was "+string(s), store.ErrState, move(store.Pending, anything))
		refused(t, f, "Move to Published of what was "+string(s), store.ErrState, move(store.Published, anything[1:]))
		if s != store.Reserved {
			refused(t, f, "Retire of what was "+string(s), store.ErrState, func() error { return f.Retire(ctx, [][]byte{ref(number(s))}, made, made) })
		}
	}
	refused(t, f, "AddKeyPackages of the version before", store.ErrState, func() error { return f.AddKeyPackages(ctx, batch(200, 1)) })
	backlogs(t, f, b) // refused steps wrote nothing down
	var want []audit.Entry
	for _, s := range retiring {
		want = append(want, about(ref(number(s)), audit.Retired, at, ""))
	}
	writtenDown(t, f, b, at, want...)
}

// An act on a key package of a backlog writes it down first, in the same transaction, and WorkOff
// skips it.
func whatABacklogSaysIsDone(t *testing.T, f *fixture) {
	rotated(t, f)
	ctx, at := t.Context(), made.Add(time.Minute)
	w := []byte{0xAB}
	some := batch(1, 6)
	some[0].State = store.Pending
	some[4].LastResort = true
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, some), nil)
	for _, n := range []uint64{3, 4, 5} {
		check(t, "Reserve", reserve(t, f, ref(n), w, nil), nil)
	}
	b := rotate(t, f, 2)
	recorded(t, f, "Move of one whose file was being written", func() error {
		return f.Move(ctx, [][]byte{ref(1)}, []store.State{store.Pending}, store.Published, at)
	}, about(ref(1), audit.Retired, at, ""), about(ref(1), audit.Exported, at, ""))
	if k := state(t, f, ref(1), store.Retired, true); !k.PublishedAt.Equal(at) {
		t.Errorf("it was published at %v, want %v", k.PublishedAt, at)
	}
	recorded(t, f, "Reserve", func() error { return reserve(t, f, ref(2), w, nil) },
		about(ref(2), audit.Retired, made, ""), about(ref(2), audit.Reserved, made, "Welcome ab"), about(ref(2), audit.Opened, made, "Welcome ab"))
	recorded(t, f, "Consume", func() error { return f.Consume(ctx, ref(3), w, at) },
		about(ref(3), audit.Retired, at, ""), about(ref(3), audit.Consumed, at, "Welcome ab"))
	recorded(t, f, "Release", func() error { return f.Release(ctx, ref(4), w, at) },
		about(ref(4), audit.Retired, at, ""), about(ref(4), audit.Released, at, "Welcome ab"))
	recorded(t, f, "Consume of a last resort", func() error { return f.Consume(ctx, ref(5), w, at) },
		about(ref(5), audit.Retired, at, ""), about(ref(5), audit.Consumed, at, "Welcome ab, last resort"))
	state(t, f, ref(4), store.Retired, true)
	state(t, f, ref(5), store.Retired, true)
	recorded(t, f, "WorkOff", func() error {
		if b := workOff(t, f, b, 10, at); b.Moved != 6 {
			t.Errorf("WorkOff() = %+v, want 6 written down by whomever", b)
		}
		return nil
	}, about(ref(6), audit.Retired, at, ""))
}

// Once a wrapping key is condemned with what is under it, nothing under it opens, is handed out or
// is put under another key.
func aShreddedKeyOpensNothing(t *testing.T, f *fixture) {
	rotated(t, f)
	ctx, at, w := t.Context(), made.Add(time.Minute), []byte("w")
	oneOfEachState(t, f)
	some := batch(100, 3)
	some[1].WrappingKeyID = []byte("k2")
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, some), nil)
	check(t, "AddWrappingKey", f.AddWrappingKey(ctx, spare("k3", store.Seal)), nil)
	read := rewrapped(t, f, "k3", 100, number(store.Retired))
	b := shredK1(t, f)
	for i, s := range store.States {
		r, want := ref(uint64(i)), store.Erased
		refusal := store.ErrErased
		if s == store.Consumed {
			want, refusal = s, store.ErrConsumed
		}
		if k := state(t, f, r, want, false); len(k.Leaf) != 0 || !k.ReservedUntil.IsZero() {
			t.Errorf("what was %s is %+v, want nothing left of it", s, k)
		}
		refused(t, f, "Reserve of what was "+string(s), refusal, func() error { return reserve(t, f, r, w, nil) })
		refused(t, f, "Consume of what was "+string(s), store.ErrState, func() error { return f.Consume(ctx, r, w, made) })
		refused(t, f, "Release of what was "+string(s), store.ErrState, func() error { return f.Release(ctx, r, w, made) })
		refused(t, f, "Retire of what was "+string(s), store.ErrState, func() error { return f.Retire(ctx, [][]byte{r}, made, made) })
	}
	pending := ref(number(store.Pending))
	refused(t, f, "Move of what was being written", store.ErrErased, func() error {
		return f.Move(ctx, [][]byte{pending}, []store.State{store.Pending}, store.Published, made)
	})
	claimed, err := f.Claim(ctx, "alice", 10, made)
	check(t, "Claim", err, nil)
	if len(claimed) != 1 || string(claimed[0].Ref) != string(ref(101)) {
		t.Errorf("Claim() = %+v, want the one under k2 alone", claimed)
	}
	if n, err := f.Rewrap(ctx, read, at); n != 0 || err != nil {
		t.Errorf("Rewrap() = %d, %v, want 0: what was read is erased", n, err)
	}
	keys(t, f, 100, "", "", "k1")
	d, err := f.Dependents(ctx, []byte("k1"))
	check(t, "Dependents", err, nil)
	if d != (store.Dependents{}) {
		t.Errorf("Dependents() = %+v, want nothing", d)
	}
	before := view(t, f)
	if b = workOff(t, f, b, 3, at); b.Moved != 10 {
		t.Errorf("WorkOff() = %+v, want 10 written down", b)
	}
	if after := view(t, f); after != before {
		t.Errorf("WorkOff changed what the store says from\n%s\nto\n%s", before, after)
	}
	erased := 0
	for _, e := range trail(t, f) {
		if (e.Act == audit.Erased || e.Act == audit.LeafErased) && e.Detail != "" {
			erased++
		}
	}
	if erased != 10 {
		t.Errorf("%d entries say that something was erased, want 10", erased)
	}
}

func workingOffInParts(t *testing.T, f *fixture) {
	rotated(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 7)), nil)
	_, err := f.WorkOff(t.Context(), 99, 1, made)
	check(t, "WorkOff of no backlog", err, store.ErrNotFound)
	for _, begin := range []func() store.Backlog{func() store.Backlog { return rotate(t, f, 2) }, func() store.Backlog { return shredK1(t, f) }} {
		b := begin()
		for _, want := range []uint64{3, 6, 7} {
			before := b
			b, err = f.again().WorkOff(t.Context(), b.ID, 3, made)
			check(t, "WorkOff", err, nil)
			left, err := f.Left(t.Context(), b.ID)
			check(t, "Left", err, nil)
			if b.Moved != want || left != 7-want || b.Finished() != (want == 7) {
				t.Fatalf("WorkOff() of %+v = %+v and %d left, want %d written down", before, b, left, want)
			}
		}
		again, err := f.WorkOff(t.Context(), b.ID, 3, made.Add(time.Hour))
		check(t, "WorkOff of a finished one", err, nil)
		if fmt.Sprint(again) != fmt.Sprint(b) {
			t.Errorf("WorkOff() of a finished one = %+v, want %+v", again, b)
		}
	}
}

// Several callers that work off one backlog write each key package down once.
func workingOffAtOnce(t *testing.T, f *fixture) {
	rotated(t, f)
	const many = 300
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, many)), nil)
	b := rotate(t, f, 2)
	var wg sync.WaitGroup
	for range 4 {
		s := f.again()
		wg.Go(func() {
			defer s.Close()
			if b := workOff(t, s, b, 20, made); b.Moved != many {
				t.Errorf("WorkOff() = %+v, want %d written down by all", b, many)
			}
		})
	}
	wg.Wait()
	retired := make(map[string]int)
	for _, e := range trail(t, f) {
		if e.Act == audit.Retired {
			retired[string(e.Ref)]++
		}
	}
	for r, n := range retired {
		if n != 1 {
			t.Errorf("%x was retired %d times", r, n)
		}
	}
	if len(retired) != many {
		t.Errorf("%d were retired, want %d", len(retired), many)
	}
}

// The first of several backlogs that has a key package decides for it, whichever is worked off
// first.
func backlogsFollowEachOther(t *testing.T, f *fixture) {
	rotated(t, f)
	ctx := t.Context()
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 3)), nil)
	first := rotate(t, f, 2)
	more := batch(10, 2)
	more[0].Version, more[1].Version = 2, 2
	more[1].WrappingKeyID = []byte("k2")
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, more), nil)
	shredded := shredK1(t, f)
	second := rotate(t, f, 3)
	before := view(t, f)
	for r, want := range map[uint64]store.State{1: store.Erased, 10: store.Erased, 11: store.Retired} {
		state(t, f, ref(r), want, want == store.Retired)
	}
	if k := state(t, f, ref(1), store.Erased, false); !k.RetiredUntil.Equal(made.Add(2 * time.Hour)) {
		t.Errorf("it was retired until %v, want as the first rotation says", k.RetiredUntil)
	}
	if k := state(t, f, ref(10), store.Erased, false); !k.RetiredUntil.IsZero() {
		t.Errorf("it was retired until %v, want not at all: it was erased before", k.RetiredUntil)
	}
	for _, c := range []struct {
		b    *store.Backlog
		want uint64
	}{{&second, 1}, {&shredded, 4}, {&first, 3}} {
		if *c.b = workOff(t, f, *c.b, 2, made); c.b.Moved != c.want {
			t.Errorf("WorkOff() = %+v, want %d written down", *c.b, c.want)
		}
	}
	if after := view(t, f); after != before {
		t.Errorf("WorkOff changed what the store says from\n%s\nto\n%s", before, after)
	}
	var acts []string
	for stored, err := range f.EntriesOf(ctx, ref(1)) {
		check(t, "EntriesOf", err, nil)
		acts = append(acts, string(parse(t, stored).Act))
	}
	if got, want := fmt.Sprint(acts), "[generated retired erased]"; got != want {
		t.Errorf("the trail of the first is %s, want %s", got, want)
	}
}

// A sweep first works off what an interrupted act has left.
func aSweepWorksOff(t *testing.T, f *fixture) {
	rotated(t, f)
	ctx := t.Context()
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 3)), nil)
	under := batch(10, 2)
	under[0].WrappingKeyID, under[1].WrappingKeyID = []byte("k2"), []byte("k2")
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, under), nil)
	shredK1(t, f)
	rotate(t, f, 2)
	late := made.Add(365 * 24 * time.Hour) // past grace and lifetime
	swept, err := f.Sweep(ctx, late, time.Hour)
	check(t, "Sweep", err, nil)
	if want := (store.Swept{Finished: 5, Erased: 2}); swept != want {
		t.Errorf("Sweep() = %+v, want %+v", swept, want)
	}
	backlogs(t, f)
	swept, err = f.Sweep(ctx, late, time.Hour)
	check(t, "Sweep again", err, nil)
	if swept != (store.Swept{}) {
		t.Errorf("Sweep() again = %+v, want nothing", swept)
	}
}

// The next version of a retired identity begins it anew: key packages that are added for it later
// are not retired with the earlier ones, unless the identity is retired once more.
func aBacklogHasWhatWasThere(t *testing.T, f *fixture) {
	rotated(t, f)
	ctx := t.Context()
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 2)), nil)
	next := version("alice", 2, store.Next)
	next.StampKey = nil
	check(t, "ProposeIdentity", f.ProposeIdentity(ctx, next), nil)
	ofNext := func(from uint64) {
		b := batch(from, 2)
		b[0].Version, b[1].Version = 2, 2
		check(t, "AddKeyPackages", f.AddKeyPackages(ctx, b), nil)
	}
	ofNext(10)
	first, err := f.RetireIdentity(ctx, "alice", made.Add(time.Hour), made)
	check(t, "RetireIdentity", err, nil)
	ofNext(20)
	state(t, f, ref(10), store.Retired, true)
	state(t, f, ref(20), store.Available, true)
	second, err := f.RetireIdentity(ctx, "alice", made.Add(2*time.Hour), made)
	check(t, "RetireIdentity", err, nil)
	for r, want := range map[uint64]time.Duration{1: time.Hour, 10: time.Hour, 20: 2 * time.Hour} {
		if k := state(t, f, ref(r), store.Retired, true); !k.RetiredUntil.Equal(made.Add(want)) {
			t.Errorf("key package %d is retired until %v, want %v: what was decided stays", r, k.RetiredUntil, made.Add(want))
		}
	}
	again, err := f.RetireIdentity(ctx, "alice", made.Add(4*time.Hour), made)
	check(t, "RetireIdentity", err, nil)
	if fmt.Sprint(again) != fmt.Sprint(second) {
		t.Errorf("RetireIdentity() again = %+v, want %+v", again, second)
	}
	ofNext(30)
	switched, err := f.SwitchIdentity(ctx, "alice", 2, made.Add(3*time.Hour), made)
	check(t, "SwitchIdentity", err, nil)
	claimed, err := f.Claim(ctx, "alice", 10, made)
	check(t, "Claim", err, nil)
	if len(claimed) != 2 || string(claimed[0].Ref) != string(ref(30)) {
		t.Errorf("Claim() = %+v, want the two that were made since", claimed)
	}
	if b := workOff(t, f, switched, 10, made); b.Moved != 0 {
		t.Errorf("WorkOff() of the switch = %+v, want nothing: it was retired before", b)
	}
	for b, want := range map[*store.Backlog]uint64{&first: 4, &second: 2} {
		if b := workOff(t, f, *b, 10, made); b.Moved != want {
			t.Errorf("WorkOff() = %+v, want %d written down", b, want)
		}
	}
	anew, err := f.RetireIdentity(ctx, "alice", made.Add(4*time.Hour), made)
	check(t, "RetireIdentity of one that was begun anew", err, nil)
	if k := state(t, f, ref(30), store.Retired, true); !k.RetiredUntil.Equal(made.Add(4 * time.Hour)) {
		t.Errorf("it is retired until %v, want as the last call says", k.RetiredUntil)
	}
	if b := workOff(t, f, anew, 10, made); b.Moved != 2 {
		t.Errorf("WorkOff() = %+v, want 2 written down", b)
	}
}

// An identity that was begun anew, and is retired again before the first retirement is written down,
// is retired as the last call says.
func retiringAgainWhatWasBegunAnew(t *testing.T, f *fixture) {
	rotated(t, f)
	ctx := t.Context()
	_, err := f.RetireIdentity(ctx, "alice", made.Add(time.Hour), made)
	check(t, "RetireIdentity", err, nil)
	rotate(t, f, 2)
	b := batch(1, 1)
	b[0].Version = 2
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, b), nil)
	rotate(t, f, 3)
	last, err := f.RetireIdentity(ctx, "alice", made.Add(9*time.Hour), made)
	check(t, "RetireIdentity", err, nil)
	if !last.Until.Equal(made.Add(9 * time.Hour)) {
		t.Errorf("RetireIdentity() = %+v, want it until its own time", last)
	}
	if k := state(t, f, ref(1), store.Retired, true); !k.RetiredUntil.Equal(made.Add(3 * time.Hour)) {
		t.Errorf("it is retired until %v, want as the rotation to version 3 says", k.RetiredUntil)
	}
}
