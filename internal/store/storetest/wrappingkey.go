package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Rotation and the end of wrapping keys, and intents.

// spare is a wrapping key that is not current.
func spare(id string, p store.Purpose) store.WrappingKey {
	k := wrappingKey(id)
	k.Purpose, k.Current = p, false
	return k
}

// keyRecord returns the record of a wrapping key.
func keyRecord(t *testing.T, f *fixture, id string) store.WrappingKey {
	t.Helper()
	keys, err := f.again().WrappingKeys(t.Context())
	check(t, "WrappingKeys", err, nil)
	for _, k := range keys {
		if string(k.ID) == id {
			return k
		}
	}
	t.Fatalf("WrappingKeys() has no %s", id)
	return store.WrappingKey{}
}

// current checks which wrapping keys are current.
func current(t *testing.T, f *fixture, want map[store.Purpose]string) {
	t.Helper()
	for _, p := range store.Purposes {
		k, err := f.again().CurrentWrappingKey(t.Context(), p)
		if want[p] == "" {
			check(t, "CurrentWrappingKey", err, store.ErrNotFound)
			continue
		}
		check(t, "CurrentWrappingKey", err, nil)
		if string(k.ID) != want[p] || !k.Current || k.Purpose != p {
			t.Errorf("CurrentWrappingKey(%s) = %+v, want %s", p, k, want[p])
		}
	}
}

func purposes(t *testing.T, f *fixture) {
	check(t, "AddWrappingKey", f.AddWrappingKey(t.Context(), wrappingKey("s1")), nil)
	check(t, "AddWrappingKey", f.AddWrappingKey(t.Context(), spare("w1", store.Wrap)), nil)
	current(t, f, map[store.Purpose]string{store.Seal: "s1"})
	w2 := wrappingKey("w2")
	w2.Purpose, w2.Uses = store.Wrap, 7 // which are ignored
	check(t, "AddWrappingKey", f.AddWrappingKey(t.Context(), w2), nil)
	current(t, f, map[store.Purpose]string{store.Seal: "s1", store.Wrap: "w2"})
	w2.Uses = 0
	keys, err := f.WrappingKeys(t.Context())
	check(t, "WrappingKeys", err, nil)
	if want := []store.WrappingKey{wrappingKey("s1"), spare("w1", store.Wrap), w2}; fmt.Sprint(keys) != fmt.Sprint(want) {
		t.Errorf("WrappingKeys() = %+v, want %+v", keys, want)
	}
}

func rotatingWrappingKeys(t *testing.T, f *fixture) {
	ctx := t.Context()
	for _, k := range []store.WrappingKey{wrappingKey("s1"), spare("s2", store.Seal), spare("w1", store.Wrap)} {
		check(t, "AddWrappingKey", f.AddWrappingKey(ctx, k), nil)
	}
	at := made.Add(time.Hour)
	rotate := func(id string) func() error {
		return func() error { return f.RotateWrappingKey(ctx, []byte(id), at) }
	}
	refused(t, f, "RotateWrappingKey to an unknown one", store.ErrNotFound, rotate("s9"))
	recorded(t, f, "RotateWrappingKey", rotate("s2"),
		audit.Entry{Time: at, Act: audit.Rotated, KeyID: []byte("s2"), Detail: "wrapping key, to seal"})
	current(t, f, map[store.Purpose]string{store.Seal: "s2"})
	recorded(t, f, "RotateWrappingKey to the current one", rotate("s2"))
	check(t, "RotateWrappingKey", rotate("w1")(), nil)
	current(t, f, map[store.Purpose]string{store.Seal: "s2", store.Wrap: "w1"})
	_, err := f.CondemnWrappingKey(ctx, destruction([]byte("s1"), store.ObjectSealingKey), false)
	check(t, "CondemnWrappingKey", err, nil)
	refused(t, f, "RotateWrappingKey to a condemned one", store.ErrWrappingKey, rotate("s1"))
	check(t, "Settle", f.Settle(ctx, []byte("s1"), at), nil)
	refused(t, f, "RotateWrappingKey to a destroyed one", store.ErrWrappingKey, rotate("s1"))
}

