// Package storetest is the one suite of tests that every backend of package store passes.
package storetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Open returns a new, empty store and a function that opens it once more, as another process would.
// The test closes what it opens.
type Open func(t *testing.T) (s store.Store, again func() store.Store)

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, test := range map[string]func(*testing.T, *fixture){
		"identities":                          identities,
		"changing an identity":                changingAnIdentity,
		"wrapping keys":                       wrappingKeys,
		"one wrapping key is current":         oneIsCurrent,
		"key packages come back whole":        roundTrip,
		"a batch is all or nothing":           allOrNothing,
		"unknown identity or key":             unknownReferences,
		"uses are counted":                    usesAreCounted,
		"listing":                             listing,
		"listing while another adds":          listingWhileAdding,
		"listing stops when told":             listingStops,
		"finding refs":                        findingRefs,
		"publishing":                          publishing,
		"publishing is all or nothing":        publishingAllOrNothing,
		"publishing is done once":             publishingOnce,
		"reserving":                           reserving,
		"consuming":                           consuming,
		"publishing what is reserved":         publishingWhatIsReserved,
		"a last resort is not consumed":       lastResort,
		"reserving is done once":              reservingOnce,
		"handing over":                        handingOver,
		"confirming handovers":                confirmingHandovers,
		"handovers and wrapping keys":         handoversAndWrappingKeys,
		"confirming handovers is done once":   confirmingOnce,
		"listing handovers":                   listingHandovers,
		"the trail of a handover":             trailOfAHandover,
		"sweeping":                            sweeping,
		"counting":                            counting,
		"what was added survives":             survives,
		"several writers":                     severalWriters,
		"a context that ended":                endedContext,
		"slices are not shared":               slicesAreNotShared,
		"empty batch":                         emptyBatch,
		"nothing is stored as empty":          nilBlobs,
		"names and blobs of every shape":      shapes,
		"proposing a version":                 proposing,
		"changing versions":                   changingVersions,
		"changing is done once":               changingOnce,
		"switching":                           switching,
		"switching twice":                     switchingTwice,
		"retiring an identity":                retiringAnIdentity,
		"condemning a signature key":          condemningASignatureKey,
		"condemning by force":                 condemningByForce,
		"condemning a shared key":             condemningASharedKey,
		"purposes of wrapping keys":           purposes,
		"rotating wrapping keys":              rotatingWrappingKeys,
		"rewrapping":                          rewrapping,
		"rewrapping that is refused":          rewrappingRefused,
		"rewrapping what changed":             rewrappingWhatChanged,
		"dependents":                          dependents,
		"condemning a wrapping key":           condemningAWrappingKey,
		"stamps keep a wrapping key":          stampsKeepAWrappingKey,
		"shredding":                           shredding,
		"a backlog holds from its beginning":  aBacklogHoldsFromItsBeginning,
		"what a backlog says is done":         whatABacklogSaysIsDone,
		"a shredded key opens nothing":        aShreddedKeyOpensNothing,
		"working off in parts":                workingOffInParts,
		"working off at once":                 workingOffAtOnce,
		"backlogs follow each other":          backlogsFollowEachOther,
		"a sweep works off":                   aSweepWorksOff,
		"a backlog has what was there":        aBacklogHasWhatWasThere,
		"retiring what was begun anew":        retiringAgainWhatWasBegunAnew,
		"intending":                           intending,
		"intents are settled":                 intentsAreSettled,
		"one key succeeds another":            oneKeySucceedsAnother,
		"succeeding is done once":             succeedingOnce,
		"claiming":                            claiming,
		"claiming is done once":               claimingOnce,
		"entries of many at once":             entriesAtOnce,
		"dispatching":                         dispatching,
		"dispatching what lasts":              dispatchingWhatLasts,
		"dispatching a last resort":           dispatchingALastResort,
		"dispatching is done once":            dispatchingOnce,
		"acknowledging":                       acknowledging,
		"acknowledging what was overtaken":    acknowledgingWhatWasOvertaken,
		"returning":                           returning,
		"a backlog has what is on its way":    aBacklogHasWhatIsOnItsWay,
		"levels":                              levels,
		"leases":                              leases,
		"leasing is done once":                leasingOnce,
		"accounts":                            accounts,
		"moving":                              moving,
		"moving what was overtaken":           movingWhatWasOvertaken,
		"retiring key packages":               retiringKeyPackages,
		"retiring what expired":               retiringWhatExpired,
		"giving up a next version":            givingUpANextVersion,
		"a leaf under another key":            aLeafIsUnderTheKeyOfItsKeyPackage,
		"an intent settled meanwhile":         anIntentThatWasSettledMeanwhile,
		"keeping the leaf":                    keepingTheLeaf,
		"sweeping with grace":                 sweepingWithGrace,
		"sweeping at once":                    sweepingAtOnce,
		"stock":                               stock,
		"pools":                               pools,
		"endings":                             endings,
		"filters":                             filters,
		"the trail of keys":                   trailOfKeys,
		"the trail of a life":                 trailOfALife,
		"the trail of a last resort":          trailOfALastResort,
		"the trail of a sweep":                trailOfASweep,
		"the trail of what cannot be written": trailOfWhatCannotBeWritten,
		"the trail of a context that ended":   trailOfAnEndedContext,
		"actors are recorded":                 actorsAreRecorded,
		"recording":                           recording,
		"entries of a key package":            entriesOfOne,
		"entries from one on":                 entriesFrom,
		"several hands make one trail":        severalHands,
		"audit keys":                          auditKeys,
		"checkpoints":                         checkpoints,
	} {
		t.Run(name, func(t *testing.T) {
			s, again := open(t)
			test(t, &fixture{Store: s, again: again})
			trail(t, s) // which has to verify
		})
	}
}

