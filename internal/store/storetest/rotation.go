package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Versions of identities, and the end of identities.

// version is an identity in one of its versions.
func version(name string, number uint64, state store.VersionState) store.Identity {
	id := identity(name)
	id.Version, id.State = number, state
	if number > 1 {
		id.KeyID = fmt.Appendf(nil, "id %d of %s", number, name)
		id.SignatureKey = fmt.Appendf(nil, "public key %d of %s", number, name)
		id.Stamp = fmt.Appendf(nil, "stamp %d of %s", number, name)
	}
	return id
}

// versions checks all versions of an identity, and that Identity returns the current one.
func versions(t *testing.T, f *fixture, name string, want ...store.Identity) {
	t.Helper()
	got, err := f.again().Versions(t.Context(), name)
	check(t, "Versions", err, nil)
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("Versions() =\n%+v, want\n%+v", got, want)
	}
	for _, v := range want {
		if v.State != store.Current {
			continue
		}
		got, err := f.Identity(t.Context(), name)
		check(t, "Identity", err, nil)
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", v) {
			t.Errorf("Identity() =\n%+v, want\n%+v", got, v)
		}
	}
}

func proposing(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, next := t.Context(), version("alice", 2, store.Next)
	refused(t, f, "ProposeIdentity of nobody", store.ErrNotFound, func() error { return f.ProposeIdentity(ctx, version("bob", 2, store.Next)) })
	for _, number := range []uint64{0, 1, 3} {
		wrong := next
		wrong.Version = number
		refused(t, f, fmt.Sprint("ProposeIdentity of version ", number), store.ErrState, func() error { return f.ProposeIdentity(ctx, wrong) })
	}
	recorded(t, f, "ProposeIdentity", func() error { return f.ProposeIdentity(ctx, next) },
		audit.Entry{Time: made, Act: audit.Created, Identity: "alice", KeyID: next.KeyID, Detail: "signature key, version 2"})
	refused(t, f, "ProposeIdentity again", store.ErrExists, func() error { return f.ProposeIdentity(ctx, next) })
	versions(t, f, "alice", identity("alice"), next)
	list, err := f.Identities(ctx)
	check(t, "Identities", err, nil)
	if len(list) != 1 || list[0].Version != 1 {
		t.Errorf("Identities() = %+v, want the current version alone", list)
	}
}

// A stamp is of one version: that of another is refused.
func changingVersions(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, first, next := t.Context(), identity("alice"), version("alice", 2, store.Next)
	check(t, "ProposeIdentity", f.ProposeIdentity(ctx, next), nil)
	changed := next
	changed.Credential, changed.Stamp, changed.StampKey = []byte("another"), []byte("another stamp"), []byte("k2")
	refused(t, f, "ChangeIdentity with a stale stamp", store.ErrState, func() error { return f.ChangeIdentity(ctx, changed, []byte("stale"), made) })
	refused(t, f, "ChangeIdentity with the stamp of another version", store.ErrState, func() error { return f.ChangeIdentity(ctx, changed, first.Stamp, made) })
	unknown := changed
	unknown.Version = 3
	refused(t, f, "ChangeIdentity of an unknown version", store.ErrNotFound, func() error { return f.ChangeIdentity(ctx, unknown, next.Stamp, made) })
	at := made.Add(time.Hour)
	recorded(t, f, "ChangeIdentity of the next version", func() error { return f.ChangeIdentity(ctx, changed, next.Stamp, at) },
		audit.Entry{Time: at, Act: audit.Imported, Identity: "alice", KeyID: next.KeyID, Detail: "credential"})
	refused(t, f, "ChangeIdentity again", store.ErrState, func() error { return f.ChangeIdentity(ctx, changed, next.Stamp, made) })
	versions(t, f, "alice", first, changed)

	_, err := f.SwitchIdentity(ctx, "alice", 2, made, made)
	check(t, "SwitchIdentity", err, nil)
	restamped := first
	restamped.Stamp, restamped.StampKey = []byte("new stamp"), []byte("k3")
	recorded(t, f, "ChangeIdentity of an old version", func() error { return f.ChangeIdentity(ctx, restamped, first.Stamp, at) },
		audit.Entry{Time: at, Act: audit.Rewrapped, Identity: "alice", KeyID: []byte("k3"), Detail: "stamp of the identity"})
	restamped.State, restamped.RetiredAt = store.Old, made
	changed.State = store.Current
	versions(t, f, "alice", restamped, changed)
}