// rewrapped reads key packages and puts them under another wrapping key.
func rewrapped(t *testing.T, f *fixture, to string, refs ...uint64) []store.Rewrapped {
	t.Helper()
	var out []store.Rewrapped
	for _, n := range refs {
		k, err := f.KeyPackage(t.Context(), ref(n))
		check(t, "KeyPackage", err, nil)
		r := store.Rewrapped{Ref: k.Ref, WasSealed: k.Sealed, WasLeaf: k.Leaf, WasWrappingKeyID: k.WrappingKeyID, WrappingKeyID: []byte(to)}
		if len(k.Sealed) > 0 {
			r.Sealed = fmt.Appendf(nil, "%s under %s", k.Sealed, to)
		}
		if len(k.Leaf) > 0 {
			r.Leaf = fmt.Appendf(nil, "%s under %s", k.Leaf, to)
		}
		out = append(out, r)
	}
	return out
}

// keys checks which private keys a key package has, and under which wrapping key.
func keys(t *testing.T, f *fixture, n uint64, sealed, leaf, under string) {
	t.Helper()
	k, err := f.again().KeyPackage(t.Context(), ref(n))
	check(t, "KeyPackage", err, nil)
	if string(k.Sealed) != sealed || string(k.Leaf) != leaf || string(k.WrappingKeyID) != under {
		t.Errorf("key package %d, %s, has %q and leaf %q under %s, want %q and %q under %s",
			n, k.State, k.Sealed, k.Leaf, k.WrappingKeyID, sealed, leaf, under)
	}
}

func rewrapping(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, at := t.Context(), made.Add(time.Hour)
	check(t, "AddWrappingKey", f.AddWrappingKey(ctx, spare("k2", store.Seal)), nil)
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 4)), nil)
	check(t, "Reserve", reserve(t, f, ref(2), []byte("w"), []byte("leaf")), nil)
	check(t, "Reserve", reserve(t, f, ref(3), []byte("w"), []byte("leaf")), nil)
	check(t, "Consume", f.Consume(ctx, ref(3), []byte("w"), made), nil)
	under := func(n uint64) audit.Entry {
		e := about(ref(n), audit.Rewrapped, at, "")
		e.KeyID = []byte("k2")
		return e
	}
	recorded(t, f, "Rewrap", func() error {
		n, err := f.Rewrap(ctx, rewrapped(t, f, "k2", 1, 2, 3), at)
		if n != 3 {
			t.Errorf("Rewrap() = %d, want 3", n)
		}
		return err
	}, under(1), under(2), under(3))
	keys(t, f, 1, "sealed under k2", "", "k2")
	keys(t, f, 2, "sealed under k2", "leaf under k2", "k2")
	keys(t, f, 3, "", "leaf under k2", "k2")
	keys(t, f, 4, "sealed", "", "k1")
	state(t, f, ref(1), store.Available, true)
	state(t, f, ref(2), store.Reserved, true)
	state(t, f, ref(3), store.Consumed, false)
	if k1, k2 := keyRecord(t, f, "k1"), keyRecord(t, f, "k2"); k1.Uses != 6 || k2.Uses != 3 { // two leaves were kept under k1
		t.Errorf("Uses = %d and %d, want 6 and 3", k1.Uses, k2.Uses)
	}
	check(t, "Consume", f.Consume(ctx, ref(2), []byte("w"), made), nil)
	keys(t, f, 2, "", "leaf under k2", "k2")
	recorded(t, f, "Rewrap of nothing", func() error { _, err := f.Rewrap(ctx, nil, at); return err })
}