type fixture struct {
	store.Store
	again func() store.Store
}

// made is a time in whole seconds, as a store keeps it.
var made = time.Unix(1_800_000_000, 0).UTC()

func identity(name string) store.Identity {
	return store.Identity{
		Name: name, Version: 1, State: store.Current, Suite: 2, Credential: []byte{0, 1, 5, 'a', 'l', 'i', 'c', 'e'}, SignatureKey: []byte("public key of " + name),
		KeyID: []byte("id of " + name), KeyLabel: "label of " + name, TokenSerial: "0123",
		WeakKey: true, Custody: "release", Stamp: []byte("stamp of " + name), StampKey: []byte("k1"), CreatedAt: made,
	}
}

func wrappingKey(id string) store.WrappingKey {
	return store.WrappingKey{ID: []byte(id), Purpose: store.Seal, Current: true, Label: "label of " + id, TokenSerial: "0123", Stamp: []byte("stamp of " + id), CreatedAt: made}
}

func ref(n uint64) []byte {
	r := make([]byte, 32)
	binary.BigEndian.PutUint64(r, n)
	return r
}

func keyPackage(r []byte) store.KeyPackage {
	return store.KeyPackage{
		Ref: r, Identity: "alice", Version: 1, Suite: 2, State: store.Available, Custody: "wrapped", WrappingKeyID: []byte("k1"),
		Sealed: []byte("sealed"), Public: []byte("public"), CreatedAt: made, NotBefore: made.Add(-time.Hour), NotAfter: made.Add(84 * 24 * time.Hour),
	}
}

func batch(from, n uint64) []store.KeyPackage {
	var b []store.KeyPackage
	for i := range n {
		b = append(b, keyPackage(ref(from+i)))
	}
	return b
}

// furnish adds an identity and a wrapping key for key packages to refer to.
func furnish(t *testing.T, f *fixture) {
	t.Helper()
	check(t, "AddIdentity", f.AddIdentity(t.Context(), identity("alice")), nil)
	check(t, "AddWrappingKey", f.AddWrappingKey(t.Context(), wrappingKey("k1")), nil)
}

func check(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s err = %v, want %v", what, err, want)
	}
}

func all(t *testing.T, s store.Store, f store.Filter) []store.KeyPackage {
	t.Helper()
	var out []store.KeyPackage
	for k, err := range s.KeyPackages(t.Context(), f) {
		check(t, "KeyPackages", err, nil)
		out = append(out, k)
	}
	return out
}

func identities(t *testing.T, f *fixture) {
	_, err := f.Identity(t.Context(), "alice")
	check(t, "Identity of nobody", err, store.ErrNotFound)
	for _, name := range []string{"bob", "alice"} {
		check(t, "AddIdentity", f.AddIdentity(t.Context(), identity(name)), nil)
	}
	check(t, "AddIdentity again", f.AddIdentity(t.Context(), identity("alice")), store.ErrExists)
	got, err := f.Identity(t.Context(), "alice")
	check(t, "Identity", err, nil)
	if fmt.Sprint(got) != fmt.Sprint(identity("alice")) {
		t.Errorf("Identity() = %+v, want %+v", got, identity("alice"))
	}
	list, err := f.Identities(t.Context())
	check(t, "Identities", err, nil)
	if len(list) != 2 || list[0].Name != "alice" || list[1].Name != "bob" {
		t.Errorf("Identities() = %+v, want alice and bob", list)
	}
}