// Of many callers that change one record, one succeeds.
func changingOnce(t *testing.T, f *fixture) {
	furnish(t, f)
	other := f.again()
	defer other.Close()
	var wins atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		s := []store.Store{f, other}[i%2]
		wg.Go(func() {
			id := identity("alice")
			id.Stamp = []byte{byte(i)}
			switch err := s.ChangeIdentity(t.Context(), id, identity("alice").Stamp, made); {
			case err == nil:
				wins.Add(1)
			case !errors.Is(err, store.ErrState):
				t.Errorf("ChangeIdentity() err = %v, want %v", err, store.ErrState)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d changed it, want one", wins.Load())
	}
}

// oneOfEachState adds a key package of each state, numbered as store.States are. The reserved one was
// available before, and was reserved for "w" for an hour.
func oneOfEachState(t *testing.T, f *fixture) {
	t.Helper()
	ctx := t.Context()
	b := batch(0, uint64(len(store.States)))
	for i, s := range store.States {
		switch s {
		case store.Pending:
			b[i].State = s
		case store.Expired:
			b[i].NotAfter = made.Add(-time.Second)
		}
	}
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, b), nil)
	for i, s := range store.States {
		r := ref(uint64(i))
		switch s {
		case store.Published:
			check(t, "Move", f.Move(ctx, [][]byte{r}, []store.State{store.Available}, s, made), nil)
		case store.Reserved:
			check(t, "Reserve", reserve(t, f, r, []byte("w"), []byte("leaf")), nil)
		case store.Consumed:
			check(t, "Reserve", reserve(t, f, r, []byte("w"), []byte("leaf")), nil)
			check(t, "Consume", f.Consume(ctx, r, []byte("w"), made), nil)
		case store.Retired:
			check(t, "Retire", f.Retire(ctx, [][]byte{r}, made.Add(time.Hour), made), nil)
		case store.Erased:
			check(t, "Retire", f.Retire(ctx, [][]byte{r}, made, made), nil)
		case store.Claimed: // the oldest available one goes first
			check(t, "Reserve", reserve(t, f, ref(1), []byte("v"), nil), nil)
			claimed, err := f.Claim(ctx, "alice", 1, made)
			check(t, "Claim", err, nil)
			if len(claimed) != 1 || string(claimed[0].Ref) != string(r) {
				t.Fatalf("Claim() = %+v, want %x", claimed, r)
			}
			check(t, "Release", f.Release(ctx, ref(1), []byte("v"), made), nil)
		}
	}
	_, err := f.Sweep(ctx, made, time.Hour)
	check(t, "Sweep", err, nil)
	for i, s := range store.States {
		state(t, f, ref(uint64(i)), s, s.Open())
	}
}

// number is that of the key package that oneOfEachState put in a state.
func number(s store.State) uint64 {
	for i, other := range store.States {
		if s == other {
			return uint64(i)
		}
	}
	panic("no such state")
}

// retiring are the states that a key package is retired in.
var retiring = []store.State{store.Pending, store.Available, store.Published, store.Claimed, store.Reserved}

// retiredWithIdentity checks what is left of oneOfEachState once alice was retired.
func retiredWithIdentity(t *testing.T, f *fixture, until time.Time) {
	t.Helper()
	for _, s := range retiring {
		want := store.Retired
		if s == store.Reserved {
			want = store.Reserved
		}
		if k := state(t, f, ref(number(s)), want, true); !k.RetiredUntil.Equal(until) {
			t.Errorf("the %s one is retired until %v, want %v", s, k.RetiredUntil, until)
		}
	}
	if k := state(t, f, ref(number(store.Retired)), store.Retired, true); !k.RetiredUntil.Equal(made.Add(time.Hour)) {
		t.Errorf("what was retired is so until %v now, want it unchanged", k.RetiredUntil)
	}
	for _, s := range []store.State{store.Expired, store.Erased, store.Consumed} {
		state(t, f, ref(number(s)), s, s.Open())
	}
}

