// Package lifecycle moves key packages through their states at random, on a real store, and
// compares what happens with the table of transitions.
package lifecycle

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
)

// begin is the time at which a walk begins.
var begin = time.Unix(1_800_000_000, 0).UTC()

// Times of a walk.
const (
	lifetime    = 10 // hours, at most
	grace       = 5 * time.Hour
	reservation = 2 * time.Hour
)

// known is what the walk knows of a key package.
type known struct {
	state, from  store.State // from is the state before a reservation
	lastResort   bool
	sealed, leaf bool
	digest       string
	until        time.Time // of the reservation
	retired      time.Time // end of its grace
	notAfter     time.Time
	key          int // the number of its wrapping key
	opened       uint64
	version      uint64 // of the identity
	directory    string // the directory that it is on its way to or was published in
	leased       time.Time
	device       string // the device that its private keys are for; empty if there is none
	handedOver   bool
	confirmed    bool
	// ahead has the entries that its trail still lacks, because a decision about it and many others
	// is not worked off yet.
	ahead []audit.Act
}

// free reports whether no device still has to confirm that it has the private keys.
func (k *known) free() bool { return k.device == "" || k.confirmed }

// walk is one random walk.
type walk struct {
	opens   opener
	store   store.Store
	now     time.Time
	refs    []string // in the order they were added
	known   map[string]*known
	keys    int // wrapping keys made so far; the last one is current
	gone    map[int]bool
	version uint64 // of the identity
	retired bool   // whether the identity is retired
	covered *coverage
}

// coverage is what all walks together have seen.
type coverage struct {
	states map[store.State]bool
	steps  map[store.Step]bool
	ahead  map[store.Step]int // steps with key packages whose backlog was not worked off
}

func TestWalkThroughTheStates(t *testing.T) {
	dir, n := t.TempDir(), 0
	walkThroughTheStates(t, func() opener {
		n++
		path := filepath.Join(dir, fmt.Sprintf("store-%d.db", n))
		return func(ctx context.Context) (store.Store, error) {
			return sqlite.Open(ctx, path, sqlite.Options{Create: true})
		}
	})
}

// It takes a minute; -short leaves it out.
func TestWalkThroughTheStatesOnPostgreSQL(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	server := postgrestest.Shared(t)
	walkThroughTheStates(t, func() opener {
		url := server.Database(t)
		return func(ctx context.Context) (store.Store, error) {
			return postgres.Open(ctx, url, postgres.Options{Create: true})
		}
	})
}

// opener opens one store; it may be called repeatedly.
type opener func(context.Context) (store.Store, error)

// rounds is the most hundreds of walks until each step was taken. Now and then a hundred walks miss
// the rarest step.
const rounds = 5

// walkThroughTheStates takes random walks, each in a store of its own.
func walkThroughTheStates(t *testing.T, empty func() opener) {
	c := &coverage{states: make(map[store.State]bool), steps: make(map[store.Step]bool), ahead: make(map[store.Step]int)}
	walks(t, empty, c)
	for round := 1; round < rounds && !t.Failed() && len(c.missing()) > 0; round++ {
		walks(t, empty, c)
	}
	for _, m := range c.missing() {
		t.Errorf("no walk %s", m)
	}
}

// missing returns what no walk has reached or done.
func (c *coverage) missing() (out []string) {
	for _, s := range store.States {
		if !c.states[s] {
			out = append(out, fmt.Sprintf("came to the state %s", s))
		}
	}
	for _, s := range store.Steps {
		if !c.steps[s] {
			out = append(out, fmt.Sprintf("took the step %s", s))
		}
	}
	for _, steps := range [][]store.Step{{store.Publish}, {store.Reserve}, {store.Consume, store.Release}, {store.Erase}} {
		if !slices.ContainsFunc(steps, func(s store.Step) bool { return c.ahead[s] > 0 }) {
			out = append(out, fmt.Sprintf("took the step %s with a key package of an interrupted act", steps[0]))
		}
	}
	return out
}