func rewrappingRefused(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	for _, id := range []string{"k2", "k3"} {
		check(t, "AddWrappingKey", f.AddWrappingKey(ctx, spare(id, store.Seal)), nil)
	}
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 2)), nil)
	_, err := f.CondemnWrappingKey(ctx, destruction([]byte("k3"), store.ObjectSealingKey), false)
	check(t, "CondemnWrappingKey", err, nil)
	unknown := append(rewrapped(t, f, "k2", 1), rewrapped(t, f, "k2", 2)...)
	unknown[1].Ref = ref(9)
	for what, c := range map[string]struct {
		batch []store.Rewrapped
		want  error
	}{
		"an unknown ref":             {unknown, store.ErrNotFound},
		"to an unknown wrapping key": {append(rewrapped(t, f, "k2", 1), rewrapped(t, f, "k9", 2)...), store.ErrNotFound},
		"to a condemned one":         {append(rewrapped(t, f, "k2", 1), rewrapped(t, f, "k3", 2)...), store.ErrWrappingKey},
	} {
		refused(t, f, "Rewrap "+what, c.want, func() error {
			n, err := f.Rewrap(ctx, c.batch, made)
			if n != 0 {
				t.Errorf("Rewrap() %s = %d, want 0: nothing was done", what, n)
			}
			return err
		})
	}
}

// A record that changed since it was read is left as it is, and what was erased stays erased.
func rewrappingWhatChanged(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	for _, id := range []string{"k2", "k3"} {
		check(t, "AddWrappingKey", f.AddWrappingKey(ctx, spare(id, store.Seal)), nil)
	}
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 8)), nil)
	for _, n := range []uint64{1, 2, 8} {
		check(t, "Reserve", reserve(t, f, ref(n), []byte("w"), []byte("leaf")), nil)
	}
	check(t, "Consume", f.Consume(ctx, ref(2), []byte("w"), made), nil)
	read := rewrapped(t, f, "k2", 1, 2, 3, 4, 5, 6, 7, 8)

	check(t, "Consume", f.Consume(ctx, ref(1), []byte("w"), made), nil)          // 1 lost its init key
	check(t, "EraseLeaf", f.EraseLeaf(ctx, ref(2), made), nil)                   // 2 lost its leaf
	check(t, "Reserve", reserve(t, f, ref(3), []byte("w"), []byte("leaf")), nil) // 3 got a leaf
	check(t, "Retire", f.Retire(ctx, [][]byte{ref(4)}, made, made), nil)         // 4 is erased
	_, err := f.Sweep(ctx, made, time.Hour)                                      //
	check(t, "Sweep", err, nil)                                                  //
	_, err = f.Rewrap(ctx, rewrapped(t, f, "k3", 5), made)                       // 5 is under another
	check(t, "Rewrap", err, nil)                                                 //
	check(t, "Reserve", reserve(t, f, ref(6), []byte("w"), nil), nil)            // 6 changed its state alone
	check(t, "Release", f.Release(ctx, ref(8), []byte("w"), made), nil)          // 8 lost the leaf of its reservation

	recorded(t, f, "Rewrap", func() error {
		n, err := f.Rewrap(ctx, read, made)
		if n != 2 {
			t.Errorf("Rewrap() = %d, want 2: the others have changed", n)
		}
		return err
	}, audit.Entry{Time: made, Act: audit.Rewrapped, Identity: "alice", Ref: ref(6), KeyID: []byte("k2")},
		audit.Entry{Time: made, Act: audit.Rewrapped, Identity: "alice", Ref: ref(7), KeyID: []byte("k2")})
	keys(t, f, 1, "", "leaf", "k1")
	keys(t, f, 2, "", "", "k1")
	keys(t, f, 3, "sealed", "leaf", "k1")
	keys(t, f, 4, "", "", "k1")
	keys(t, f, 5, "sealed under k3", "", "k3")
	keys(t, f, 6, "sealed under k2", "", "k2")
	keys(t, f, 7, "sealed under k2", "", "k2")
	keys(t, f, 8, "sealed", "", "k1")
	if uses := keyRecord(t, f, "k2").Uses; uses != 2 {
		t.Errorf("Uses = %d, want 2: those left alone do not count", uses)
	}
}