func switching(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, next := t.Context(), version("alice", 2, store.Next)
	oneOfEachState(t, f)
	check(t, "AddIdentity", f.AddIdentity(ctx, identity("bob")), nil)
	check(t, "ProposeIdentity", f.ProposeIdentity(ctx, next), nil)
	others := batch(100, 2)
	others[0].Version, others[1].Identity = 2, "bob"
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, others), nil)
	until, at := made.Add(48*time.Hour), made.Add(time.Minute)
	change := func(name string, number uint64) func() error {
		return func() error { _, err := f.SwitchIdentity(ctx, name, number, until, at); return err }
	}
	refused(t, f, "SwitchIdentity of nobody", store.ErrNotFound, change("carol", 2))
	refused(t, f, "SwitchIdentity to the current version", store.ErrState, change("alice", 1))
	refused(t, f, "SwitchIdentity to a version that there is not", store.ErrState, change("alice", 3))
	refused(t, f, "SwitchIdentity without a next version", store.ErrState, change("bob", 2))

	var b store.Backlog
	recorded(t, f, "SwitchIdentity", func() (err error) {
		b, err = f.SwitchIdentity(ctx, "alice", 2, until, at)
		return err
	}, audit.Entry{Time: at, Act: audit.Rotated, Identity: "alice", KeyID: next.KeyID, Detail: "signature key, version 2"})
	backlogs(t, f, store.Backlog{ID: b.ID, Step: store.Retire, Identity: "alice", Version: 2, Until: until, BegunAt: at})
	retiredWithIdentity(t, f, until)
	var want []audit.Entry
	for _, s := range retiring {
		want = append(want, about(ref(number(s)), audit.Retired, at, ""))
	}
	writtenDown(t, f, b, at, want...)
	refused(t, f, "SwitchIdentity again", store.ErrState, change("alice", 2))

	first := version("alice", 1, store.Old)
	first.RetiredAt, next.State = at, store.Current
	versions(t, f, "alice", first, next)
	versions(t, f, "bob", identity("bob"))
	retiredWithIdentity(t, f, until)
	state(t, f, ref(100), store.Available, true)
	state(t, f, ref(101), store.Available, true)

	r := ref(number(store.Reserved))
	check(t, "Release", f.Release(ctx, r, []byte("w"), at), nil)
	if k := state(t, f, r, store.Retired, true); !k.RetiredUntil.Equal(until) {
		t.Errorf("released, it is retired until %v, want %v", k.RetiredUntil, until)
	}
}

// Each switch retires what the version before it signed, and no more.
func switchingTwice(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 3)), nil)
	check(t, "Reserve", reserve(t, f, ref(3), []byte("w"), nil), nil)
	for n := uint64(2); n <= 3; n++ {
		check(t, "ProposeIdentity", f.ProposeIdentity(ctx, version("alice", n, store.Next)), nil)
		b, err := f.SwitchIdentity(ctx, "alice", n, made.Add(time.Duration(n)*time.Hour), made)
		check(t, "SwitchIdentity", err, nil)
		if retired, want := workOff(t, f, b, 2, made).Moved, 5-n; retired != want { // three, then two
			t.Errorf("SwitchIdentity(%d) retired %d, want %d", n, retired, want)
		}
		more := batch(n*10, 2)
		for i := range more {
			more[i].Version = n
		}
		check(t, "AddKeyPackages", f.AddKeyPackages(ctx, more), nil)
	}
	for r, want := range map[uint64]time.Duration{1: 2 * time.Hour, 3: 2 * time.Hour, 20: 3 * time.Hour} {
		k, err := f.KeyPackage(ctx, ref(r))
		check(t, "KeyPackage", err, nil)
		if !k.RetiredUntil.Equal(made.Add(want)) {
			t.Errorf("key package %d is retired until %v, want %v", r, k.RetiredUntil, made.Add(want))
		}
	}
	state(t, f, ref(30), store.Available, true)
}

func retiringAnIdentity(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := t.Context()
	oneOfEachState(t, f)
	check(t, "AddIdentity", f.AddIdentity(ctx, identity("bob")), nil)
	theirs := batch(100, 1)
	theirs[0].Identity = "bob"
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, theirs), nil)
	until, at := made.Add(48*time.Hour), made.Add(time.Minute)
	var b store.Backlog
	retire := func(name string, until, at time.Time) func() error {
		return func() (err error) {
			b, err = f.RetireIdentity(ctx, name, until, at)
			return err
		}
	}
	refused(t, f, "RetireIdentity of nobody", store.ErrNotFound, retire("carol", until, at))
	recorded(t, f, "RetireIdentity", retire("alice", until, at), audit.Entry{Time: at, Act: audit.Retired, Identity: "alice", KeyID: []byte("id of alice")})
	first := store.Backlog{ID: b.ID, Step: store.Retire, Identity: "alice", Until: until, BegunAt: at}
	backlogs(t, f, first)
	retiredWithIdentity(t, f, until)
	recorded(t, f, "RetireIdentity again", retire("alice", until.Add(time.Hour), at.Add(time.Hour)))
	backlogs(t, f, first)
	var want []audit.Entry
	for _, s := range retiring {
		want = append(want, about(ref(number(s)), audit.Retired, at, ""))
	}
	writtenDown(t, f, b, at, want...)
	recorded(t, f, "RetireIdentity once more", retire("alice", until.Add(time.Hour), at.Add(time.Hour)))
	writtenDown(t, f, b, at)
	retiredWithIdentity(t, f, until)
	alice := identity("alice")
	alice.RetiredAt = at
	versions(t, f, "alice", alice)
	versions(t, f, "bob", identity("bob"))
	state(t, f, ref(100), store.Available, true)
	refused(t, f, "AddKeyPackages of one that is retired", store.ErrState, func() error {
		b := batch(200, 2)
		b[0].Identity = "bob"
		return f.AddKeyPackages(ctx, b)
	})
}