func changingAnIdentity(t *testing.T, f *fixture) {
	for _, name := range []string{"alice", "bob"} {
		check(t, "AddIdentity", f.AddIdentity(t.Context(), identity(name)), nil)
	}
	was := identity("alice")
	changed := was
	changed.Credential, changed.Stamp = []byte("another credential"), []byte("another stamp")
	changed.SignatureKey = []byte("ignored")
	check(t, "ChangeIdentity of nobody", f.ChangeIdentity(t.Context(), store.Identity{Name: "carol"}, nil, made), store.ErrNotFound)
	check(t, "ChangeIdentity of another record", f.ChangeIdentity(t.Context(), changed, []byte("stamp of bob"), made), store.ErrState)
	check(t, "ChangeIdentity", f.ChangeIdentity(t.Context(), changed, was.Stamp, made), nil)
	check(t, "ChangeIdentity again", f.ChangeIdentity(t.Context(), changed, was.Stamp, made), store.ErrState)
	got, err := f.again().Identity(t.Context(), "alice")
	check(t, "Identity", err, nil)
	changed.SignatureKey = was.SignatureKey
	if fmt.Sprint(got) != fmt.Sprint(changed) {
		t.Errorf("Identity() = %+v, want %+v", got, changed)
	}
	if got, err := f.Identity(t.Context(), "bob"); err != nil || fmt.Sprint(got) != fmt.Sprint(identity("bob")) {
		t.Errorf("Identity(bob) = %+v, %v, want it unchanged", got, err)
	}
}

func wrappingKeys(t *testing.T, f *fixture) {
	_, err := f.CurrentWrappingKey(t.Context(), store.Seal)
	check(t, "CurrentWrappingKey of none", err, store.ErrNotFound)
	check(t, "AddWrappingKey", f.AddWrappingKey(t.Context(), wrappingKey("k1")), nil)
	got, err := f.CurrentWrappingKey(t.Context(), store.Seal)
	check(t, "CurrentWrappingKey", err, nil)
	want := wrappingKey("k1")
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("CurrentWrappingKey() = %+v, want %+v", got, want)
	}
}

func oneIsCurrent(t *testing.T, f *fixture) {
	for _, id := range []string{"k1", "k2"} {
		check(t, "AddWrappingKey", f.AddWrappingKey(t.Context(), wrappingKey(id)), nil)
	}
	check(t, "AddWrappingKey again", f.AddWrappingKey(t.Context(), wrappingKey("k1")), store.ErrExists)
	got, err := f.CurrentWrappingKey(t.Context(), store.Seal)
	check(t, "CurrentWrappingKey", err, nil)
	if string(got.ID) != "k2" {
		t.Errorf("CurrentWrappingKey() = %s, want k2: a refused one changes nothing", got.ID)
	}
	list, err := f.WrappingKeys(t.Context())
	check(t, "WrappingKeys", err, nil)
	if len(list) != 2 || string(list[0].ID) != "k1" || list[0].Current || !list[1].Current {
		t.Errorf("WrappingKeys() = %+v, want k1, then k2 as current", list)
	}
}

func roundTrip(t *testing.T, f *fixture) {
	furnish(t, f)
	published := keyPackage(ref(2))
	published.State, published.PublishedAt, published.LastResort = store.Published, made, true
	want := []store.KeyPackage{keyPackage(ref(1)), published}
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), want), nil)
	for _, w := range want {
		got, err := f.KeyPackage(t.Context(), w.Ref)
		check(t, "KeyPackage", err, nil)
		if fmt.Sprint(got) != fmt.Sprint(w) {
			t.Errorf("KeyPackage() = %+v, want %+v", got, w)
		}
	}
	_, err := f.KeyPackage(t.Context(), ref(3))
	check(t, "KeyPackage of an unknown ref", err, store.ErrNotFound)
}

func allOrNothing(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 3)), nil)
	check(t, "AddKeyPackages with a known ref", f.AddKeyPackages(t.Context(), append(batch(10, 3), batch(3, 1)...)), store.ErrExists)
	if got := all(t, f, store.Filter{}); len(got) != 3 {
		t.Errorf("%d key packages, want the 3 of the first batch", len(got))
	}
	key, err := f.CurrentWrappingKey(t.Context(), store.Seal)
	check(t, "CurrentWrappingKey", err, nil)
	if key.Uses != 3 {
		t.Errorf("Uses = %d, want 3", key.Uses)
	}
}

