package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// What the trail has of each act, and that it has nothing of an act that failed.

// trail returns the entries of a store, and checks that they verify.
func trail(t *testing.T, s store.Store) []audit.Entry {
	t.Helper()
	if _, err := audit.Verify(s.Entries(t.Context(), 0), nil); err != nil {
		t.Fatalf("Verify() err = %v, want nil", err)
	}
	var all []audit.Entry
	for stored, err := range s.Entries(t.Context(), 0) {
		check(t, "Entries", err, nil)
		all = append(all, parse(t, stored))
		if stored.Ref == nil { // Verify compares it unless it is nil
			t.Fatalf("Entries() does not say whose entry %d is", len(all)-1)
		}
	}
	return all
}

func parse(t *testing.T, stored audit.Stored) audit.Entry {
	t.Helper()
	e, err := audit.ParseEntry(stored.Bytes)
	check(t, "ParseEntry", err, nil)
	return e
}

// words are entries as text, to be compared.
func words(all []audit.Entry) string {
	var b strings.Builder
	for _, e := range all {
		fmt.Fprintf(&b, "%d %s: %s %s identity=%q ref=%x key=%q detail=%q\n",
			e.Sequence, e.Time.UTC().Format(time.RFC3339), e.Actor, e.Act, e.Identity, e.Ref, e.KeyID, e.Detail)
	}
	return b.String()
}

// recorded runs an act and checks that the trail has grown by these entries alone. It fills in their
// sequence numbers, and "unknown" for those without an actor.
func recorded(t *testing.T, f *fixture, what string, act func() error, want ...audit.Entry) {
	t.Helper()
	before := trail(t, f)
	check(t, what, act(), nil)
	for i := range want {
		want[i].Sequence = uint64(len(before) + i)
		if want[i].Actor == "" {
			want[i].Actor = "unknown"
		}
	}
	if got := trail(t, f)[len(before):]; words(got) != words(want) {
		t.Errorf("%s recorded\n%swant\n%s", what, words(got), words(want))
	}
}

// refused runs an act that has to fail with the error, and checks that it changed nothing, the trail
// included.
func refused(t *testing.T, f *fixture, what string, want error, act func() error) {
	t.Helper()
	before := everything(t, f)
	check(t, what, act(), want)
	if after := everything(t, f); after != before {
		t.Errorf("%s failed and changed the store from\n%s\nto\n%s", what, before, after)
	}
}

// everything is all that a store returns.
func everything(t *testing.T, s store.Store) string {
	t.Helper()
	var b strings.Builder
	list := func(what string, v any, err error) {
		check(t, what, err, nil)
		fmt.Fprintf(&b, "%s: %+v\n", what, v)
	}
	names, err := s.Identities(t.Context())
	list("Identities", len(names), err)
	for _, id := range names {
		versions, err := s.Versions(t.Context(), id.Name)
		list("Versions", versions, err)
	}
	keys, err := s.WrappingKeys(t.Context())
	list("WrappingKeys", keys, err)
	intents, err := s.Intents(t.Context())
	list("Intents", intents, err)
	checkpoints, err := s.Checkpoints(t.Context())
	list("Checkpoints", checkpoints, err)
	auditKeys, err := s.AuditKeys(t.Context())
	list("AuditKeys", auditKeys, err)
	backlogs, err := s.Backlogs(t.Context())
	list("Backlogs", backlogs, err)
	list("KeyPackages", all(t, s, store.Filter{}), nil)
	list("Entries", words(trail(t, s)), nil)
	return b.String()
}

// about is an entry about a key package of alice under k1.
func about(r []byte, act audit.Act, at time.Time, detail string) audit.Entry {
	return audit.Entry{Time: at, Act: act, Identity: "alice", Ref: r, KeyID: []byte("k1"), Detail: detail}
}