// destruction is the intent to destroy a key.
func destruction(id []byte, o store.Object) store.Intent {
	return store.Intent{KeyID: id, Object: o, TokenSerial: "0123", Destroy: true, Stamp: []byte("stamp"), CreatedAt: made}
}

// A next version is given up with its key. Its number is not reused.
func givingUpANextVersion(t *testing.T, f *fixture) {
	furnish(t, f)
	next := version("alice", 2, store.Next)
	check(t, "ProposeIdentity", f.ProposeIdentity(t.Context(), next), nil)
	check(t, "CondemnSignatureKey", f.CondemnSignatureKey(t.Context(), "alice", 2, false, destruction(next.KeyID, store.ObjectSignatureKey)), nil)
	_, err := f.SwitchIdentity(t.Context(), "alice", 2, made, made)
	check(t, "SwitchIdentity to what was given up", err, store.ErrState)
	check(t, "CondemnSignatureKey again, as after a crash", f.CondemnSignatureKey(t.Context(), "alice", 2, false, destruction(next.KeyID, store.ObjectSignatureKey)), nil)
	check(t, "ProposeIdentity with a key that goes", f.ProposeIdentity(t.Context(), func() store.Identity { v := version("alice", 3, store.Next); v.KeyID = next.KeyID; return v }()), store.ErrState)
	check(t, "Settle", f.Settle(t.Context(), next.KeyID, made), nil)
	check(t, "ProposeIdentity with its number", f.ProposeIdentity(t.Context(), next), store.ErrState)
	check(t, "ProposeIdentity with the next one", f.ProposeIdentity(t.Context(), version("alice", 3, store.Next)), nil)
	_, err = f.SwitchIdentity(t.Context(), "alice", 3, made, made)
	check(t, "SwitchIdentity", err, nil)
}

// A leaf under another wrapping key than its key package would be lost.
func aLeafIsUnderTheKeyOfItsKeyPackage(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 1)), nil)
	r := store.Reservation{Ref: ref(1), Digest: []byte("w"), Leaf: []byte("leaf"), LeafUnder: []byte("k0"), Until: made.Add(time.Hour), Now: made}
	_, err := f.Reserve(t.Context(), r)
	check(t, "Reserve with a leaf under another key", err, store.ErrRewrapped)
	state(t, f, ref(1), store.Available, true)
	r.LeafUnder = []byte("k1")
	_, err = f.Reserve(t.Context(), r)
	check(t, "Reserve", err, nil)
}

// A key that a sweep took for unfinished is destroyed: no record is made with it.
func anIntentThatWasSettledMeanwhile(t *testing.T, f *fixture) {
	id := identity("alice")
	check(t, "Intend", f.Intend(t.Context(), store.Intent{KeyID: id.KeyID, Object: store.ObjectSignatureKey, TokenSerial: "0123", CreatedAt: made}), nil)
	check(t, "Settle", f.Settle(t.Context(), id.KeyID, made), nil)
	check(t, "AddIdentity", f.AddIdentity(store.WithIntent(t.Context(), id.KeyID), id), store.ErrState)
	_, err := f.Identity(t.Context(), "alice")
	check(t, "Identity", err, store.ErrNotFound)
	used, err := f.InUse(t.Context(), id.KeyID)
	check(t, "InUse", err, nil)
	check(t, "AddIdentity with a key that was there", f.AddIdentity(t.Context(), id), nil)
	usedNow, err := f.InUse(t.Context(), id.KeyID)
	check(t, "InUse", err, nil)
	if used || !usedNow {
		t.Errorf("InUse() = %v before it is recorded and %v after, want false and true", used, usedNow)
	}
}