func walks(t *testing.T, empty func() opener, c *coverage) {
	t.Helper()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWalk(t, rt, empty(), c)
		defer func() { w.store.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"":            w.compare,
			"add":         w.add,
			"write":       func(t *rapid.T) { w.move(t, store.Write, store.Pending) },
			"publish":     func(t *rapid.T) { w.move(t, store.Publish, store.Published) },
			"dispatch":    w.dispatch,
			"acknowledge": w.acknowledge,
			"claim":       w.claim,
			"reserve":     w.reserve,
			"release":     func(t *rapid.T) { w.end(t, store.Release) },
			"consume":     func(t *rapid.T) { w.end(t, store.Consume) },
			"erase leaf":  w.eraseLeaf,
			"hand over":   w.handOver,
			"confirm":     w.confirm,
			"retire":      w.retire,
			"sweep":       w.sweep,
			"rotate":      w.rotate,
			"end many":    w.endMany,
			"work off":    w.workOff,
			"rewrap":      w.rewrap,
			"destroy":     w.destroy,
			"clock":       w.clock,
			"open anew":   w.openAnew,
			"whole trail": w.verifyTrail,
		})
		w.verifyTrail(rt)
	})
}

func newWalk(t *testing.T, rt *rapid.T, opens opener, c *coverage) *walk {
	w := &walk{opens: opens, now: begin, version: 1, known: make(map[string]*known), gone: make(map[int]bool), covered: c}
	w.open(rt)
	must(rt, w.store.AddIdentity(t.Context(), store.Identity{Name: "alice", CreatedAt: w.now}))
	w.rotate(rt)
	return w
}

func must(t *rapid.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("err = %v, want nil", err)
	}
}

func (w *walk) open(t *rapid.T) {
	s, err := w.opens(t.Context())
	must(t, err)
	w.store = s
}

func (w *walk) openAnew(t *rapid.T) {
	must(t, w.store.Close())
	w.open(t)
}

func keyID(n int) []byte { return fmt.Appendf(nil, "wrapping key %d", n) }

// pick returns one of the key packages.
func (w *walk) pick(t *rapid.T) (ref string, k *known) {
	if len(w.refs) == 0 {
		t.Skip("none yet")
	}
	ref = rapid.SampledFrom(w.refs).Draw(t, "ref")
	return ref, w.known[ref]
}

// step records that a step was taken, which the table must have.
func (w *walk) step(t *rapid.T, k *known, s store.Step, to store.State) {
	t.Helper()
	if !store.Allowed(k.state, s, to) {
		t.Fatalf("%s leads from %s to %s, which is not a transition", s, k.state, to)
	}
	w.covered.steps[s] = true
	k.state = to
}

// written records that a key package was written to, together with all earlier decisions about it.
func (w *walk) written(k *known, s store.Step) {
	if len(k.ahead) > 0 {
		w.covered.ahead[s]++
	}
	k.ahead = nil
}

// want checks an error.
func want(t *rapid.T, err, wanted error) {
	t.Helper()
	if !errors.Is(err, wanted) {
		t.Fatalf("err = %v, want %v", err, wanted)
	}
}

func (w *walk) add(t *rapid.T) {
	if len(w.refs) >= 12 {
		t.Skip("enough")
	}
	if w.retired {
		t.Skip("it signs no more")
	}
	ref := make([]byte, 32)
	binary.BigEndian.PutUint64(ref, uint64(len(w.refs)+1))
	k := &known{
		state:      rapid.SampledFrom([]store.State{store.Pending, store.Available}).Draw(t, "state"),
		lastResort: rapid.IntRange(0, 3).Draw(t, "last resort") == 0,
		device:     rapid.SampledFrom([]string{"", "", "d1", "d2"}).Draw(t, "device"),
		sealed:     true, notAfter: w.now.Add(time.Duration(rapid.IntRange(1, lifetime).Draw(t, "lifetime")) * time.Hour), key: w.keys, version: w.version,
	}
	must(t, w.store.AddKeyPackages(t.Context(), []store.KeyPackage{{
		Ref: ref, Identity: "alice", Version: k.version, Suite: 2, State: k.state, LastResort: k.lastResort, Custody: "wrapped", WrappingKeyID: keyID(k.key), ReleaseDigest: []byte(k.device),
		Sealed: []byte("sealed"), Public: []byte("public"), CreatedAt: w.now, NotBefore: w.now.Add(-time.Hour), NotAfter: k.notAfter,
	}}))
	w.refs = append(w.refs, string(ref))
	w.known[string(ref)] = k
}