func trailOfKeys(t *testing.T, f *fixture) {
	recorded(t, f, "AddIdentity", func() error { return f.AddIdentity(t.Context(), identity("alice")) },
		audit.Entry{Time: made, Act: audit.Created, Identity: "alice", KeyID: []byte("id of alice"), Detail: "signature key, version 1"})
	recorded(t, f, "AddWrappingKey, the first", func() error { return f.AddWrappingKey(t.Context(), wrappingKey("k1")) },
		audit.Entry{Time: made, Act: audit.Created, KeyID: []byte("k1"), Detail: "wrapping key, to seal"})
	recorded(t, f, "AddWrappingKey in another's place", func() error { return f.AddWrappingKey(t.Context(), wrappingKey("k2")) },
		audit.Entry{Time: made, Act: audit.Created, KeyID: []byte("k2"), Detail: "wrapping key, to seal"},
		audit.Entry{Time: made, Act: audit.Rotated, KeyID: []byte("k2"), Detail: "wrapping key, to seal"})
	recorded(t, f, "AddWrappingKey beside another", func() error { return f.AddWrappingKey(t.Context(), spare("k3", store.Seal)) },
		audit.Entry{Time: made, Act: audit.Created, KeyID: []byte("k3"), Detail: "wrapping key, to seal"})
	recorded(t, f, "AddWrappingKey of the other purpose", func() error { return f.AddWrappingKey(t.Context(), spare("k4", store.Wrap)) },
		audit.Entry{Time: made, Act: audit.Created, KeyID: []byte("k4"), Detail: "wrapping key, to wrap"})
	recorded(t, f, "AddAuditKey", func() error { return f.AddAuditKey(t.Context(), auditKey("a1")) },
		audit.Entry{Time: made, Act: audit.Created, KeyID: []byte("a1"), Detail: "audit key verifier of a1"})
	recorded(t, f, "AddAuditKey in another's place", func() error { return f.AddAuditKey(t.Context(), auditKey("a2")) },
		audit.Entry{Time: made, Act: audit.Created, KeyID: []byte("a2"), Detail: "audit key verifier of a2"},
		audit.Entry{Time: made, Act: audit.Rotated, KeyID: []byte("a2"), Detail: "audit key, in the place of 6131"})
	refused(t, f, "AddIdentity again", store.ErrExists, func() error { return f.AddIdentity(t.Context(), identity("alice")) })
	refused(t, f, "AddWrappingKey again", store.ErrExists, func() error { return f.AddWrappingKey(t.Context(), wrappingKey("k1")) })
	refused(t, f, "AddAuditKey again", store.ErrExists, func() error { return f.AddAuditKey(t.Context(), auditKey("a1")) })
	recorded(t, f, "AddCheckpoint", func() error {
		return f.AddCheckpoint(t.Context(), store.Checkpoint{Size: 1, Note: []byte("n"), CreatedAt: made})
	})
}

