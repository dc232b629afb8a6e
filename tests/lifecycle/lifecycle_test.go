// Package lifecycle walks through the states of key packages, at random, on a real
// store, and beside it through a model made of store.Transitions.
package lifecycle

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hsm-kp/hsm-kp/audit"
	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/store/sqlite"
)

// walk is a store, its model, and what was seen of it.
type walk struct {
	*model
	path    string
	s       *sqlite.Store
	now     time.Time
	keys    []wrappingKey
	read    []store.Rewrapped // read for a rewrap that comes later
	entries uint64            // of the trail, before the step
	known   map[string]store.State
	over    map[string]store.State // of what was seen consumed or erased
	states  map[store.State]int
	wrote   bool // the step was a Move to Pending
}

type wrappingKey struct {
	id                 string
	current, condemned bool
}

// TestMain makes walks longer and fewer than rapid does, unless flags say otherwise.
func TestMain(m *testing.M) {
	flag.Set("rapid.checks", "50")
	flag.Set("rapid.steps", "100")
	flag.Parse()
	os.Exit(m.Run())
}

var start = time.Unix(1_800_000_000, 0).UTC()

// TestLifeOfKeyPackages takes random steps. It is one test for all checks of rapid, since
// together they have to reach every state and take every step.
func TestLifeOfKeyPackages(t *testing.T) {
	states, steps := make(map[store.State]int), make(map[store.Step]int)
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWalk(rt, dir, states, steps)
		defer func() { w.s.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"":           w.look,
			"add":        w.add,
			"move":       w.doMove,
			"claim":      w.doClaim,
			"reserve":    w.doReserve,
			"reserve 2":  w.doReserve, // twice as often
			"release":    w.doRelease,
			"consume":    w.doConsume,
			"erase leaf": w.doEraseLeaf,
			"retire":     w.doRetire,
			"sweep":      w.doSweep,
			"wait":       w.wait,
			"rotate":     w.rotate,
			"read":       w.readToRewrap,
			"rewrap":     w.rewrap,
			"condemn":    w.condemn,
			"reopen":     w.reopen,
		})
		w.replay()
	})
	for _, s := range store.States {
		if states[s] == 0 {
			t.Errorf("no key package was ever %s", s)
		}
	}
	for _, s := range store.Steps {
		if steps[s] == 0 {
			t.Errorf("no step was ever %s", s)
		}
	}
	t.Logf("states seen: %v; steps taken: %v", states, steps)
}

func newWalk(rt *rapid.T, dir string, states map[store.State]int, steps map[store.Step]int) *walk {
	dir, err := os.MkdirTemp(dir, "")
	if err != nil {
		rt.Fatal(err)
	}
	w := &walk{
		model: &model{rt: rt, steps: steps}, path: filepath.Join(dir, "store.db"), now: start,
		known: make(map[string]store.State), over: make(map[string]store.State), states: states,
	}
	w.open()
	w.agree("AddIdentity", w.s.AddIdentity(w.ctx(), store.Identity{Name: "alice", CreatedAt: start}), nil)
	w.rotate(rt)
	w.look(rt)
	return w
}

func (w *walk) ctx() context.Context { return store.WithActor(w.rt.Context(), "user:walker") }

func (w *walk) open() {
	var err error
	if w.s, err = sqlite.Open(context.Background(), w.path, sqlite.Options{Create: true}); err != nil {
		w.rt.Fatalf("Open() err = %v, want nil", err)
	}
}

// one draws a key package. Where there is none the step is skipped.
func (w *walk) one(rt *rapid.T) *keyPackage {
	if len(w.all) == 0 {
		rt.Skip("no key packages")
	}
	return rapid.SampledFrom(w.all).Draw(rt, "key package")
}

// some draws one to three of them, none twice.
func (w *walk) some(rt *rapid.T) (keys []*keyPackage, refs [][]byte) {
	for range rapid.IntRange(1, 3).Draw(rt, "how many") {
		if k := w.one(rt); !slices.Contains(keys, k) {
			keys, refs = append(keys, k), append(refs, k.ref)
		}
	}
	return keys, refs
}

func hours(rt *rapid.T, from, to int, what string) time.Duration {
	return time.Duration(rapid.IntRange(from, to).Draw(rt, what)) * time.Hour
}

func (w *walk) current() string {
	for _, k := range w.keys {
		if k.current {
			return k.id
		}
	}
	return ""
}