// move writes or publishes. A key package that was overtaken while its file was written is
// published too, and keeps its state.
func (w *walk) move(t *rapid.T, s store.Step, to store.State) {
	ref, k := w.pick(t)
	from := []store.State{store.Pending, store.Available, store.Published}
	err := w.store.Move(t.Context(), [][]byte{[]byte(ref)}, from, to, w.now)
	overtaken := []store.State{store.Reserved, store.Consumed, store.Retired, store.Expired}
	switch {
	case s == store.Publish && k.state == store.Erased:
		want(t, err, store.ErrErased)
	case s == store.Publish && slices.Contains(overtaken, k.state):
		want(t, err, nil)
		w.written(k, s)
		if k.state == store.Reserved && k.from == store.Pending {
			k.from = store.Published
		}
	case !store.Allowed(k.state, s, to):
		want(t, err, store.ErrState)
	default:
		want(t, err, nil)
		w.step(t, k, s, to)
		k.directory, k.leased = "", time.Time{}
	}
}

func (w *walk) claim(t *rapid.T) {
	n := rapid.IntRange(1, 3).Draw(t, "n")
	var wanted []string
	for _, ref := range w.refs {
		if k := w.known[ref]; k.state == store.Available && k.free() && !w.retired && k.version == w.version && !k.lastResort && k.notAfter.After(w.now) && len(wanted) < n {
			wanted = append(wanted, ref)
		}
	}
	claimed, err := w.store.Claim(t.Context(), "alice", n, w.now)
	must(t, err)
	var got []string
	for _, k := range claimed {
		got = append(got, string(k.Ref))
		w.step(t, w.known[string(k.Ref)], store.Claim, store.Claimed)
	}
	if !slices.Equal(got, wanted) {
		t.Fatalf("Claim() = %x, want %x", got, wanted)
	}
}

func (w *walk) reserve(t *rapid.T) {
	ref, k := w.pick(t)
	digest := rapid.SampledFrom([]string{"w1", "w2"}).Draw(t, "Welcome")
	r := store.Reservation{Ref: []byte(ref), Digest: []byte(digest), Until: w.now.Add(reservation), Now: w.now}
	leaf := !k.lastResort && rapid.Bool().Draw(t, "leaf")
	if leaf {
		r.Leaf, r.LeafUnder = []byte("leaf"), keyID(k.key)
	}
	_, err := w.store.Reserve(t.Context(), r)
	switch {
	case k.state == store.Consumed:
		want(t, err, store.ErrConsumed)
	case k.state == store.Erased:
		want(t, err, store.ErrErased)
	case k.device != "":
		want(t, err, store.ErrForDevice)
	case k.state == store.Reserved && k.digest != digest && w.now.Before(k.until):
		want(t, err, store.ErrReserved)
	default:
		want(t, err, nil)
		w.written(k, store.Reserve)
		if k.state != store.Reserved {
			k.from = k.state
		}
		w.step(t, k, store.Reserve, store.Reserved)
		k.digest, k.until, k.leaf = digest, r.Until, leaf
	}
}

// end releases or consumes.
func (w *walk) end(t *rapid.T, s store.Step) {
	ref, _ := w.pick(t)
	w.endOne(t, s, ref, rapid.SampledFrom([]string{"w1", "w2"}).Draw(t, "Welcome"))
}

func (w *walk) endOne(t *rapid.T, s store.Step, ref, digest string) {
	k := w.known[ref]
	var err error
	if s == store.Release {
		err = w.store.Release(t.Context(), []byte(ref), []byte(digest), w.now)
	} else {
		err = w.store.Consume(t.Context(), []byte(ref), []byte(digest), w.now)
	}
	switch {
	case k.state != store.Reserved || k.digest != digest:
		want(t, err, store.ErrState)
	case s == store.Release || k.lastResort:
		want(t, err, nil)
		w.written(k, s)
		if s == store.Consume {
			k.opened++
		}
		w.step(t, k, s, k.from)
		k.leaf = false
	default:
		want(t, err, nil)
		w.written(k, s)
		w.step(t, k, s, store.Consumed)
		k.sealed = false
	}
}

