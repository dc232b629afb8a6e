package load

import (
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// ref is the KeyPackageRef of a suite with SHA-256.
type ref [32]byte

// store opens the fleet's store.
func (f *fleet) store() store.Store {
	f.t.Helper()
	s, err := f.on.OpenStore(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { s.Close() })
	return s
}

// trail yields the entries of a trail from a sequence on.
func trail(t testing.TB, s store.Store, from uint64) func(func(audit.Entry) bool) {
	return func(yield func(audit.Entry) bool) {
		t.Helper()
		for stored, err := range s.Entries(t.Context(), from) {
			if err != nil {
				t.Fatal(err)
			}
			e, err := audit.ParseEntry(stored.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if !yield(e) {
				return
			}
		}
	}
}

// length returns the number of entries of a trail.
func length(t testing.TB, s store.Store) (n uint64) {
	t.Helper()
	for e := range trail(t, s, 0) {
		n = e.Sequence + 1
	}
	return n
}

// checkClaims compares what clients got with the store and the trail: both must have each key
// package claimed, once, by the client that got it. It returns the key packages that were claimed
// since then and that no client got, with the claimer by the trail.
func (f *fleet) checkClaims(s store.Store, since uint64) map[ref]string {
	f.t.Helper()
	answered, claimed := f.answered(), make(map[ref]string)
	for e := range trail(f.t, s, since) {
		if e.Act != audit.Claimed {
			continue
		}
		if _, twice := claimed[ref(e.Ref)]; twice {
			f.t.Errorf("key package %x was claimed twice by the trail", e.Ref)
		}
		claimed[ref(e.Ref)] = e.Actor
	}
	free := []store.State{store.Available, store.Pending, store.Published}
	for k, err := range s.KeyPackages(f.t.Context(), store.Filter{}) {
		if err != nil {
			f.t.Fatal(err)
		}
		r := ref(k.Ref)
		if _, was := claimed[r]; was && slices.Contains(free, k.State) {
			f.t.Errorf("key package %x was claimed, and is %s", r, k.State)
		}
		if c := answered[r]; c != nil && claimed[r] != c.actor() {
			f.t.Errorf("key package %x was handed out to %s, and by the trail to %q", r, c.uri, claimed[r])
		}
		if answered[r] != nil {
			delete(answered, r)
			delete(claimed, r)
		}
	}
	for r, c := range answered {
		f.t.Errorf("key package %x, which %s got, is not in the store", r, c.uri)
	}
	return claimed
}