func (w *walk) add(rt *rapid.T) {
	under := rapid.SampledFrom(w.keys).Draw(rt, "wrapping key")
	if rapid.Bool().Draw(rt, "the current one") {
		under = wrappingKey{id: w.current()}
	}
	var records []store.KeyPackage
	var added []*keyPackage
	for range rapid.IntRange(1, 3).Draw(rt, "how many") {
		n := len(w.all) + len(added)
		k := &keyPackage{
			ref: []byte{byte(n >> 8), byte(n), 'r', 'e', 'f'}, under: under.id, sealed: fmt.Sprint("sealed ", n),
			state:      rapid.SampledFrom([]store.State{store.Pending, store.Available}).Draw(rt, "state"),
			lastResort: rapid.IntRange(0, 3).Draw(rt, "last resort, of four") == 0,
			notBefore:  w.now.Add(hours(rt, -3, 1, "not before")),
			notAfter:   w.now.Add(hours(rt, 1, 12, "not after")),
		}
		added = append(added, k)
		records = append(records, store.KeyPackage{
			Ref: k.ref, Identity: "alice", Version: 1, Suite: 2, State: k.state, LastResort: k.lastResort, Custody: "wrapped",
			WrappingKeyID: []byte(k.under), Sealed: []byte(k.sealed), Public: []byte("public"),
			CreatedAt: w.now, NotBefore: k.notBefore, NotAfter: k.notAfter,
		})
	}
	var want error
	if under.condemned {
		want = store.ErrWrappingKey
	}
	w.agree("AddKeyPackages", w.s.AddKeyPackages(w.ctx(), records), want)
	if want == nil {
		w.all = append(w.all, added...)
	}
}

func (w *walk) doMove(rt *rapid.T) {
	keys, refs := w.some(rt)
	from := rapid.SampledFrom([][]store.State{
		{store.Pending}, {store.Available}, {store.Published}, {store.Pending, store.Available, store.Published}, store.States,
	}).Draw(rt, "from")
	to := rapid.SampledFrom([]store.State{store.Pending, store.Published}).Draw(rt, "to")
	w.wrote = to == store.Pending
	w.agree("Move", w.s.Move(w.ctx(), refs, from, to, w.now), w.move(keys, from, to, w.now))
}

func (w *walk) doClaim(rt *rapid.T) {
	n := rapid.IntRange(0, 3).Draw(rt, "how many")
	got, err := w.s.Claim(w.ctx(), "alice", n, w.now)
	w.agree("Claim", err, nil)
	want := w.claim(n, w.now)
	if !slices.EqualFunc(got, want, func(a store.KeyPackage, b *keyPackage) bool { return bytes.Equal(a.Ref, b.ref) }) {
		rt.Fatalf("Claim() = %d key packages, want %d", len(got), len(want))
	}
}

var welcomes = []string{"w1", "w2", "w3"}

func (w *walk) doReserve(rt *rapid.T) {
	k, digest := w.one(rt), rapid.SampledFrom(welcomes).Draw(rt, "Welcome")
	leaf := ""
	if rapid.Bool().Draw(rt, "keep the leaf") {
		leaf = "leaf for " + digest
	}
	until := w.now.Add(hours(rt, 1, 4, "until"))
	got, err := w.s.Reserve(w.ctx(), store.Reservation{Ref: k.ref, Digest: []byte(digest), Leaf: []byte(leaf), Until: until, Now: w.now})
	w.agree("Reserve", err, w.reserve(k, digest, leaf, until, w.now))
	if err == nil {
		w.compare(k, &got)
		if got.Sealed == nil || w.over[string(k.ref)] != "" {
			rt.Fatalf("Reserve() = %+v, which was %s", got, w.over[string(k.ref)])
		}
	}
}

// welcome draws a Welcome, which is mostly the one that a key package is reserved for.
func (k *keyPackage) welcome(rt *rapid.T) string {
	digest := rapid.SampledFrom(welcomes).Draw(rt, "Welcome")
	if k.digest != "" && rapid.IntRange(0, 3).Draw(rt, "another, of four") > 0 {
		return k.digest
	}
	return digest
}

// reserved draws a key package that is mostly a reserved one, where there is any.
func (w *walk) reserved(rt *rapid.T) *keyPackage {
	k := w.one(rt)
	var some []*keyPackage
	for _, k := range w.all {
		if k.state == store.Reserved {
			some = append(some, k)
		}
	}
	if len(some) > 0 && rapid.IntRange(0, 3).Draw(rt, "any, of four") > 0 {
		return rapid.SampledFrom(some).Draw(rt, "reserved")
	}
	return k
}

func (w *walk) doRelease(rt *rapid.T) {
	k := w.reserved(rt)
	digest := k.welcome(rt)
	w.agree("Release", w.s.Release(w.ctx(), k.ref, []byte(digest), w.now), w.release(k, digest))
}

func (w *walk) doConsume(rt *rapid.T) {
	k := w.reserved(rt)
	digest := k.welcome(rt)
	w.agree("Consume", w.s.Consume(w.ctx(), k.ref, []byte(digest), w.now), w.consume(k, digest))
}