func (w *walk) eraseLeaf(t *rapid.T) {
	ref, k := w.pick(t)
	err := w.store.EraseLeaf(t.Context(), []byte(ref), w.now)
	if k.state != store.Consumed {
		want(t, err, store.ErrState)
		return
	}
	want(t, err, nil)
	k.ahead = nil
	k.leaf = false
}

func (w *walk) retire(t *rapid.T) {
	ref, k := w.pick(t)
	until := w.now.Add(grace)
	err := w.store.Retire(t.Context(), [][]byte{[]byte(ref)}, until, w.now)
	switch {
	case k.state == store.Reserved && store.Allowed(k.from, store.Retire, store.Retired):
		want(t, err, nil)
		w.step(t, k, store.Retire, store.Reserved)
		k.from, k.retired = store.Retired, until
	case k.state != store.Reserved && store.Allowed(k.state, store.Retire, store.Retired):
		want(t, err, nil)
		w.step(t, k, store.Retire, store.Retired)
		k.retired = until
	default:
		want(t, err, store.ErrState)
	}
}

// retireIfCan retires one of many, if it can be retired, and reports whether it did.
func (w *walk) retireIfCan(t *rapid.T, k *known, until time.Time) {
	switch {
	case k.state == store.Reserved && store.Allowed(k.from, store.Retire, store.Retired):
		w.step(t, k, store.Retire, store.Reserved)
		k.from = store.Retired
	case k.state != store.Reserved && store.Allowed(k.state, store.Retire, store.Retired):
		w.step(t, k, store.Retire, store.Retired)
	default:
		return
	}
	k.retired = until
	k.ahead = append(k.ahead, audit.Retired)
}

// switchIdentity makes another version current, and leaves a backlog with the earlier key packages.
func (w *walk) switchIdentity(t *rapid.T) {
	if w.version >= 4 {
		t.Skip("enough")
	}
	w.version++
	w.retired = false
	must(t, w.store.ProposeIdentity(t.Context(), store.Identity{Name: "alice", Version: w.version, KeyID: fmt.Appendf(nil, "key %d", w.version), CreatedAt: w.now}))
	until := w.now.Add(grace)
	_, err := w.store.SwitchIdentity(t.Context(), "alice", w.version, until, w.now)
	must(t, err)
	for _, ref := range w.refs {
		w.retireIfCan(t, w.known[ref], until)
	}
}

// retireIdentity retires everything, and leaves a backlog with the key packages.
func (w *walk) retireIdentity(t *rapid.T) {
	b, err := w.store.RetireIdentity(t.Context(), "alice", w.now.Add(grace), w.now)
	must(t, err)
	w.retired = true
	for _, ref := range w.refs {
		w.retireIfCan(t, w.known[ref], b.Until)
	}
}

// endMany rotates or retires the identity. Then it releases or consumes some of the reserved key
// packages before that is worked off, as chance alone seldom does.
func (w *walk) endMany(t *rapid.T) {
	var reserved []string
	for _, ref := range w.refs {
		if k := w.known[ref]; k.state == store.Reserved && store.Allowed(k.from, store.Retire, store.Retired) {
			reserved = append(reserved, ref)
		}
	}
	if rapid.Bool().Draw(t, "rotate") {
		w.switchIdentity(t)
	} else {
		w.retireIdentity(t)
	}
	for _, ref := range reserved {
		if s := rapid.SampledFrom([]store.Step{store.Release, store.Consume, store.Retire}).Draw(t, "then"); s != store.Retire {
			w.endOne(t, s, ref, w.known[ref].digest)
		}
	}
}

// workOff works off a part of the backlogs, or all of them.
func (w *walk) workOff(t *rapid.T) {
	backlogs, err := w.store.Backlogs(t.Context())
	must(t, err)
	if len(backlogs) == 0 {
		t.Skip("nothing is left")
	}
	b := rapid.SampledFrom(backlogs).Draw(t, "backlog")
	before, err := w.store.Left(t.Context(), b.ID)
	must(t, err)
	n := rapid.IntRange(1, 4).Draw(t, "n")
	b, err = w.store.WorkOff(t.Context(), b.ID, n, w.now)
	must(t, err)
	left, err := w.store.Left(t.Context(), b.ID)
	must(t, err)
	if left != before-min(before, uint64(n)) || b.Finished() && left > 0 {
		t.Fatalf("WorkOff(%d) left %d of %d and is %+v", n, left, before, b)
	}
	w.readTrail(t)
}