func condemningASignatureKey(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, first := t.Context(), identity("alice")
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 1)), nil)
	condemn := func(name string, number uint64, force bool) func() error {
		return func() error {
			return f.CondemnSignatureKey(ctx, name, number, force, destruction(first.KeyID, store.ObjectSignatureKey))
		}
	}
	refused(t, f, "CondemnSignatureKey of nobody", store.ErrNotFound, condemn("carol", 1, true))
	refused(t, f, "CondemnSignatureKey of an unknown version", store.ErrNotFound, condemn("alice", 9, true))
	refused(t, f, "CondemnSignatureKey of the current version", store.ErrState, condemn("alice", 1, true))
	check(t, "ProposeIdentity", f.ProposeIdentity(ctx, version("alice", 2, store.Next)), nil)
	_, err := f.SwitchIdentity(ctx, "alice", 2, made, made)
	check(t, "SwitchIdentity", err, nil)
	refused(t, f, "CondemnSignatureKey beneath open key packages", store.ErrInUse, condemn("alice", 1, false))
	check(t, "Reserve", reserve(t, f, ref(1), []byte("w"), nil), nil)
	refused(t, f, "CondemnSignatureKey beneath a reserved key package", store.ErrInUse, condemn("alice", 1, false))
	check(t, "Consume", f.Consume(ctx, ref(1), []byte("w"), made), nil)
	check(t, "CondemnSignatureKey", condemn("alice", 1, false)(), nil)
	intents(t, f, destruction(first.KeyID, store.ObjectSignatureKey))

	at := made.Add(time.Hour)
	recorded(t, f, "Settle", func() error { return f.Settle(ctx, first.KeyID, at) },
		audit.Entry{Time: at, Act: audit.Destroyed, KeyID: first.KeyID, Detail: "signature key"})
	intents(t, f)
	first.State, first.RetiredAt, first.DestroyedAt = store.Old, made, at
	versions(t, f, "alice", first, version("alice", 2, store.Current))
	refused(t, f, "CondemnSignatureKey of a destroyed one", store.ErrState, condemn("alice", 1, true))
}

func condemningByForce(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, i := t.Context(), destruction([]byte("id of alice"), store.ObjectSignatureKey)
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 1)), nil)
	_, err := f.RetireIdentity(ctx, "alice", made.Add(time.Hour), made)
	check(t, "RetireIdentity", err, nil)
	refused(t, f, "CondemnSignatureKey of a retired identity", store.ErrInUse, func() error { return f.CondemnSignatureKey(ctx, "alice", 1, false, i) })
	check(t, "CondemnSignatureKey by force", f.CondemnSignatureKey(ctx, "alice", 1, true, i), nil)
	check(t, "Settle", f.Settle(ctx, i.KeyID, made), nil)
	state(t, f, ref(1), store.Retired, true) // it still opens Welcomes
	alice := identity("alice")
	alice.RetiredAt, alice.DestroyedAt = made, made
	versions(t, f, "alice", alice)
}

// A key that another version or identity signs with is not destroyed, even by force.
func condemningASharedKey(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, i := t.Context(), destruction([]byte("id of alice"), store.ObjectSignatureKey)
	bob, carol := identity("bob"), identity("carol")
	bob.KeyID = i.KeyID
	carol.KeyID, carol.TokenSerial = i.KeyID, "another token"
	for _, id := range []store.Identity{bob, carol} {
		check(t, "AddIdentity", f.AddIdentity(ctx, id), nil)
	}
	condemn := func() error { return f.CondemnSignatureKey(ctx, "alice", 1, true, i) }
	retire := func(name string) {
		_, err := f.RetireIdentity(ctx, name, made, made)
		check(t, "RetireIdentity", err, nil)
	}
	retire("alice")
	refused(t, f, "CondemnSignatureKey that bob signs with", store.ErrInUse, condemn)
	next := version("bob", 2, store.Next)
	next.KeyID = i.KeyID
	check(t, "ProposeIdentity", f.ProposeIdentity(ctx, next), nil)
	retire("bob")
	refused(t, f, "CondemnSignatureKey that bob will sign with", store.ErrInUse, condemn)
	_, err := f.SwitchIdentity(ctx, "bob", 2, made, made)
	check(t, "SwitchIdentity", err, nil)
	retire("bob")
	check(t, "CondemnSignatureKey once nobody signs with it", condemn(), nil)
	check(t, "Settle", f.Settle(ctx, i.KeyID, made), nil)
	for name, want := range map[string]time.Time{"alice": made, "bob": made, "carol": {}} {
		all, err := f.Versions(ctx, name)
		check(t, "Versions", err, nil)
		for _, v := range all {
			if !v.DestroyedAt.Equal(want) {
				t.Errorf("key of %s, version %d, was destroyed at %v, want %v", name, v.Version, v.DestroyedAt, want)
			}
		}
	}
}