func trailOfALife(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx, r, at := t.Context(), ref(1), made.Add(time.Minute)
	w := []byte{0xAB, 0x01}
	recorded(t, f, "AddKeyPackages", func() error { return f.AddKeyPackages(ctx, batch(1, 2)) },
		about(r, audit.Generated, made, ""), about(ref(2), audit.Generated, made, ""))
	recorded(t, f, "Move to Published", func() error {
		return f.Move(ctx, [][]byte{r}, []store.State{store.Available}, store.Published, at)
	}, about(r, audit.Exported, at, ""))
	recorded(t, f, "Claim", func() error {
		_, err := f.Claim(ctx, "alice", 5, at)
		return err
	}, about(ref(2), audit.Claimed, at, ""))
	recorded(t, f, "Claim of none", func() error {
		_, err := f.Claim(ctx, "alice", 5, at)
		return err
	})
	recorded(t, f, "Reserve", func() error { return reserve(t, f, r, w, nil) },
		about(r, audit.Reserved, made, "Welcome ab01"), about(r, audit.Opened, made, "Welcome ab01"))
	recorded(t, f, "Reserve for the same Welcome", func() error { return reserve(t, f, r, w, nil) },
		about(r, audit.Opened, made, "Welcome ab01"))
	recorded(t, f, "Release", func() error { return f.Release(ctx, r, w, at) },
		about(r, audit.Released, at, "Welcome ab01"))
	check(t, "Reserve", reserve(t, f, r, w, []byte("leaf")), nil)
	recorded(t, f, "Consume", func() error { return f.Consume(ctx, r, w, at) },
		about(r, audit.Consumed, at, "Welcome ab01"))
	recorded(t, f, "EraseLeaf", func() error { return f.EraseLeaf(ctx, r, at) },
		about(r, audit.LeafErased, at, ""))
	recorded(t, f, "EraseLeaf again", func() error { return f.EraseLeaf(ctx, r, at) })
	recorded(t, f, "Retire", func() error { return f.Retire(ctx, [][]byte{ref(2)}, at.Add(time.Hour), at) },
		about(ref(2), audit.Retired, at, ""))
	recorded(t, f, "Sweep", func() error {
		_, err := f.Sweep(ctx, at.Add(time.Hour), 0)
		return err
	}, about(ref(2), audit.Erased, at.Add(time.Hour), ""))
	recorded(t, f, "Sweep of nothing", func() error {
		_, err := f.Sweep(ctx, at.Add(time.Hour), 0)
		return err
	})
}

func trailOfALastResort(t *testing.T, f *fixture) {
	furnish(t, f)
	b := batch(1, 1)
	b[0].LastResort = true
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), b), nil)
	check(t, "Reserve", reserve(t, f, ref(1), []byte{0xAB}, nil), nil)
	recorded(t, f, "Consume", func() error { return f.Consume(t.Context(), ref(1), []byte{0xAB}, made) },
		about(ref(1), audit.Consumed, made, "Welcome ab, last resort"))
}

// A sweep takes all steps that are due, in the order of a life.
func trailOfASweep(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 1)), nil)
	check(t, "Reserve", reserve(t, f, ref(1), []byte{0xAB}, nil), nil)
	late := made.Add(365 * 24 * time.Hour)
	recorded(t, f, "Sweep", func() error {
		_, err := f.Sweep(t.Context(), late, time.Hour)
		return err
	}, about(ref(1), audit.Released, late, "Welcome ab"), about(ref(1), audit.Expired, late, ""), about(ref(1), audit.Erased, late, ""))
}