// readTrail reads what was recorded.
func (w *walk) readTrail(t *rapid.T) {
	for _, ref := range w.refs {
		if k := w.known[ref]; len(k.ahead) > 0 {
			acts := w.acts(t, ref)
			if acts[k.ahead[len(k.ahead)-1]] > 0 {
				k.ahead = nil
			}
		}
	}
}

// sweep does what is due, step by step.
func (w *walk) sweep(t *rapid.T) {
	got, err := w.store.Sweep(t.Context(), w.now, grace)
	must(t, err)
	var did store.Swept
	for _, ref := range w.refs {
		k := w.known[ref]
		did.Finished += uint64(len(k.ahead))
		if k.state == store.Reserved && !k.until.After(w.now) {
			w.written(k, store.Release)
			w.step(t, k, store.Release, k.from)
			k.leaf = false
			did.Released++
		}
		if k.notAfter.Before(w.now) && store.Allowed(k.state, store.Expire, store.Expired) {
			w.step(t, k, store.Expire, store.Expired)
			did.Expired++
		}
		over := k.state == store.Expired && k.notAfter.Add(grace).Before(w.now) || k.state == store.Retired && !k.retired.After(w.now)
		if over {
			w.written(k, store.Erase)
			w.step(t, k, store.Erase, store.Erased)
			k.sealed, k.leaf = false, false
			did.Erased++
		}
		k.ahead = nil
	}
	if got != did {
		t.Fatalf("Sweep() = %+v, want %+v", got, did)
	}
	if left, err := w.store.Backlogs(t.Context()); err != nil || len(left) > 0 {
		t.Fatalf("Backlogs() after a sweep = %+v, %v, want none", left, err)
	}
}

func (w *walk) rotate(t *rapid.T) {
	if w.keys >= 5 {
		t.Skip("enough")
	}
	w.keys++
	must(t, w.store.AddWrappingKey(t.Context(), store.WrappingKey{ID: keyID(w.keys), Purpose: store.Seal, Current: true, CreatedAt: w.now}))
}

// rewrap moves one key package to the current wrapping key. One without private keys is skipped.
func (w *walk) rewrap(t *rapid.T) {
	ref, k := w.pick(t)
	record, err := w.store.KeyPackage(t.Context(), []byte(ref))
	must(t, err)
	if !k.sealed && !k.leaf {
		t.Skip("nothing to put")
	}
	n, err := w.store.Rewrap(t.Context(), []store.Rewrapped{{
		Ref: record.Ref, WasSealed: record.Sealed, WasLeaf: record.Leaf, Sealed: record.Sealed, Leaf: record.Leaf,
		WrappingKeyID: keyID(w.keys), WasWrappingKeyID: record.WrappingKeyID,
	}}, w.now)
	must(t, err)
	if n != 1 {
		t.Fatalf("Rewrap() = %d, want 1", n)
	}
	k.ahead = nil
	k.key = w.keys
}

// destroy destroys a wrapping key, with or without what is under it.
func (w *walk) destroy(t *rapid.T) {
	n := rapid.IntRange(1, w.keys).Draw(t, "key")
	shred := rapid.Bool().Draw(t, "shred")
	var under []*known
	for _, k := range w.known {
		if k.key == n && (k.sealed || k.leaf) {
			under = append(under, k)
		}
	}
	got, err := w.store.CondemnWrappingKey(t.Context(), store.Intent{KeyID: keyID(n), Object: store.ObjectSealingKey, Destroy: true, CreatedAt: w.now}, shred)
	switch {
	case w.gone[n]: // its backlog continues
		if got.ID == 0 {
			want(t, err, store.ErrWrappingKey)
		}
		return
	case n == w.keys:
		want(t, err, store.ErrState)
		return
	case len(under) > 0 && !shred:
		want(t, err, store.ErrInUse)
		return
	}
	want(t, err, nil)
	if (got.ID != 0) != (len(under) > 0) {
		t.Fatalf("CondemnWrappingKey() = %+v, want a backlog of %d", got, len(under))
	}
	must(t, w.store.Settle(t.Context(), keyID(n), w.now))
	w.gone[n] = true
	for _, k := range under {
		act := audit.LeafErased
		if k.state != store.Consumed {
			w.step(t, k, store.Erase, store.Erased)
			act = audit.Erased
		}
		k.sealed, k.leaf = false, false
		k.ahead = append(k.ahead, act)
	}
}

