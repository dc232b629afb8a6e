package lifecycle

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// directories are the directories that key packages are sent to.
var directories = []string{"main", "other"}

// dispatch sends key packages: first those that were already on their way, then available ones.
func (w *walk) dispatch(t *rapid.T) {
	d := store.Dispatch{
		Identity: "alice", Directory: rapid.SampledFrom(directories).Draw(t, "directory"), LastResort: rapid.Bool().Draw(t, "last resort"),
		Resume: rapid.Bool().Draw(t, "resume"), N: rapid.IntRange(1, 3).Draw(t, "n"), Now: w.now, Until: w.now.Add(reservation),
	}
	var first, again []string
	for _, ref := range w.refs {
		k := w.known[ref]
		switch {
		case k.lastResort != d.LastResort || !k.notAfter.After(w.now):
		case k.state == store.Pending && k.directory == d.Directory && !k.leased.After(w.now):
			again = append(again, ref)
		case k.state == store.Available && k.free() && !d.Resume && !w.retired && k.version == w.version:
			first = append(first, ref)
		}
	}
	wanted := append(again, first...)
	wanted = wanted[:min(d.N, len(wanted))]
	dispatched, err := w.store.Dispatch(t.Context(), d)
	must(t, err)
	var got []string
	for _, k := range dispatched {
		got = append(got, string(k.Ref))
		known := w.known[string(k.Ref)]
		if k.Again != (known.state == store.Pending) {
			t.Fatalf("Dispatch() of %x says again %v, and it was %s", k.Ref, k.Again, known.state)
		}
		w.step(t, known, store.Write, store.Pending)
		known.directory, known.leased = d.Directory, d.Until
	}
	if !slices.Equal(got, wanted) {
		t.Fatalf("Dispatch() = %x, want %x", got, wanted)
	}
}

// acknowledge publishes what is on its way to a directory, and nothing else. A key package that was
// overtaken is published too, and keeps its state.
func (w *walk) acknowledge(t *rapid.T) {
	ref, k := w.pick(t)
	directory := rapid.SampledFrom(directories).Draw(t, "directory")
	err := w.store.Acknowledge(t.Context(), [][]byte{[]byte(ref)}, directory, w.now)
	switch {
	case k.state == store.Erased:
		want(t, err, store.ErrErased)
		return
	case k.directory != directory:
		want(t, err, store.ErrState)
		return
	}
	want(t, err, nil)
	w.written(k, store.Publish)
	k.leased = time.Time{}
	switch {
	case k.state == store.Pending:
		w.step(t, k, store.Publish, store.Published)
	case k.state == store.Reserved && k.from == store.Pending:
		k.from = store.Published
	}
}