// An act and its entry are committed together, or not at all.
func trailOfWhatCannotBeWritten(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 3)), nil)
	check(t, "Reserve", reserve(t, f, ref(2), []byte("w"), nil), nil)
	check(t, "Reserve", reserve(t, f, ref(3), []byte("w"), []byte("leaf")), nil)
	check(t, "Consume", f.Consume(t.Context(), ref(3), []byte("w"), made), nil)
	check(t, "AddWrappingKey", f.AddWrappingKey(t.Context(), spare("k2", store.Seal)), nil)
	check(t, "ProposeIdentity", f.ProposeIdentity(t.Context(), version("alice", 2, store.Next)), nil)
	var never time.Time
	ctx := t.Context()
	for what, act := range map[string]func() error{
		"AddIdentity": func() error {
			id := identity("bob")
			id.CreatedAt = never
			return f.AddIdentity(ctx, id)
		},
		"AddIdentity of a name that is not UTF-8": func() error { return f.AddIdentity(ctx, identity("\xff")) },
		"AddWrappingKey": func() error {
			k := wrappingKey("k3")
			k.CreatedAt = never
			return f.AddWrappingKey(ctx, k)
		},
		"AddAuditKey": func() error { return f.AddAuditKey(ctx, store.AuditKey{KeyID: []byte("a1")}) },
		"AddKeyPackages": func() error {
			b := batch(10, 2)
			b[1].CreatedAt = never
			return f.AddKeyPackages(ctx, b)
		},
		"ChangeIdentity":    func() error { return f.ChangeIdentity(ctx, identity("alice"), identity("alice").Stamp, never) },
		"SwitchIdentity":    func() error { _, err := f.SwitchIdentity(ctx, "alice", 2, made, never); return err },
		"RetireIdentity":    func() error { _, err := f.RetireIdentity(ctx, "alice", made, never); return err },
		"RotateWrappingKey": func() error { return f.RotateWrappingKey(ctx, []byte("k2"), never) },
		"Move": func() error {
			return f.Move(ctx, [][]byte{ref(1)}, []store.State{store.Available}, store.Published, never)
		},
		"Claim": func() error {
			_, err := f.Claim(store.WithActor(ctx, "\xff"), "alice", 1, made)
			return err
		},
		"Reserve": func() error {
			_, err := f.Reserve(ctx, reservation(ref(1), []byte("w"), made, never))
			return err
		},
		"Release":   func() error { return f.Release(ctx, ref(2), []byte("w"), never) },
		"Consume":   func() error { return f.Consume(ctx, ref(2), []byte("w"), never) },
		"EraseLeaf": func() error { return f.EraseLeaf(ctx, ref(3), never) },
		"Retire":    func() error { return f.Retire(ctx, [][]byte{ref(1)}, made, never) },
		"Rewrap":    func() error { _, err := f.Rewrap(ctx, rewrapped(t, f, "k2", 1), never); return err },
		"Sweep": func() error {
			_, err := f.Sweep(store.WithActor(ctx, "\xff"), made.Add(365*24*time.Hour), 0)
			return err
		},
		"an empty actor": func() error { return f.AddKeyPackages(store.WithActor(ctx, ""), batch(10, 1)) },
		"Record": func() error {
			return f.Record(ctx, audit.Entry{Time: made, Act: audit.Refused}, audit.Entry{Time: never, Act: audit.Refused})
		},
		"Record without an act": func() error { return f.Record(ctx, audit.Entry{Time: made}) },
		"Record of what is too long": func() error {
			return f.Record(ctx, audit.Entry{Time: made, Act: audit.Refused, Detail: strings.Repeat("x", audit.MaxEntrySize)})
		},
	} {
		refused(t, f, what, audit.ErrEntry, act)
	}
}

func actorsAreRecorded(t *testing.T, f *fixture) {
	furnish(t, f)
	ctx := store.WithActor(t.Context(), "user:alice")
	recorded(t, f, "AddKeyPackages", func() error { return f.AddKeyPackages(ctx, batch(1, 1)) },
		audit.Entry{Time: made, Act: audit.Generated, Actor: "user:alice", Identity: "alice", Ref: ref(1), KeyID: []byte("k1")})
	recorded(t, f, "Record", func() error {
		return f.Record(ctx, audit.Entry{Time: made, Act: audit.Refused}, audit.Entry{Time: made, Act: audit.Refused, Actor: "user:bob"})
	}, audit.Entry{Time: made, Act: audit.Refused, Actor: "user:alice"}, audit.Entry{Time: made, Act: audit.Refused, Actor: "user:bob"})
}

func recording(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 1)), nil)
	known := audit.Entry{Time: made, Act: audit.Unwrapped, Identity: "alice", Ref: ref(1), KeyID: []byte("k1"), Detail: "a reason"}
	numbered := known
	numbered.Sequence = 77 // the store sets it
	unknown := audit.Entry{Time: made, Act: "something newer", Ref: ref(9)}
	recorded(t, f, "Record", func() error { return f.Record(t.Context(), numbered, unknown) }, known, unknown)
	recorded(t, f, "Record of nothing", func() error { return f.Record(t.Context()) })
}