func unknownReferences(t *testing.T, f *fixture) {
	furnish(t, f)
	stranger := keyPackage(ref(1))
	stranger.Identity = "mallory"
	check(t, "AddKeyPackages of a stranger", f.AddKeyPackages(t.Context(), []store.KeyPackage{stranger}), store.ErrNotFound)
	lost := keyPackage(ref(1))
	lost.WrappingKeyID = []byte("k9")
	check(t, "AddKeyPackages under an unknown key", f.AddKeyPackages(t.Context(), []store.KeyPackage{lost}), store.ErrNotFound)
	if got := all(t, f, store.Filter{}); len(got) != 0 {
		t.Errorf("%d key packages, want none", len(got))
	}
}

func usesAreCounted(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 5)), nil)
	check(t, "AddWrappingKey", f.AddWrappingKey(t.Context(), wrappingKey("k2")), nil)
	mixed := batch(10, 4)
	mixed[0].WrappingKeyID = []byte("k2")
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), mixed), nil)
	list, err := f.WrappingKeys(t.Context())
	check(t, "WrappingKeys", err, nil)
	if list[0].Uses != 8 || list[1].Uses != 1 {
		t.Errorf("Uses = %d and %d, want 8 and 1", list[0].Uses, list[1].Uses)
	}
}

func listing(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddIdentity", f.AddIdentity(t.Context(), identity("bob")), nil)
	var want []store.KeyPackage
	for i := range uint64(1200) { // more than any page
		k := keyPackage(ref(i * 7919 % 1201))
		if i%3 == 0 {
			k.Identity = "bob"
		}
		if i%5 == 0 {
			k.State, k.PublishedAt = store.Published, made
		}
		want = append(want, k)
	}
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), want), nil)
	for _, filter := range []store.Filter{{}, {Identity: "bob"}, {State: store.Published}, {Identity: "alice", State: store.Available}, {Identity: "nobody"}} {
		fits := slices.DeleteFunc(slices.Clone(want), func(k store.KeyPackage) bool {
			return filter.Identity != "" && k.Identity != filter.Identity || filter.State != "" && k.State != filter.State
		})
		got := all(t, f, filter)
		if !slices.EqualFunc(got, fits, func(a, b store.KeyPackage) bool { return bytes.Equal(a.Ref, b.Ref) }) {
			t.Errorf("KeyPackages(%+v) = %d key packages, want %d in the order they were added", filter, len(got), len(fits))
		}
		for _, i := range []int{0, 300, len(fits) - 1} {
			if i < 0 || i >= len(fits) {
				continue
			}
			filter.After = fits[i].Ref
			if got := all(t, f, filter); !slices.EqualFunc(got, fits[i+1:], func(a, b store.KeyPackage) bool { return bytes.Equal(a.Ref, b.Ref) }) {
				t.Errorf("KeyPackages(%+v) = %d key packages, want the %d that come after number %d", filter, len(got), len(fits)-i-1, i)
			}
		}
	}
	after := store.Filter{Identity: "alice", State: store.Published, After: want[1].Ref} // which is not published
	if got := all(t, f, after); len(got) == 0 || !bytes.Equal(got[0].Ref, want[5].Ref) {
		t.Errorf("KeyPackages(%+v) do not begin with the first that fits after one that does not", after)
	}
	for _, err := range f.KeyPackages(t.Context(), store.Filter{After: ref(999999)}) {
		check(t, "KeyPackages after one that is not there", err, store.ErrNotFound)
	}
}

func listingWhileAdding(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(0, 600)), nil)
	seen := 0
	for k, err := range f.KeyPackages(t.Context(), store.Filter{}) {
		check(t, "KeyPackages", err, nil)
		seen++
		if seen%100 == 0 && seen <= 600 {
			check(t, "AddKeyPackages while listing", f.AddKeyPackages(t.Context(), batch(uint64(10000+seen), 1)), nil)
		}
		if len(k.Ref) != 32 {
			t.Fatalf("ref has %d bytes", len(k.Ref))
		}
	}
	if seen < 600 {
		t.Errorf("listed %d, want at least the 600 that were there", seen)
	}
}