func dependents(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	check(t, "AddWrappingKey", f.AddWrappingKey(ctx, spare("k2", store.Seal)), nil)
	b := batch(1, 5)
	b[4].WrappingKeyID = []byte("k2")
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, b), nil)
	want := func(id string, keyPackages, identities uint64) {
		t.Helper()
		got, err := f.again().Dependents(ctx, []byte(id))
		check(t, "Dependents", err, nil)
		if want := (store.Dependents{KeyPackages: keyPackages, Identities: identities}); got != want {
			t.Errorf("Dependents(%s) = %+v, want %+v", id, got, want)
		}
		listed := all(t, f, store.Filter{WrappingKeyID: []byte(id)})
		if uint64(len(listed)) != keyPackages {
			t.Errorf("KeyPackages() under %s = %d, want %d", id, len(listed), keyPackages)
		}
		for _, k := range listed {
			if string(k.WrappingKeyID) != id || len(k.Sealed)+len(k.Leaf) == 0 {
				t.Errorf("KeyPackages() under %s has %+v, want those with private keys under it", id, k)
			}
		}
	}
	want("k1", 4, 1)
	want("k2", 1, 0)
	want("k9", 0, 0)
	for _, n := range []uint64{1, 2} {
		leaf := []byte("leaf")
		if n == 2 {
			leaf = nil
		}
		check(t, "Reserve", reserve(t, f, ref(n), []byte("w"), leaf), nil)
		check(t, "Consume", f.Consume(ctx, ref(n), []byte("w"), made), nil)
	}
	want("k1", 3, 1) // 1 has its leaf
	check(t, "EraseLeaf", f.EraseLeaf(ctx, ref(1), made), nil)
	want("k1", 2, 1)
	check(t, "ProposeIdentity", f.ProposeIdentity(ctx, version("alice", 2, store.Next)), nil)
	want("k1", 2, 2)
	_, err := f.SwitchIdentity(ctx, "alice", 2, made, made)
	check(t, "SwitchIdentity", err, nil)
	want("k1", 2, 2)
	for _, v := range []store.Identity{identity("alice"), version("alice", 2, store.Current)} {
		was := v.Stamp
		v.Stamp, v.StampKey = fmt.Appendf(nil, "new stamp %d", v.Version), []byte("k2")
		check(t, "ChangeIdentity", f.ChangeIdentity(ctx, v, was, made), nil)
	}
	want("k1", 2, 0)
	want("k2", 1, 2)
	_, err = f.Rewrap(ctx, rewrapped(t, f, "k2", 3, 4), made)
	check(t, "Rewrap", err, nil)
	want("k1", 0, 0)
	want("k2", 3, 2)
}

// rotated sets up k1 and k2, of which k2 is current, and alice's stamp under k2.
func rotated(t *testing.T, f *fixture) {
	t.Helper()
	alice := identity("alice")
	alice.StampKey = []byte("k2")
	for _, id := range []string{"k1", "k2"} {
		check(t, "AddWrappingKey", f.AddWrappingKey(t.Context(), wrappingKey(id)), nil)
	}
	check(t, "AddIdentity", f.AddIdentity(t.Context(), alice), nil)
}

