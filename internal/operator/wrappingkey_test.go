package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// inSmallBatches returns the operator of another process, over the same store and token, that
// stores batches of n key packages.
func (f *fixture) inSmallBatches(n int) *fixture {
	c := f.config
	c.Settings = config.Default()
	c.Settings.Store.Batch = n
	c.OpenToken = f.Token
	other := &fixture{config: c, reported: &reported{}, clock: f.clock}
	other.Operator = New(c, other.reported)
	return other
}

// stock makes an identity with n key packages, and returns their references.
func (f *fixture) stock(t *testing.T, name, custody string, n uint64) (refs []keypackage.Ref) {
	t.Helper()
	f.identity(t, name)
	_, err := f.Generate(t.Context(), GenerateRequest{Identity: name, Custody: custody, Count: n, Each: func(batch []Written) error {
		for i := range batch {
			refs = append(refs, keypackage.Ref(string(batch[i].Ref)))
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return refs
}

// wantOpens checks that a Welcome for a key package opens, or what refuses it, and gives the key
// package back.
func (f *fixture) wantOpens(t *testing.T, ref keypackage.Ref, want error) {
	t.Helper()
	inv, err := f.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	record, err := f.store.KeyPackage(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	kp, err := keypackage.Parse(record.Public)
	if err != nil {
		t.Fatal(err)
	}
	suite, _ := ciphersuite.Lookup(kp.CipherSuite)
	w := welcometest.NewGroup(t, suite).Welcome(kp)
	opened, err := inv.OpenWelcome(t.Context(), inventory.WelcomeRequest{Welcome: w, Now: f.now(), Until: f.now().Add(time.Hour)})
	if !errors.Is(err, want) {
		t.Errorf("OpenWelcome() for %v err = %v, want %v", ref, err, want)
	}
	if err != nil {
		return
	}
	defer opened.Clear()
	if err := inv.Release(t.Context(), ref, inventory.WelcomeDigest(w), f.now()); err != nil {
		t.Error(err)
	}
}

// current returns the current wrapping key of a purpose.
func (f *fixture) current(t *testing.T, p store.Purpose) store.WrappingKey {
	t.Helper()
	k, err := f.store.CurrentWrappingKey(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// acts counts the entries of the trail with an act, by what they are about.
func (f *fixture) acts(t *testing.T, act audit.Act) (all, ofKeyPackages int) {
	t.Helper()
	for stored, err := range f.store.Entries(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		entry, err := audit.ParseEntry(stored.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if entry.Act == act {
			all++
			ofKeyPackages += min(1, len(entry.Ref))
		}
	}
	return all, ofKeyPackages
}

// custodies are the purposes of wrapping keys, with the custody that each serves.
var custodies = map[store.Purpose]string{store.Seal: vault.CustodyWrapped, store.Wrap: vault.CustodyToken}

// inEachCustody runs a test over both stores and for both kinds of wrapping keys.
func inEachCustody(t *testing.T, test func(*testing.T, *fixture, store.Purpose)) {
	for _, p := range store.Purposes {
		t.Run(string(p), func(t *testing.T) {
			onBothStores(t, func(t *testing.T, f *fixture) { test(t, f, p) })
		})
	}
}

func TestAWrappingKeyIsUsedOnceItIsRotatedTo(t *testing.T) {
	inEachCustody(t, func(t *testing.T, f *fixture, p store.Purpose) {
		first := f.current(t, p)
		made, err := f.CreateWrappingKey(t.Context(), NewWrappingKey{Purpose: p})
		if err != nil || made.Current || made.Purpose != p {
			t.Fatalf("CreateWrappingKey() = %+v, %v, want one that is not current", made, err)
		}
		if now := f.current(t, p); string(now.ID) != string(first.ID) {
			t.Errorf("the current key is %x, want the first, %x", now.ID, first.ID)
		}
		got, err := f.RotateWrappingKey(t.Context(), RotateWrappingKeyRequest{To: fmt.Sprintf("%X", made.ID)})
		if err != nil || !got.Current || string(got.ID) != string(made.ID) {
			t.Fatalf("RotateWrappingKey() = %+v, %v, want %x as the current one", got, err, made.ID)
		}
		next, err := f.RotateWrappingKey(t.Context(), RotateWrappingKeyRequest{New: NewWrappingKey{Purpose: p}})
		if err != nil || !next.Current || string(next.ID) == string(made.ID) {
			t.Fatalf("RotateWrappingKey() = %+v, %v, want a new one as the current one", next, err)
		}
		m, err := inventory.MechanismOf(&first)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := inventory.MechanismOf(&next); err != nil || got != m {
			t.Errorf("the new key is of mechanism %s (%v), want that of the key before, %s", got, err, m)
		}
		uses, err := f.WrappingKeys(t.Context())
		if err != nil || len(uses) != 4 { // a first one for each purpose, and these two
			t.Errorf("WrappingKeys() = %d keys, %v, want 4", len(uses), err)
		}
	})
}

func TestRequestsForWrappingKeysThatAreRefused(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		before, err := f.WrappingKeys(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 17 { // two of them begin with the same digit
			if _, err := f.CreateWrappingKey(t.Context(), NewWrappingKey{Purpose: store.Wrap}); err != nil {
				t.Fatal(err)
			}
		}
		keys, err := f.WrappingKeys(t.Context())
		if err != nil || len(keys) != len(before)+17 {
			t.Fatalf("WrappingKeys() = %d keys, %v, want %d", len(keys), err, len(before)+17)
		}
		seen, twice := make(map[string]bool), ""
		for _, k := range keys {
			digit := fmt.Sprintf("%x", k.ID)[:1]
			if seen[digit] {
				twice = digit
			}
			seen[digit] = true
		}
		rotate := func(r RotateWrappingKeyRequest) error {
			_, err := f.RotateWrappingKey(t.Context(), r)
			return err
		}
		destroy := func(key string) error {
			_, err := f.DestroyWrappingKey(t.Context(), DestroyWrappingKeyRequest{Key: key, Shred: true})
			return err
		}
		seal := fmt.Sprintf("%x", f.current(t, store.Seal).ID)
		trail, _ := f.acts(t, audit.Rotated)
		for name, refused := range map[string]struct{ err, want error }{
			"rotate to a key of another purpose": {rotate(RotateWrappingKeyRequest{New: NewWrappingKey{Purpose: store.Wrap}, To: seal}), &act.RequestError{}},
			"rotate to nothing":                  {rotate(RotateWrappingKeyRequest{}), &act.RequestError{}},
			"a mechanism of another purpose":     {rotate(RotateWrappingKeyRequest{New: NewWrappingKey{store.Wrap, vault.AESGCM}}), &act.RequestError{}},
			"rotate to an unknown key":           {rotate(RotateWrappingKeyRequest{To: "ffffffffffffffffffffffffffffffff"}), ErrNoSuchWrappingKey},
			"rotate to one of several":           {rotate(RotateWrappingKeyRequest{To: twice}), ErrAmbiguousWrappingKey},
			"destroy nothing":                    {destroy(""), &act.RequestError{}},
			"destroy one of several":             {destroy(twice), ErrAmbiguousWrappingKey},
			"destroy the current one":            {destroy(seal), store.ErrState},
		} {
			if request := (*act.RequestError)(nil); !errors.Is(refused.err, refused.want) && !(errors.As(refused.err, &request) && errors.As(refused.want, &request)) {
				t.Errorf("%s: err = %v, want %v", name, refused.err, refused.want)
			}
		}
		if n, _ := f.acts(t, audit.Rotated); n != trail {
			t.Errorf("%d rotations are in the trail, want %d as before", n, trail)
		}
	})
}

func TestWhatIsRewrappedOpensAndTheOldKeyCanGo(t *testing.T) {
	inEachCustody(t, func(t *testing.T, f *fixture, p store.Purpose) {
		refs := f.stock(t, "alice", custodies[p], 7)
		old := f.current(t, p)
		if _, err := f.RotateWrappingKey(t.Context(), RotateWrappingKeyRequest{New: NewWrappingKey{Purpose: p}}); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprintf("%x", old.ID)
		if _, err := f.DestroyWrappingKey(t.Context(), DestroyWrappingKeyRequest{Key: key}); !errors.Is(err, store.ErrInUse) {
			t.Fatalf("DestroyWrappingKey() err = %v, want %v", err, store.ErrInUse)
		}
		for _, want := range []uint64{7, 0} { // the second time, there is nothing left to do
			var got []Rewrapped
			err := f.Rewrap(t.Context(), RewrapRequest{Each: func(r Rewrapped) error {
				got = append(got, r)
				return nil
			}})
			if err != nil || len(got) != 1 || string(got[0].From.ID) != string(old.ID) || got[0].KeyPackages != want || got[0].Left != 0 {
				t.Fatalf("Rewrap() = %+v, %v, want %d from %s", got, err, want, key)
			}
		}
		if want := (Progress{Verb: "rewrapped", Done: 7, Of: 7, Noun: "key package"}); !slices.Contains(f.reported.progress, want) {
			t.Errorf("progress was %+v, want %+v among it", f.reported.progress, want)
		}
		done, err := f.DestroyWrappingKey(t.Context(), DestroyWrappingKeyRequest{Key: key})
		if err != nil || done.Erased != 0 || done.Key.DestroyedAt.IsZero() {
			t.Fatalf("DestroyWrappingKey() = %+v, %v, want the key destroyed and nothing erased", done, err)
		}
		f.wantNotInToken(t, &old)
		for _, ref := range refs {
			f.wantOpens(t, ref, nil)
		}
		if n, _ := f.acts(t, audit.Destroyed); n != 1 {
			t.Errorf("%d destroyed keys are in the trail, want 1", n)
		}
	})
}

// wantNotInToken checks that a wrapping key was destroyed in the token.
func (f *fixture) wantNotInToken(t *testing.T, k *store.WrappingKey) {
	t.Helper()
	m, err := inventory.MechanismOf(k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vault.OpenBy(t.Context(), f.token, m, k.ID); !errors.Is(err, token.ErrNotFound) {
		t.Errorf("opening wrapping key %x err = %v, want %v", k.ID, err, token.ErrNotFound)
	}
}

func TestAnInterruptedRewrapIsTakenUp(t *testing.T) {
	inEachCustody(t, func(t *testing.T, f *fixture, p store.Purpose) {
		refs := f.stock(t, "alice", custodies[p], 9)
		if _, err := f.RotateWrappingKey(t.Context(), RotateWrappingKeyRequest{New: NewWrappingKey{Purpose: p}}); err != nil {
			t.Fatal(err)
		}
		slow := f.inSmallBatches(2)
		ctx, cancel := context.WithCancel(t.Context())
		interrupted := slow.Reporting(onProgress(cancel))
		none := func(Rewrapped) error { t.Error("an interrupted Rewrap called Each"); return nil }
		if err := interrupted.Rewrap(ctx, RewrapRequest{Each: none}); !errors.Is(err, ErrPartial) || !errors.Is(err, context.Canceled) {
			t.Fatalf("Rewrap() err = %v, want %v", err, ErrPartial)
		}
		_, n := f.acts(t, audit.Rewrapped)
		if n == 0 || n == 9 {
			t.Fatalf("%d key packages were moved before the interruption, want some of 9", n)
		}
		moved := uint64(n)
		err := slow.Rewrap(t.Context(), RewrapRequest{Each: func(r Rewrapped) error {
			moved += r.KeyPackages
			return nil
		}})
		if err != nil {
			t.Fatalf("Rewrap() again err = %v, want nil", err)
		}
		if moved != 9 {
			t.Errorf("%d key packages were moved by both calls, want 9", moved)
		}
		for _, ref := range refs {
			f.wantOpens(t, ref, nil)
		}
		if uses, err := f.WrappingKeys(t.Context()); err != nil || uses[0].KeyPackages+uses[1].KeyPackages != 0 {
			t.Errorf("%d key packages are under the first keys, %v, want none", uses[0].KeyPackages+uses[1].KeyPackages, err)
		}
	})
}

// onProgress is a Report that calls itself at each progress, and ignores everything else.
type onProgress func()

func (onProgress) Note(string)         {}
func (onProgress) Warn(error)          {}
func (f onProgress) Progress(Progress) { f() }

func TestAnInterruptedShreddingIsTakenUp(t *testing.T) {
	inEachCustody(t, func(t *testing.T, f *fixture, p store.Purpose) {
		before := f.stock(t, "alice", custodies[p], 8)
		old := f.current(t, p)
		if _, err := f.RotateWrappingKey(t.Context(), RotateWrappingKeyRequest{New: NewWrappingKey{Purpose: p}}); err != nil {
			t.Fatal(err)
		}
		after := f.stock(t, "bob", custodies[p], 2)
		slow := f.inSmallBatches(3)
		ctx, cancel := context.WithCancel(t.Context())
		r := DestroyWrappingKeyRequest{Key: fmt.Sprintf("%x", old.ID), Shred: true}
		_, err := slow.Reporting(onProgress(cancel)).DestroyWrappingKey(ctx, r)
		interrupted := (*InterruptedError)(nil)
		if !errors.As(err, &interrupted) || !errors.Is(err, ErrPartial) || interrupted.Backlog.Moved != 3 || interrupted.Left != 5 {
			t.Fatalf("DestroyWrappingKey() err = %v, want 3 erased and 5 to go", err)
		}
		f.wantNotInToken(t, &old)
		for _, ref := range before {
			f.wantOpens(t, ref, store.ErrErased)
		}
		if done, err := slow.DestroyWrappingKey(t.Context(), r); err != nil || done.Erased != 8 {
			t.Fatalf("DestroyWrappingKey() again = %+v, %v, want 8 erased by both calls", done, err)
		}
		if _, err := slow.DestroyWrappingKey(t.Context(), r); !errors.Is(err, store.ErrWrappingKey) {
			t.Errorf("DestroyWrappingKey() once more err = %v, want %v", err, store.ErrWrappingKey)
		}
		for _, ref := range after {
			f.wantOpens(t, ref, nil)
		}
	})
}

// A sweep finishes an interrupted shredding.
func TestASweepFinishesAShredding(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.stock(t, "alice", vault.CustodyWrapped, 5)
		old := f.current(t, store.Seal)
		if _, err := f.RotateWrappingKey(t.Context(), RotateWrappingKeyRequest{New: NewWrappingKey{Purpose: store.Seal}}); err != nil {
			t.Fatal(err)
		}
		slow := f.inSmallBatches(2)
		ctx, cancel := context.WithCancel(t.Context())
		r := DestroyWrappingKeyRequest{Key: fmt.Sprintf("%x", old.ID), Shred: true}
		if _, err := slow.Reporting(onProgress(cancel)).DestroyWrappingKey(ctx, r); !errors.Is(err, ErrPartial) {
			t.Fatalf("DestroyWrappingKey() err = %v, want %v", err, ErrPartial)
		}
		if swept, err := f.Sweep(t.Context(), SweepRequest{Unfinished: UnfinishedAfter}); err != nil || swept.Finished != 3 {
			t.Errorf("Sweep() = %+v, %v, want 3 finished", swept, err)
		}
	})
}