func listingStops(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(0, 10)), nil)
	n := 0
	for range f.KeyPackages(t.Context(), store.Filter{}) {
		if n++; n == 3 {
			break
		}
	}
	check(t, "AddKeyPackages after a listing that was left", f.AddKeyPackages(t.Context(), batch(100, 1)), nil)
}

func findingRefs(t *testing.T, f *fixture) {
	furnish(t, f)
	long := bytes.Repeat([]byte{0xAB}, 64) // of another suite
	k := keyPackage(long)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), append(batch(0x1000, 5), k)), nil)
	for _, c := range []struct {
		lo, hi []byte
		limit  int
		want   int
	}{
		{ref(0x1000), ref(0x1004), 10, 5},
		{ref(0x1001), ref(0x1001), 10, 1},
		{ref(0x1000), ref(0x1004), 2, 2},
		{ref(0x2000), ref(0x3000), 10, 0},
		{[]byte{0xAB}, bytes.Repeat([]byte{0xFF}, 64), 10, 1},
		{[]byte{0xAB, 0xAB}, append([]byte{0xAB, 0xAB}, bytes.Repeat([]byte{0xFF}, 62)...), 10, 1},
	} {
		got, err := f.FindRefs(t.Context(), c.lo, c.hi, c.limit)
		check(t, "FindRefs", err, nil)
		if len(got) != c.want {
			t.Errorf("FindRefs(%x, %x, %d) = %d refs, want %d", c.lo, c.hi, c.limit, len(got), c.want)
		}
	}
}

func publishing(t *testing.T, f *fixture) {
	furnish(t, f)
	b := batch(1, 4)
	b[3].State = store.Pending
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), b), nil)
	fresh, any := []store.State{store.Available}, []store.State{store.Pending, store.Available, store.Published}
	check(t, "Move", f.Move(t.Context(), [][]byte{ref(1), ref(2)}, fresh, store.Published, made.Add(time.Hour)), nil)
	check(t, "Move again", f.Move(t.Context(), [][]byte{ref(2)}, fresh, store.Published, made.Add(2*time.Hour)), store.ErrState)
	check(t, "Move of a pending one", f.Move(t.Context(), [][]byte{ref(4)}, fresh, store.Published, made.Add(2*time.Hour)), store.ErrState)
	check(t, "Move whatever the state", f.Move(t.Context(), [][]byte{ref(2), ref(3), ref(4)}, any, store.Published, made.Add(2*time.Hour)), nil)
	for n, want := range map[uint64]time.Duration{1: time.Hour, 2: time.Hour, 3: 2 * time.Hour, 4: 2 * time.Hour} {
		k, err := f.KeyPackage(t.Context(), ref(n))
		check(t, "KeyPackage", err, nil)
		if k.State != store.Published || !k.PublishedAt.Equal(made.Add(want)) {
			t.Errorf("key package %d is %s at %v, want published at %v", n, k.State, k.PublishedAt, made.Add(want))
		}
	}
}

func publishingAllOrNothing(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 2)), nil)
	fresh := []store.State{store.Available}
	check(t, "Move with an unknown ref", f.Move(t.Context(), [][]byte{ref(1), ref(9)}, fresh, store.Published, made), store.ErrNotFound)
	check(t, "Move with one ref twice", f.Move(t.Context(), [][]byte{ref(1), ref(2), ref(1)}, fresh, store.Published, made), store.ErrState)
	k, err := f.KeyPackage(t.Context(), ref(1))
	check(t, "KeyPackage", err, nil)
	if k.State != store.Available || !k.PublishedAt.IsZero() {
		t.Errorf("key package is %s, want available: nothing was to change", k.State)
	}
}

// Of many callers that publish the same key package at once, one succeeds.
func publishingOnce(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 1)), nil)
	other := f.again()
	defer other.Close()
	var wins atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		s := []store.Store{f, other}[i%2]
		wg.Go(func() {
			switch err := s.Move(t.Context(), [][]byte{ref(1)}, []store.State{store.Available}, store.Published, made); {
			case err == nil:
				wins.Add(1)
			case !errors.Is(err, store.ErrState):
				t.Errorf("Move() err = %v, want %v", err, store.ErrState)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d published it, want one", wins.Load())
	}
}

func counting(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddIdentity", f.AddIdentity(t.Context(), identity("bob")), nil)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 7)), nil)
	check(t, "Move", f.Move(t.Context(), [][]byte{ref(1), ref(2)}, []store.State{store.Available}, store.Published, made), nil)
	for name, want := range map[string][2]uint64{"": {5, 2}, "alice": {5, 2}, "bob": {0, 0}} {
		got, err := f.Count(t.Context(), name)
		check(t, "Count", err, nil)
		if got[store.Available] != want[0] || got[store.Published] != want[1] || len(got) != len(store.States) {
			t.Errorf("Count(%q) = %v, want %v for each state", name, got, want)
		}
	}
}

func survives(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 3)), nil)
	other := f.again()
	defer other.Close()
	if got := all(t, other, store.Filter{}); len(got) != 3 {
		t.Errorf("opened again: %d key packages, want 3", len(got))
	}
}