func (w *walk) doEraseLeaf(rt *rapid.T) {
	k := w.one(rt)
	w.agree("EraseLeaf", w.s.EraseLeaf(w.ctx(), k.ref, w.now), w.eraseLeaf(k))
}

func (w *walk) doRetire(rt *rapid.T) {
	keys, refs := w.some(rt)
	until := w.now.Add(hours(rt, 0, 6, "until"))
	w.agree("Retire", w.s.Retire(w.ctx(), refs, until, w.now), w.retire(keys, until))
}

func (w *walk) doSweep(rt *rapid.T) {
	grace := hours(rt, 0, 6, "grace")
	got, err := w.s.Sweep(w.ctx(), w.now, grace)
	w.agree("Sweep", err, nil)
	if want := w.sweep(w.now, grace); got != want {
		rt.Fatalf("Sweep() = %+v, want %+v", got, want)
	}
}

func (w *walk) wait(rt *rapid.T) { w.now = w.now.Add(hours(rt, 1, 5, "wait")) }

// rotate makes a new wrapping key the current one, or one that was before.
func (w *walk) rotate(rt *rapid.T) {
	n := len(w.keys)
	if n > 0 && rapid.Bool().Draw(rt, "back") {
		n = rapid.IntRange(0, n-1).Draw(rt, "wrapping key")
	}
	if n < len(w.keys) {
		var want error
		if w.keys[n].condemned {
			want = store.ErrWrappingKey
		}
		w.agree("RotateWrappingKey", w.s.RotateWrappingKey(w.ctx(), []byte(w.keys[n].id), w.now), want)
		if want != nil {
			return
		}
	} else {
		w.keys = append(w.keys, wrappingKey{id: fmt.Sprint("k", n)})
		w.agree("AddWrappingKey", w.s.AddWrappingKey(w.ctx(), store.WrappingKey{ID: []byte(w.keys[n].id), Purpose: store.Seal, Current: true, CreatedAt: w.now}), nil)
	}
	for i := range w.keys {
		w.keys[i].current = i == n
	}
}

// readToRewrap reads what a rewrap will be about. Other steps may come in between.
func (w *walk) readToRewrap(rt *rapid.T) {
	from := rapid.SampledFrom(w.keys).Draw(rt, "from").id
	to := rapid.SampledFrom(w.keys).Draw(rt, "to").id
	w.read = nil
	for k, err := range w.s.KeyPackages(w.ctx(), store.Filter{WrappingKeyID: []byte(from)}) {
		w.agree("KeyPackages", err, nil)
		r := store.Rewrapped{Ref: k.Ref, WasSealed: k.Sealed, WasLeaf: k.Leaf, WasWrappingKeyID: k.WrappingKeyID, WrappingKeyID: []byte(to)}
		if len(k.Sealed) > 0 {
			r.Sealed = fmt.Appendf(nil, "%s, %s", k.Sealed, to)
		}
		if len(k.Leaf) > 0 {
			r.Leaf = fmt.Appendf(nil, "%s, %s", k.Leaf, to)
		}
		w.read = append(w.read, r)
	}
}

func (w *walk) rewrap(rt *rapid.T) {
	if len(w.read) == 0 {
		w.readToRewrap(rt)
	}
	var want error
	var moved uint64
	for _, key := range w.keys {
		if len(w.read) > 0 && key.condemned && key.id == string(w.read[0].WrappingKeyID) {
			want = store.ErrWrappingKey
		}
	}
	for _, r := range w.read {
		for _, k := range w.all {
			if want == nil && bytes.Equal(k.ref, r.Ref) && k.sealed == string(r.WasSealed) && k.leaf == string(r.WasLeaf) && k.under == string(r.WasWrappingKeyID) {
				k.sealed, k.leaf, k.under = string(r.Sealed), string(r.Leaf), string(r.WrappingKeyID)
				moved++
			}
		}
	}
	got, err := w.s.Rewrap(w.ctx(), w.read, w.now)
	w.agree("Rewrap", err, want)
	if got != moved {
		rt.Fatalf("Rewrap() = %d, want %d", got, moved)
	}
	w.read = nil
}

func (w *walk) condemn(rt *rapid.T) {
	// A key whose time has come has been rotated away, mostly.
	n := rapid.IntRange(0, len(w.keys)-1).Draw(rt, "wrapping key")
	shred := rapid.Bool().Draw(rt, "shred")
	key := &w.keys[n]
	under := 0
	for _, k := range w.all {
		if k.under == key.id && k.sealed+k.leaf != "" {
			under++
		}
	}
	var want error
	switch {
	case key.condemned:
		want = store.ErrWrappingKey // it is destroyed
	case key.current:
		want = store.ErrState
	case under > 0 && !shred:
		want = store.ErrInUse
	}
	i := store.Intent{KeyID: []byte(key.id), Object: store.ObjectSealingKey, Destroy: true, CreatedAt: w.now}
	got, err := w.s.CondemnWrappingKey(w.ctx(), i, shred)
	w.agree("CondemnWrappingKey", err, want)
	if err != nil {
		return
	}
	key.condemned = true
	if want := w.shred(key.id, w.now); got != want {
		rt.Fatalf("CondemnWrappingKey() = %d, want %d", got, want)
	}
	w.agree("Settle", w.s.Settle(w.ctx(), i.KeyID, w.now), nil)
}