func condemningAWrappingKey(t *testing.T, f *fixture) {
	rotated(t, f)
	ctx := t.Context()
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 1)), nil)
	condemn := func(id string, shred bool) func() error {
		return func() error {
			b, err := f.CondemnWrappingKey(ctx, destruction([]byte(id), store.ObjectSealingKey), shred)
			if b.ID != 0 {
				t.Errorf("CondemnWrappingKey() = %+v, want no backlog", b)
			}
			return err
		}
	}
	for _, shred := range []bool{false, true} {
		refused(t, f, "CondemnWrappingKey of an unknown one", store.ErrNotFound, condemn("k9", shred))
		refused(t, f, "CondemnWrappingKey of the current one", store.ErrState, condemn("k2", shred))
	}
	refused(t, f, "CondemnWrappingKey with private keys under it", store.ErrInUse, condemn("k1", false))
	check(t, "Reserve", reserve(t, f, ref(1), []byte("w"), []byte("leaf")), nil)
	check(t, "Consume", f.Consume(ctx, ref(1), []byte("w"), made), nil)
	refused(t, f, "CondemnWrappingKey with a leaf under it", store.ErrInUse, condemn("k1", false))
	check(t, "EraseLeaf", f.EraseLeaf(ctx, ref(1), made), nil)
	check(t, "CondemnWrappingKey", condemn("k1", false)(), nil)
	intents(t, f, destruction([]byte("k1"), store.ObjectSealingKey))
	if k := keyRecord(t, f, "k1"); !k.Condemned || !k.DestroyedAt.IsZero() {
		t.Errorf("the condemned one is %+v, want it condemned and not destroyed", k)
	}
	check(t, "CondemnWrappingKey again", condemn("k1", false)(), nil)
	nothingUnder(t, f)

	at := made.Add(time.Hour)
	recorded(t, f, "Settle", func() error { return f.Settle(ctx, []byte("k1"), at) },
		audit.Entry{Time: at, Act: audit.Destroyed, KeyID: []byte("k1"), Detail: "sealing key"})
	intents(t, f)
	if k := keyRecord(t, f, "k1"); !k.Condemned || !k.DestroyedAt.Equal(at) || k.Current {
		t.Errorf("the destroyed one is %+v, want it condemned, and destroyed at %v", k, at)
	}
	nothingUnder(t, f)
	refused(t, f, "CondemnWrappingKey of a destroyed one", store.ErrWrappingKey, condemn("k1", true))
}

// nothingUnder checks that nothing can be added under k1.
func nothingUnder(t *testing.T, f *fixture) {
	t.Helper()
	ctx := t.Context()
	refused(t, f, "AddKeyPackages", store.ErrWrappingKey, func() error {
		b := batch(100, 2)
		b[0].WrappingKeyID = []byte("k2")
		return f.AddKeyPackages(ctx, b)
	})
	refused(t, f, "AddIdentity", store.ErrWrappingKey, func() error { return f.AddIdentity(ctx, identity("bob")) })
	refused(t, f, "ProposeIdentity", store.ErrWrappingKey, func() error { return f.ProposeIdentity(ctx, version("alice", 2, store.Next)) })
	refused(t, f, "ChangeIdentity", store.ErrWrappingKey, func() error {
		return f.ChangeIdentity(ctx, identity("alice"), identity("alice").Stamp, made)
	})
	refused(t, f, "RotateWrappingKey", store.ErrWrappingKey, func() error { return f.RotateWrappingKey(ctx, []byte("k1"), made) })
}