// severalWriters adds from many goroutines through two openings of one store.
func severalWriters(t *testing.T, f *fixture) {
	furnish(t, f)
	other := f.again()
	defer other.Close()
	var wg sync.WaitGroup
	const writers, batches, size = 8, 5, 20
	for w := range uint64(writers) {
		s := []store.Store{f, other}[w%2]
		wg.Go(func() {
			for b := range uint64(batches) {
				if err := s.AddKeyPackages(t.Context(), batch((w*batches+b)*1000, size)); err != nil {
					t.Errorf("AddKeyPackages() err = %v, want nil", err)
				}
			}
		})
	}
	wg.Wait()
	key, err := f.CurrentWrappingKey(t.Context(), store.Seal)
	check(t, "CurrentWrappingKey", err, nil)
	if got := len(all(t, f, store.Filter{})); got != writers*batches*size || key.Uses != writers*batches*size {
		t.Errorf("%d key packages and %d uses, want %d of each", got, key.Uses, writers*batches*size)
	}
}

func endedContext(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check(t, "AddKeyPackages", f.AddKeyPackages(ctx, batch(1, 3)), context.Canceled)
	if got := all(t, f, store.Filter{}); len(got) != 0 {
		t.Errorf("%d key packages, want none", len(got))
	}
}

func slicesAreNotShared(t *testing.T, f *fixture) {
	furnish(t, f)
	b := batch(1, 1)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), b), nil)
	clear(b[0].Public)
	got, err := f.KeyPackage(t.Context(), ref(1))
	check(t, "KeyPackage", err, nil)
	if string(got.Public) != "public" {
		t.Errorf("Public = %q, want what was added", got.Public)
	}
	clear(got.Public)
	again, err := f.KeyPackage(t.Context(), ref(1))
	check(t, "KeyPackage", err, nil)
	if string(again.Public) != "public" {
		t.Errorf("Public = %q, want what was added", again.Public)
	}
}

func emptyBatch(t *testing.T, f *fixture) {
	check(t, "AddKeyPackages of none", f.AddKeyPackages(t.Context(), nil), nil)
	check(t, "Move of none", f.Move(t.Context(), nil, nil, store.Published, made), nil)
}

// nilBlobs stores key packages without private keys, such as those whose keys a device keeps.
func nilBlobs(t *testing.T, f *fixture) {
	check(t, "AddIdentity", f.AddIdentity(t.Context(), store.Identity{Name: "alice", CreatedAt: made}), nil)
	check(t, "AddWrappingKey", f.AddWrappingKey(t.Context(), wrappingKey("k1")), nil)
	k := keyPackage(ref(1))
	k.Sealed = nil
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), []store.KeyPackage{k}), nil)
	got, err := f.KeyPackage(t.Context(), k.Ref)
	check(t, "KeyPackage", err, nil)
	if len(got.Sealed) != 0 || string(got.Public) != "public" {
		t.Errorf("KeyPackage() = %+v, want it without sealed keys", got)
	}
}

func shapes(t *testing.T, f *fixture) {
	check(t, "AddWrappingKey", f.AddWrappingKey(t.Context(), wrappingKey("k1")), nil)
	for _, name := range []string{"Zoë", "a'b\"c;--", "%_", "名前", "a b"} {
		id := identity(name)
		check(t, "AddIdentity", f.AddIdentity(t.Context(), id), nil)
		k := keyPackage(make([]byte, 32))
		rand.Read(k.Ref)
		k.Identity, k.Public = name, bytes.Repeat([]byte{0, 0xFF}, 40000)
		check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), []store.KeyPackage{k}), nil)
		got := all(t, f, store.Filter{Identity: name})
		if len(got) != 1 || !bytes.Equal(got[0].Public, k.Public) || got[0].Identity != name {
			t.Errorf("KeyPackages(%q) did not return what was added", name)
		}
	}
}