func entriesOfOne(t *testing.T, f *fixture) {
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(1, 2)), nil)
	const many = 300 // more than a page
	for range many {
		check(t, "Record", f.Record(t.Context(),
			audit.Entry{Time: made, Act: audit.Decrypted, Ref: ref(1)},
			audit.Entry{Time: made, Act: audit.Decrypted, Ref: ref(2)},
			audit.Entry{Time: made, Act: audit.Decrypted}), nil)
	}
	for _, n := range []uint64{1, 2} {
		entries := f.EntriesOf(t.Context(), ref(n))
		for range 2 { // each time from the beginning
			last, seen := -1, 0
			for stored, err := range entries {
				check(t, "EntriesOf", err, nil)
				e := parse(t, stored)
				if string(e.Ref) != string(ref(n)) || int(e.Sequence) <= last {
					t.Fatalf("EntriesOf(%d) yields entry %d about %x after entry %d", n, e.Sequence, e.Ref, last)
				}
				last = int(e.Sequence)
				seen++
			}
			if seen != 1+many {
				t.Errorf("EntriesOf(%d) yields %d entries, want %d", n, seen, 1+many)
			}
		}
	}
	for stored, err := range f.EntriesOf(t.Context(), ref(3)) {
		t.Errorf("EntriesOf(an unknown ref) yields %v, %v, want nothing", stored, err)
	}
}

func entriesFrom(t *testing.T, f *fixture) {
	const many = 700 // more than two pages
	var some []audit.Entry
	for range many {
		some = append(some, audit.Entry{Time: made, Act: audit.Refused})
	}
	check(t, "Record", f.Record(t.Context(), some...), nil)
	for _, from := range []uint64{0, 1, 255, 256, 257, many - 1, many, many + 1} {
		entries := f.Entries(t.Context(), from)
		for range 2 { // each time from the beginning
			next := from
			for stored, err := range entries {
				check(t, "Entries", err, nil)
				if e := parse(t, stored); e.Sequence != next {
					t.Fatalf("Entries(%d) yields entry %d, want %d", from, e.Sequence, next)
				}
				next++
			}
			if next != max(from, many) {
				t.Errorf("Entries(%d) ends before entry %d, want %d", from, next, max(from, many))
			}
		}
	}
	seen := 0
	for range f.Entries(t.Context(), 0) {
		if seen++; seen == 300 {
			break
		}
		if seen%100 == 0 { // writers have to be able to go on
			check(t, "Record while listing", f.Record(t.Context(), audit.Entry{Time: made, Act: audit.Refused}), nil)
		}
	}
}

// Writers through two openings of a store make one trail.
func severalHands(t *testing.T, f *fixture) {
	furnish(t, f)
	other := f.again()
	defer other.Close()
	var wg sync.WaitGroup
	const writers, rounds = 6, 10
	for w := range uint64(writers) {
		s := []store.Store{f, other}[w%2]
		ctx := store.WithActor(t.Context(), fmt.Sprint("writer ", w))
		wg.Go(func() {
			for i := range uint64(rounds) {
				r := ref(w*1000 + i)
				if err := s.AddKeyPackages(ctx, []store.KeyPackage{keyPackage(r)}); err != nil {
					t.Errorf("AddKeyPackages() err = %v, want nil", err)
				}
				if err := s.Retire(ctx, [][]byte{r}, made, made); err != nil {
					t.Errorf("Retire() err = %v, want nil", err)
				}
			}
		})
	}
	wg.Wait()
	byActor := make(map[string][]audit.Entry)
	for _, e := range trail(t, f) {
		byActor[e.Actor] = append(byActor[e.Actor], e)
	}
	for w := range uint64(writers) {
		got := byActor[fmt.Sprint("writer ", w)]
		if len(got) != 2*rounds {
			t.Fatalf("writer %d has %d entries, want %d", w, len(got), 2*rounds)
		}
		for i, e := range got {
			want := []audit.Act{audit.Generated, audit.Retired}[i%2]
			if e.Act != want || string(e.Ref) != string(ref(w*1000+uint64(i/2))) {
				t.Errorf("entry %d of writer %d is %s of %x, want %s of its own", i, w, e.Act, e.Ref, want)
			}
		}
	}
}