// A stamp keeps a wrapping key from being destroyed, also that of a version that does not sign, and
// also with shred.
func stampsKeepAWrappingKey(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	check(t, "AddWrappingKey", f.AddWrappingKey(ctx, wrappingKey("k2")), nil)
	condemn := func() error {
		_, err := f.CondemnWrappingKey(ctx, destruction([]byte("k1"), store.ObjectSealingKey), true)
		return err
	}
	restamp := func(v store.Identity) {
		was := v.Stamp
		v.Stamp, v.StampKey = fmt.Appendf(nil, "new stamp %d", v.Version), []byte("k2")
		check(t, "ChangeIdentity", f.ChangeIdentity(ctx, v, was, made), nil)
	}
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 1)), nil)
	refused(t, f, "CondemnWrappingKey with the stamp of a current version", store.ErrInUse, condemn)
	check(t, "ProposeIdentity", f.ProposeIdentity(ctx, version("alice", 2, store.Next)), nil)
	restamp(identity("alice"))
	refused(t, f, "CondemnWrappingKey with the stamp of a next version", store.ErrInUse, condemn)
	restamp(version("alice", 2, store.Next))
	third := version("alice", 3, store.Next)
	third.StampKey = []byte("k2")
	_, err := f.SwitchIdentity(ctx, "alice", 2, made.Add(time.Hour), made)
	check(t, "SwitchIdentity", err, nil)
	check(t, "ProposeIdentity", f.ProposeIdentity(ctx, third), nil)
	old := version("alice", 2, store.Current)
	old.Stamp, old.StampKey = []byte("back"), []byte("k1")
	check(t, "ChangeIdentity", f.ChangeIdentity(ctx, old, []byte("new stamp 2"), made), nil)
	_, err = f.SwitchIdentity(ctx, "alice", 3, made.Add(time.Hour), made)
	check(t, "SwitchIdentity", err, nil)
	refused(t, f, "CondemnWrappingKey with the stamp of an old version", store.ErrInUse, condemn)
	restamp(old)
	check(t, "CondemnWrappingKey", condemn(), nil)
}

func shredding(t *testing.T, f *fixture) {
	rotated(t, f)
	ctx, at := t.Context(), made
	oneOfEachState(t, f)
	b := batch(100, 3)
	b[0].WrappingKeyID = []byte("k2")
	b[1].LastResort = true
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, b), nil)
	check(t, "Reserve", reserve(t, f, ref(102), []byte("w"), nil), nil)
	check(t, "Consume", f.Consume(ctx, ref(102), []byte("w"), made), nil)

	const why = "its wrapping key is destroyed"
	var want []audit.Entry
	for i, s := range store.States {
		switch {
		case s == store.Consumed:
			want = append(want, about(ref(uint64(i)), audit.LeafErased, at, why))
		case s.Open():
			want = append(want, about(ref(uint64(i)), audit.Erased, at, why))
		}
	}
	want = append(want, about(ref(101), audit.Erased, at, why))
	var backlog store.Backlog
	condemn := func() (err error) {
		backlog, err = f.CondemnWrappingKey(ctx, destruction([]byte("k1"), store.ObjectSealingKey), true)
		return err
	}
	recorded(t, f, "CondemnWrappingKey", condemn, audit.Entry{Time: at, Act: audit.Condemned, KeyID: []byte("k1"), Detail: "wrapping key, to seal"})
	backlogs(t, f, store.Backlog{ID: backlog.ID, Step: store.Erase, WrappingKeyID: []byte("k1"), BegunAt: at})
	recorded(t, f, "CondemnWrappingKey again", condemn)
	check(t, "Settle", f.Settle(ctx, []byte("k1"), at), nil)
	recorded(t, f, "CondemnWrappingKey of a destroyed one", condemn)
	writtenDown(t, f, backlog, at, want...)
	check(t, "CondemnWrappingKey of a destroyed one that nothing is under", condemn(), store.ErrWrappingKey)
	for i, s := range store.States {
		end := store.Erased
		if s == store.Consumed {
			end = s
		}
		k := state(t, f, ref(uint64(i)), end, false)
		if len(k.Leaf) != 0 || end == store.Erased && !k.ErasedAt.Equal(at) || !k.ReservedUntil.IsZero() {
			t.Errorf("what was %s is %+v, want nothing left of it", s, k)
		}
	}
	keys(t, f, 100, "sealed", "", "k2")
	state(t, f, ref(100), store.Available, true)
	state(t, f, ref(101), store.Erased, false)
	state(t, f, ref(102), store.Consumed, false)
	r := ref(number(store.Reserved))
	refused(t, f, "Release of a shredded one", store.ErrState, func() error { return f.Release(ctx, r, []byte("w"), made) })
	refused(t, f, "Consume of a shredded one", store.ErrState, func() error { return f.Consume(ctx, r, []byte("w"), made) })
	refused(t, f, "Reserve of a shredded one", store.ErrErased, func() error { return reserve(t, f, r, []byte("w"), nil) })
	refused(t, f, "Reserve of a consumed one", store.ErrConsumed, func() error { return reserve(t, f, ref(102), []byte("w"), nil) })
	recorded(t, f, "Sweep", func() error {
		_, err := f.Sweep(ctx, made.Add(1000*24*time.Hour), 2000*24*time.Hour)
		return err
	}, audit.Entry{Time: made.Add(1000 * 24 * time.Hour), Act: audit.Expired, Identity: "alice", Ref: ref(100), KeyID: []byte("k2")})
}