func (w *walk) clock(t *rapid.T) {
	w.now = w.now.Add(time.Duration(rapid.IntRange(1, 12).Draw(t, "hours")) * time.Hour)
}

// compare compares the store with what the walk knows.
func (w *walk) compare(t *rapid.T) {
	counts := make(map[store.State]uint64)
	for _, ref := range w.refs {
		k := w.known[ref]
		w.covered.states[k.state] = true
		counts[k.state]++
		got, err := w.store.KeyPackage(t.Context(), []byte(ref))
		must(t, err)
		if got.State != k.state || (len(got.Sealed) > 0) != k.sealed || (len(got.Leaf) > 0) != k.leaf || got.Opened != k.opened ||
			got.HandedOverAt.IsZero() == k.handedOver || got.ConfirmedAt.IsZero() == k.confirmed || string(got.ReleaseDigest) != k.device || string(got.WrappingKeyID) != string(keyID(k.key)) {
			t.Fatalf("%x is %s with %d sealed bytes, %d of the leaf, opened %d times, under %s; want %+v", ref, got.State, len(got.Sealed), len(got.Leaf), got.Opened, got.WrappingKeyID, *k)
		}
		if (!got.State.Open() || k.confirmed) && len(got.Sealed) > 0 {
			t.Fatalf("%x is %s and has its sealed keys", ref, got.State)
		}
	}
	got, err := w.store.Count(t.Context(), "alice")
	must(t, err)
	maps.DeleteFunc(got, func(_ store.State, n uint64) bool { return n == 0 })
	if !maps.Equal(got, counts) {
		t.Fatalf("Count() = %v, want %v", got, counts)
	}
}

// lastActs maps each state to the last act on its key packages.
var lastActs = map[store.State]audit.Act{
	store.Claimed: audit.Claimed, store.Consumed: audit.Consumed, store.Erased: audit.Erased,
	store.Expired: audit.Expired, store.Retired: audit.Retired, store.Reserved: audit.Reserved, store.Published: audit.Exported,
}

// acts counts the entries of a key package.
func (w *walk) acts(t *rapid.T, ref string) map[audit.Act]int {
	acts := make(map[audit.Act]int)
	for stored, err := range w.store.EntriesOf(t.Context(), []byte(ref)) {
		must(t, err)
		e, err := audit.ParseEntry(stored.Bytes)
		must(t, err)
		acts[e.Act]++
	}
	return acts
}

// verifyTrail checks that the trail is complete, and has what led to each state, unless it is still
// in a backlog.
func (w *walk) verifyTrail(t *rapid.T) {
	if _, err := audit.Verify(w.store.Entries(t.Context(), 0), nil); err != nil {
		t.Fatalf("Verify() err = %v, want nil", err)
	}
	for _, ref := range w.refs {
		acts, k := w.acts(t, ref), w.known[ref]
		if act, ok := lastActs[k.state]; ok && (acts[act] == 0) != slices.Contains(k.ahead, act) {
			t.Fatalf("%x is %s, its trail is %v, and it lacks %v", ref, k.state, acts, k.ahead)
		}
		for _, act := range k.ahead {
			if acts[act] != 0 {
				t.Fatalf("the trail of %x is %v, and %v were not written down", ref, acts, k.ahead)
			}
		}
		if (acts[audit.HandedOver] > 0) != k.handedOver || (acts[audit.Confirmed] > 0) != k.confirmed {
			t.Fatalf("the trail of %x is %v, and it is %+v", ref, acts, *k)
		}
		for _, act := range []audit.Act{audit.Retired, audit.Erased, audit.LeafErased, audit.Expired, audit.Confirmed} {
			if acts[act] > 1 {
				t.Fatalf("%x was %s %d times", ref, act, acts[act])
			}
		}
		if acts[audit.Generated] != 1 || k.lastResort && acts[audit.Consumed] != int(k.opened) || !k.lastResort && acts[audit.Consumed] > 1 {
			t.Fatalf("the trail of %x is %v, and it is %+v", ref, acts, *k)
		}
	}
}