// An act whose context has ended leaves no entry.
func trailOfAnEndedContext(t *testing.T, f *fixture) {
	furnish(t, f)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	refused(t, f, "Record", context.Canceled, func() error { return f.Record(ended, audit.Entry{Time: made, Act: audit.Refused}) })
	refused(t, f, "AddCheckpoint", context.Canceled, func() error {
		return f.AddCheckpoint(ended, store.Checkpoint{Size: 1, CreatedAt: made})
	})
}

func auditKey(id string) store.AuditKey {
	return store.AuditKey{KeyID: []byte(id), Label: "label of " + id, TokenSerial: "0123", Origin: "example.com/" + id, VerifierKey: "verifier of " + id, CreatedAt: made}
}

func auditKeys(t *testing.T, f *fixture) {
	want := []store.AuditKey{auditKey("a2"), auditKey("a1")}
	for _, k := range want {
		check(t, "AddAuditKey", f.AddAuditKey(t.Context(), k), nil)
	}
	got, err := f.again().AuditKeys(t.Context())
	check(t, "AuditKeys", err, nil)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("AuditKeys() = %+v, want %+v", got, want)
	}
}

func checkpoints(t *testing.T, f *fixture) {
	some := []store.Checkpoint{
		{Size: 3, Note: []byte("third"), CreatedAt: made.Add(time.Hour)},
		{Size: 0, Note: []byte("of nothing"), CreatedAt: made},
		{Size: 1, Note: []byte("first"), CreatedAt: made},
	}
	for _, c := range some {
		check(t, "AddCheckpoint", f.AddCheckpoint(t.Context(), c), nil)
	}
	check(t, "AddCheckpoint of the same size", f.AddCheckpoint(t.Context(), store.Checkpoint{Size: 1, Note: []byte("another"), CreatedAt: made.Add(time.Minute)}), nil)
	got, err := f.again().Checkpoints(t.Context())
	check(t, "Checkpoints", err, nil)
	slices.SortFunc(some, func(a, b store.Checkpoint) int { return int(a.Size) - int(b.Size) })
	if fmt.Sprint(got) != fmt.Sprint(some) {
		t.Errorf("Checkpoints() = %+v, want %+v", got, some)
	}
}

// entriesAtOnce has many callers of Record beside claims: each entry is there once, in the name of
// its own actor. The entry of a caller who gave up is there only if Record says so.
func entriesAtOnce(t *testing.T, f *fixture) {
	const callers, each = 24, 8
	furnish(t, f)
	check(t, "AddKeyPackages", f.AddKeyPackages(t.Context(), batch(0, callers)), nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	told, there := map[string]int{}, map[string]int{}
	for i := range uint64(callers) {
		wg.Go(func() {
			ctx, giveUp := context.WithCancel(store.WithActor(t.Context(), fmt.Sprintf("user:%d", i)))
			defer giveUp()
			for j := range each {
				if i%6 == 5 && j == each/2 {
					go giveUp()
				}
				detail := fmt.Sprintf("%d of %d", j, i)
				err := f.Record(ctx, audit.Entry{Time: made, Act: audit.Signed, Identity: "alice", Ref: ref(i), Detail: detail})
				if err == nil {
					mu.Lock()
					told[fmt.Sprintf("user:%d", i)+" "+detail]++
					mu.Unlock()
				} else if ctx.Err() == nil {
					t.Errorf("Record() err = %v, want nil", err)
				}
			}
			if _, err := f.Claim(t.Context(), "alice", 1, made); err != nil {
				t.Errorf("Claim() err = %v, want nil", err)
			}
		})
	}
	wg.Wait()
	for _, e := range trail(t, f) {
		if e.Act == audit.Signed {
			there[e.Actor+" "+e.Detail]++
		}
	}
	for what, n := range there {
		if n > 1 {
			t.Errorf("%q is there %d times", what, n)
		}
	}
	for what := range told {
		if there[what] == 0 {
			t.Errorf("%q is told of and not there", what)
		}
	}
}