// intents checks the unsettled intents.
func intents(t *testing.T, f *fixture, want ...store.Intent) {
	t.Helper()
	got, err := f.again().Intents(t.Context())
	check(t, "Intents", err, nil)
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("Intents() = %+v, want %+v", got, want)
	}
}

// making is the intent to make a key.
func making(id []byte, o store.Object) store.Intent {
	i := destruction(id, o)
	i.Destroy = false
	return i
}

func intending(t *testing.T, f *fixture) {
	ctx := t.Context()
	first, second := making([]byte("z"), store.ObjectSealingKey), making([]byte("a"), store.ObjectSignatureKey)
	third := destruction([]byte("m"), store.ObjectWrappingKey)
	for _, i := range []store.Intent{first, second, third} {
		check(t, "Intend", f.Intend(ctx, i), nil)
	}
	intents(t, f, first, second, third)
	refused(t, f, "Intend again", store.ErrExists, func() error { return f.Intend(ctx, making([]byte("a"), store.ObjectSealingKey)) })
	refused(t, f, "Settle of none", store.ErrNotFound, func() error { return f.Settle(ctx, []byte("b"), made) })
	at := made.Add(time.Hour)
	recorded(t, f, "Settle", func() error { return f.Settle(ctx, second.KeyID, at) },
		audit.Entry{Time: at, Act: audit.Repaired, KeyID: second.KeyID, Detail: "signature key that was begun and not recorded"})
	refused(t, f, "Settle again", store.ErrNotFound, func() error { return f.Settle(ctx, second.KeyID, at) })
	intents(t, f, first, third)
	refused(t, f, "Settle at no time", audit.ErrEntry, func() error { return f.Settle(ctx, first.KeyID, time.Time{}) })
	check(t, "Intend once it is settled", f.Intend(ctx, second), nil)
	intents(t, f, first, third, second)
}

// The act that records a key settles the intent to make it, and no other.
func intentsAreSettled(t *testing.T, f *fixture) {
	ctx := t.Context()
	next := version("alice", 2, store.Next)
	other := making([]byte("other"), store.ObjectSealingKey)
	check(t, "Intend", f.Intend(ctx, other), nil)
	for _, c := range []struct {
		what string
		id   []byte
		add  func() error
	}{
		{"AddWrappingKey", []byte("k1"), func() error { return f.AddWrappingKey(ctx, wrappingKey("k1")) }},
		{"AddIdentity", []byte("id of alice"), func() error { return f.AddIdentity(ctx, identity("alice")) }},
		{"ProposeIdentity", next.KeyID, func() error { return f.ProposeIdentity(ctx, next) }},
		{"AddAuditKey", []byte("a1"), func() error { return f.AddAuditKey(ctx, auditKey("a1")) }},
	} {
		i := making(c.id, store.ObjectSignatureKey)
		check(t, "Intend", f.Intend(ctx, i), nil)
		intents(t, f, other, i)
		check(t, c.what, c.add(), nil)
		intents(t, f, other)
		check(t, "Intend", f.Intend(ctx, i), nil)
		refused(t, f, c.what+" again", store.ErrExists, c.add) // and the intent stays
		check(t, "Settle", f.Settle(ctx, c.id, made), nil)
	}
}