func (w *walk) reopen(*rapid.T) {
	w.agree("Close", w.s.Close(), nil)
	w.open()
}

// look compares the store with the model, and what has changed with store.Transitions.
func (w *walk) look(rt *rapid.T) {
	steps := w.newSteps()
	seen := 0
	for got, err := range w.s.KeyPackages(w.ctx(), store.Filter{}) {
		w.agree("KeyPackages", err, nil)
		if seen == len(w.all) {
			rt.Fatalf("the store has %x, and the model has not", got.Ref)
		}
		k := w.all[seen]
		seen++
		w.compare(k, &got)
		w.checkChange(&got, steps[string(got.Ref)])
		w.checkEnd(&got)
		w.known[string(got.Ref)] = got.State
		w.states[got.State]++
	}
	if seen != len(w.all) {
		rt.Fatalf("the store has %d key packages, want %d", seen, len(w.all))
	}
	w.wrote = false
}

// newSteps returns the steps that the trail has of each key package since it was looked at.
func (w *walk) newSteps() map[string][]store.Step {
	steps := make(map[string][]store.Step)
	for stored, err := range w.s.Entries(w.ctx(), w.entries) {
		w.agree("Entries", err, nil)
		e, err := audit.ParseEntry(stored.Bytes)
		w.agree("ParseEntry", err, nil)
		w.entries++
		if step, ok := stepOf[e.Act]; ok {
			steps[string(e.Ref)] = append(steps[string(e.Ref)], step)
		}
	}
	return steps
}

// checkChange checks that steps lead from the state that a key package had to the one that
// it has.
func (w *walk) checkChange(got *store.KeyPackage, steps []store.Step) {
	was, known := w.known[string(got.Ref)]
	if !known || was == got.State && len(steps) == 0 {
		return
	}
	if w.wrote {
		steps = append(steps, store.Write)
	}
	reached := []store.State{was}
	for _, step := range steps {
		var next []store.State
		for _, from := range reached {
			if step == store.Publish && slices.Contains(overtaken, from) {
				next = append(next, from)
			}
			for _, to := range store.States {
				if store.Allowed(from, step, to) {
					next = append(next, to)
				}
			}
		}
		reached = next
	}
	if !slices.Contains(reached, got.State) {
		w.rt.Fatalf("key package %x was %s and is %s, where %v does not lead", got.Ref, was, got.State, steps)
	}
}

// checkEnd checks what holds at the end of a life, whatever the model says.
func (w *walk) checkEnd(got *store.KeyPackage) {
	if end := w.over[string(got.Ref)]; end != "" && got.State != end {
		w.rt.Fatalf("key package %x was %s and is %s", got.Ref, end, got.State)
	}
	if got.State.Open() {
		return
	}
	w.over[string(got.Ref)] = got.State
	if len(got.Sealed) > 0 || got.State == store.Erased && len(got.Leaf) > 0 {
		w.rt.Fatalf("key package %x is %s and has %q and %q", got.Ref, got.State, got.Sealed, got.Leaf)
	}
}

// replay checks the trail: its hashes, and that what it has of each key package leads to
// the state that it has.
func (w *walk) replay() {
	if _, err := audit.Verify(w.s.Entries(w.ctx(), 0), nil); err != nil {
		w.rt.Fatalf("Verify() err = %v, want nil", err)
	}
	for _, k := range w.all {
		var places []place
		for stored, err := range w.s.EntriesOf(w.ctx(), k.ref) {
			w.agree("EntriesOf", err, nil)
			e, err := audit.ParseEntry(stored.Bytes)
			w.agree("ParseEntry", err, nil)
			switch {
			case e.Actor != "user:walker":
				w.rt.Fatalf("entry %d is %q's", e.Sequence, e.Actor)
			case e.Act == audit.Generated && places == nil:
				places = begun
			default:
				places = follow(places, e)
			}
			if len(places) == 0 {
				w.rt.Fatalf("entry %d, %s of %x, is on no path", e.Sequence, e.Act, k.ref)
			}
		}
		if !slices.Contains(written(places), place{k.state, k.from}) {
			w.rt.Fatalf("the trail of %x leads to %v, and it is %s", k.ref, places, k.state)
		}
	}
}
