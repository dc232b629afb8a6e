package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// purpose returns the purpose of the wrapping keys of the fixture's custody.
func (f *fixture) purpose() store.Purpose {
	if f.custody == vault.CustodyToken {
		return store.Wrap
	}
	return store.Seal
}

// makeMany makes n key packages and returns them.
func makeMany(t *testing.T, f *fixture, name string, n uint64) []*keypackage.KeyPackage {
	t.Helper()
	r := request(f.identity(t, name, 2), n)
	r.Custody = f.custody
	var kps []*keypackage.KeyPackage
	_, err := f.inventory().Generate(t.Context(), r, func(batch []store.KeyPackage) error {
		for i := range batch {
			kp, err := keypackage.Parse(batch[i].Public)
			if err != nil {
				return err
			}
			kps = append(kps, kp)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("Generate() err = %v, want nil", err)
	}
	return kps
}

// openOne opens a Welcome for a key package, and ends the reservation.
func openOne(t *testing.T, inv *inventory.Inventory, kp *keypackage.KeyPackage) error {
	t.Helper()
	w := welcometest.NewGroup(t, suite(t, 2)).Welcome(kp)
	opened, err := inv.OpenWelcome(t.Context(), ask(w))
	if err != nil {
		return err
	}
	defer opened.Clear()
	return inv.Release(t.Context(), keypackage.Ref(opened.Record.Ref), inventory.WelcomeDigest(w), now)
}

func TestWhatIsRewrappedOpensAndTheOldKeyCanGo(t *testing.T) { inEachCustody(t, rewrapAndDestroy) }

func rewrapAndDestroy(t *testing.T, f *fixture, _ []*ciphersuite.Suite) {
	kps := makeMany(t, f, "alice", 23)
	inv := f.inventory()
	old, err := f.store.CurrentWrappingKey(t.Context(), f.purpose())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inv.DestroyWrappingKey(t.Context(), old.ID, true, now, nil); !errors.Is(err, store.ErrState) {
		t.Errorf("DestroyWrappingKey() of the current one err = %v, want %v", err, store.ErrState)
	}
	next, err := inv.RotateWrappingKey(t.Context(), f.mechanism(), nil, now)
	if err != nil || !next.Current {
		t.Fatalf("RotateWrappingKey() = %+v, %v, want a new current one", next, err)
	}
	if _, err := inv.DestroyWrappingKey(t.Context(), old.ID, false, now, nil); !errors.Is(err, store.ErrInUse) {
		t.Errorf("DestroyWrappingKey() with key packages under it err = %v, want %v", err, store.ErrInUse)
	}
	progress := uint64(0)
	done, err := inv.Rewrap(t.Context(), old.ID, now, func(r inventory.Rewrapped) { progress = r.KeyPackages })
	if err != nil || done.KeyPackages != 23 || progress != 23 || done.Left != 0 {
		t.Fatalf("Rewrap() = %+v (%d reported), %v, want 23", done, progress, err)
	}
	if again, err := inv.Rewrap(t.Context(), old.ID, now, nil); err != nil || again.KeyPackages != 0 {
		t.Errorf("Rewrap() again = %+v, %v, want nothing", again, err)
	}
	if n, err := inv.DestroyWrappingKey(t.Context(), old.ID, false, now, nil); err != nil || n != 0 {
		t.Fatalf("DestroyWrappingKey() = %d, %v, want 0", n, err)
	}
	if _, err := f.config.Ring.Open(t.Context(), old.ID, f.mechanism()); !errors.Is(err, token.ErrNotFound) {
		t.Errorf("the destroyed key is found in the token: %v", err)
	}
	for _, kp := range kps {
		if err := openOne(t, f.again(t), kp); err != nil {
			t.Errorf("OpenWelcome() after all of that err = %v, want nil", err)
		}
	}
	if _, err := inv.Rewrap(t.Context(), old.ID, now, nil); !errors.Is(err, store.ErrWrappingKey) {
		t.Errorf("Rewrap() from a destroyed key err = %v, want %v", err, store.ErrWrappingKey)
	}
}

// Shredding erases what is under the key, and nothing else.
func TestShreddingErasesWhatIsUnderTheKeyOnly(t *testing.T) { inEachCustody(t, shred) }

func shred(t *testing.T, f *fixture, _ []*ciphersuite.Suite) {
	before := makeMany(t, f, "alice", 7)
	inv := f.inventory()
	old, err := f.store.CurrentWrappingKey(t.Context(), f.purpose())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inv.RotateWrappingKey(t.Context(), f.mechanism(), nil, now); err != nil {
		t.Fatal(err)
	}
	after := makeMany(t, f, "bob", 3)
	if n, err := inv.DestroyWrappingKey(t.Context(), old.ID, true, now, nil); err != nil || n != 7 {
		t.Fatalf("DestroyWrappingKey() = %d, %v, want 7", n, err)
	}
	for _, kp := range before {
		wantState(t, f, kp, store.Erased)
		if err := openOne(t, inv, kp); !errors.Is(err, store.ErrErased) {
			t.Errorf("OpenWelcome() of a shredded one err = %v, want %v", err, store.ErrErased)
		}
	}
	for _, kp := range after {
		if err := openOne(t, inv, kp); err != nil {
			t.Errorf("OpenWelcome() of another err = %v, want nil", err)
		}
	}
}

// A batch that was begun under a key that is destroyed by its end is not stored: nobody gets a key
// package without private keys.
func TestNothingIsStoredUnderADestroyedKey(t *testing.T) {
	inEachCustody(t, func(t *testing.T, f *fixture, _ []*ciphersuite.Suite) {
		f.config.Batch = 5
		id, inv := f.identity(t, "alice", 2), f.inventory()
		old, err := f.store.CurrentWrappingKey(t.Context(), f.purpose())
		if err != nil {
			t.Fatal(err)
		}
		r := request(id, 20)
		r.Custody = f.custody
		var shownRefs [][]byte
		_, err = inv.Generate(t.Context(), r, func(batch []store.KeyPackage) error {
			for i := range batch {
				shownRefs = append(shownRefs, batch[i].Ref)
			}
			if len(shownRefs) > len(batch) {
				return nil
			}
			other := f.again(t)
			if _, err := other.RotateWrappingKey(t.Context(), f.mechanism(), nil, now); err != nil {
				return err
			}
			if _, err := other.Rewrap(t.Context(), old.ID, now, nil); err != nil {
				return err
			}
			_, err := other.DestroyWrappingKey(t.Context(), old.ID, false, now, nil)
			return err
		})
		if err == nil {
			t.Error("Generate() under a key that was destroyed err = nil, want one")
		}
		n := 0
		for record, err := range f.store.KeyPackages(t.Context(), store.Filter{}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			kp, err := inventory.Public(&record)
			if err != nil {
				t.Fatal(err)
			}
			if err := openOne(t, f.again(t), kp); err != nil {
				t.Errorf("a stored key package does not open: %v", err)
			}
		}
		if n != len(shownRefs) || n == 0 {
			t.Errorf("%d are stored and %d were shown", n, len(shownRefs))
		}
	})
}

// Stamps are renewed with the key: an identity outlives the wrapping key under which it was made.
func TestStampsOutliveTheirWrappingKey(t *testing.T) {
	f := newFixture(t)
	inv := f.inventory()
	id := store.Identity{Name: "alice", Version: 1, Suite: 2, Credential: []byte("c"), SignatureKey: []byte("p"), KeyID: []byte("k"), CreatedAt: now}
	next := id
	next.Version, next.State, next.KeyID = 2, store.Next, []byte("k2")
	for _, record := range []*store.Identity{&id, &next} {
		if err := inv.StampIdentity(t.Context(), record); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.store.AddIdentity(t.Context(), id), f.store.ProposeIdentity(t.Context(), next)); err != nil {
		t.Fatal(err)
	}
	old := vault.KeyID(id.StampKey)
	if _, err := inv.RotateWrappingKey(t.Context(), f.mechanism(), nil, now); err != nil {
		t.Fatal(err)
	}
	if _, err := inv.DestroyWrappingKey(t.Context(), old, false, now, nil); err != nil {
		t.Fatalf("DestroyWrappingKey() err = %v, want nil", err)
	}
	versions, err := f.store.Versions(t.Context(), "alice")
	if err != nil || len(versions) != 2 {
		t.Fatalf("Versions() = %d, %v, want 2", len(versions), err)
	}
	for _, v := range versions {
		if err := f.again(t).CheckIdentity(t.Context(), &v); err != nil {
			t.Errorf("CheckIdentity(version %d) err = %v, want nil", v.Version, err)
		}
		v.Version++
		if err := f.again(t).CheckIdentity(t.Context(), &v); !errors.Is(err, vault.ErrStamp) {
			t.Errorf("CheckIdentity() with another version err = %v, want %v", err, vault.ErrStamp)
		}
	}
}

// A crash between the token and the store leaves an intent; Repair destroys what it names.
func TestRepairDestroysWhatACrashLeft(t *testing.T) {
	f := newFixture(t)
	f.addWrappingKeyBy(t, vault.AESKeyWrap)
	inv := f.inventory()
	died := errors.New("died")
	var left []vault.KeyID
	for object, make := range map[store.Object]func(context.Context, vault.KeyID) error{
		store.ObjectSealingKey: func(ctx context.Context, id vault.KeyID) error {
			_, err := f.config.Ring.Create(ctx, id, vault.AESGCM, "left")
			return err
		},
		store.ObjectSealingPair: func(ctx context.Context, id vault.KeyID) error {
			_, err := f.config.Ring.Create(ctx, id, vault.RSAOAEP, "left")
			return err
		},
		store.ObjectWrappingKey: func(ctx context.Context, id vault.KeyID) error {
			_, err := f.config.Ring.Create(ctx, id, vault.AESKeyWrap, "left")
			return err
		},
		store.ObjectSignatureKey: func(ctx context.Context, id vault.KeyID) error {
			_, err := f.token.GenerateKeyPair(ctx, token.KeyPairSpec{Curve: token.P256, ID: id, Label: "left"})
			return err
		},
	} {
		id, err := vault.NewKeyID(f.config.Rand)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, id)
		i := store.Intent{KeyID: id, Object: object, TokenSerial: f.config.Ring.Serial(), CreatedAt: now}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: Make() ended", object)
				}
			}()
			inv.Make(t.Context(), i, func(ctx context.Context) error {
				if err := make(ctx, id); err != nil {
					t.Error(err)
				}
				panic(died)
			})
		}()
	}
	if n, err := inv.Repair(t.Context(), now.Add(time.Minute), time.Hour); n != 0 || err != nil {
		t.Errorf("Repair() of young intents = %d, %v, want 0", n, err)
	}
	if n, err := inv.Repair(t.Context(), now.Add(time.Minute), 0); n != 4 || err != nil {
		t.Errorf("Repair() = %d, %v, want 4", n, err)
	}
	objects, err := f.token.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		for _, id := range left {
			if string(o.ID) == string(id) || string(o.ID) == string(vault.StampingKeyID(id)) {
				t.Errorf("%v %x is left", o.Class, o.ID)
			}
		}
	}
	if n, err := inv.Repair(t.Context(), now.Add(time.Minute), 0); n != 0 || err != nil {
		t.Errorf("Repair() again = %d, %v, want 0", n, err)
	}
}

// Someone who can only write to the store must not be able to have keys destroyed.
func TestRepairBelievesNoForgedIntent(t *testing.T) {
	f := newFixture(t)
	inv := f.inventory()
	current, err := f.store.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil {
		t.Fatal(err)
	}
	genuine := store.Intent{KeyID: []byte("0123456789abcdef"), Object: store.ObjectSealingKey, TokenSerial: f.config.Ring.Serial(), CreatedAt: now}
	err = inv.Make(t.Context(), genuine, func(context.Context) error {
		intents, err := f.store.Intents(t.Context())
		if err != nil || len(intents) != 1 {
			return fmt.Errorf("%d intents, %v", len(intents), err)
		}
		for _, stamp := range [][]byte{nil, intents[0].Stamp} {
			forged := store.Intent{KeyID: current.ID, Object: store.ObjectSealingKey, TokenSerial: f.config.Ring.Serial(), Destroy: true, CreatedAt: now, Stamp: stamp}
			if err := f.store.Intend(t.Context(), forged); err != nil {
				return err
			}
			if n, err := inv.Repair(t.Context(), now.Add(time.Minute), time.Second); !errors.Is(err, vault.ErrStamp) || n > 1 {
				t.Errorf("Repair() of a forged intent = %d, %v, want %v", n, err, vault.ErrStamp)
			}
			if err := f.store.Settle(t.Context(), current.ID, now); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.config.Ring.Open(t.Context(), current.ID, vault.AESGCM); err != nil {
		t.Errorf("the current wrapping key is gone: %v", err)
	}
}

func TestWrappingKeysAreDueByAgeAndByUse(t *testing.T) {
	f := newFixture(t)
	makeMany(t, f, "alice", 3)
	for _, c := range []struct {
		schedule inventory.Schedule
		at       time.Time
		due      bool
	}{
		{inventory.Schedule{}, now.AddDate(10, 0, 0), false},
		{inventory.Schedule{MaxAge: time.Hour}, now.Add(time.Hour - time.Second), false},
		{inventory.Schedule{MaxAge: time.Hour}, now.Add(time.Hour), true},
		{inventory.Schedule{MaxUses: 4}, now, false},
		{inventory.Schedule{MaxUses: 3}, now, true},
	} {
		due, err := f.inventory().DueWrappingKeys(t.Context(), c.schedule, c.at)
		if err != nil || (len(due) == 1) != c.due {
			t.Errorf("DueWrappingKeys(%+v) = %d keys, %v, want due = %v", c.schedule, len(due), err, c.due)
		}
	}
}

func TestUnusedWrappingKeysAreDestroyed(t *testing.T) {
	f := newFixture(t)
	kps := makeMany(t, f, "alice", 2)
	inv := f.inventory()
	old, err := f.store.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inv.RotateWrappingKey(t.Context(), f.mechanism(), nil, now); err != nil {
		t.Fatal(err)
	}
	spare, err := inv.CreateWrappingKey(t.Context(), f.mechanism(), false, now)
	if err != nil {
		t.Fatal(err)
	}
	if ids, err := inv.DestroyUnused(t.Context(), now); err != nil || len(ids) != 0 {
		t.Errorf("DestroyUnused() = %v, %v, want none: key packages are under it", ids, err)
	}
	if _, err := f.store.Sweep(t.Context(), now.AddDate(1, 0, 0), time.Hour); err != nil {
		t.Fatal(err)
	}
	wantState(t, f, kps[0], store.Erased)
	ids, err := inv.DestroyUnused(t.Context(), now)
	if err != nil || len(ids) != 1 || string(ids[0]) != string(old.ID) {
		t.Errorf("DestroyUnused() = %v, %v, want %x", ids, err, old.ID)
	}
	if _, err := f.config.Ring.Open(t.Context(), spare.ID, vault.AESGCM); err != nil {
		t.Errorf("a key that was never used is gone: %v", err)
	}
}

// An operator moves from one kind of sealing key to the other and back: everything is moved, stamps
// too, and the old key is destroyed with all that belonged to it.
func TestSealingKeysOfBothKindsTakeEachOthersPlace(t *testing.T) {
	f := newFixture(t)
	kp := makeMany(t, f, "alice", 3)[0]
	record := store.Identity{Name: "bob", Suite: 2, Credential: []byte("c"), SignatureKey: []byte("k"), KeyID: []byte("i"), TokenSerial: "s", Version: 1, CreatedAt: now}
	if err := f.inventory().StampIdentity(t.Context(), &record); err != nil {
		t.Fatal(err)
	}
	if err := f.store.AddIdentity(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	for _, m := range []vault.Mechanism{vault.RSAOAEP, vault.AESGCM} {
		inv := f.again(t)
		old, err := f.store.CurrentWrappingKey(t.Context(), store.Seal)
		if err != nil {
			t.Fatal(err)
		}
		next, err := inv.RotateWrappingKey(t.Context(), m, nil, now)
		if err != nil {
			t.Fatalf("RotateWrappingKey(%s) err = %v, want nil", m, err)
		}
		if got, err := inv.NextMechanism(t.Context(), store.Seal); got != m || err != nil {
			t.Errorf("NextMechanism() = %s, %v, want %s", got, err, m)
		}
		done, err := inv.Rewrap(t.Context(), old.ID, now, nil)
		if err != nil || done.KeyPackages != 3 || done.Identities != 1 {
			t.Fatalf("Rewrap() = %+v, %v, want 3 key packages and an identity", done, err)
		}
		if _, err := inv.DestroyWrappingKey(t.Context(), old.ID, false, now, nil); err != nil {
			t.Fatalf("DestroyWrappingKey() err = %v, want nil", err)
		}
		if err := openOne(t, f.again(t), kp); err != nil {
			t.Errorf("under a key of %s: OpenWelcome() err = %v, want nil", m, err)
		}
		objects, err := f.token.Objects(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if o.Label == inventory.WrappingKeyLabel && string(o.ID) != string(next.ID) && string(o.ID) != string(vault.StampingKeyID(next.ID)) {
				t.Errorf("%v %x of the old wrapping key is left", o.Class, o.ID)
			}
		}
	}
}

// A record that gives a key another purpose than its stamp does is refused.
func TestAWrappingKeyIsOfThePurposeOfItsStamp(t *testing.T) {
	f := newFixture(t)
	key, err := f.store.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil {
		t.Fatal(err)
	}
	key.Purpose = store.Wrap
	if _, err := inventory.MechanismOf(&key); !errors.Is(err, vault.ErrStamp) {
		t.Errorf("MechanismOf() err = %v, want %v", err, vault.ErrStamp)
	}
	key.Purpose, key.Stamp = store.Seal, nil
	if _, err := inventory.MechanismOf(&key); !errors.Is(err, vault.ErrStamp) {
		t.Errorf("MechanismOf() without a stamp err = %v, want %v", err, vault.ErrStamp)
	}
}

// A COMMIT whose answer is lost may have been carried out. A key that it recorded is not destroyed,
// and one that it did not record is destroyed by Repair.
func TestAKeyWhoseRecordIsInDoubtIsLeftToRepair(t *testing.T) {
	for _, committed := range []bool{true, false} {
		f := newFixture(t)
		inv := f.inventory()
		id, err := vault.NewKeyID(f.config.Rand)
		if err != nil {
			t.Fatal(err)
		}
		i := store.Intent{KeyID: id, Object: store.ObjectSignatureKey, TokenSerial: f.config.Ring.Serial(), CreatedAt: now}
		err = inv.Make(t.Context(), i, func(ctx context.Context) error {
			key, err := signer.Generate(ctx, f.token, suite(t, suite1).Signature, id, "alice")
			if err != nil {
				return err
			}
			record := store.Identity{
				Name: "alice", Version: 1, State: store.Current, Suite: uint16(suite1), Credential: keypackage.BasicCredential([]byte("alice")).Bytes(),
				SignatureKey: key.PublicKey(), KeyID: id, TokenSerial: i.TokenSerial, CreatedAt: now,
			}
			if err := inv.StampIdentity(ctx, &record); err != nil {
				return err
			}
			if committed {
				if err := f.store.AddIdentity(ctx, record); err != nil {
					return err
				}
			}
			return fmt.Errorf("record identity: %w", store.ErrAway)
		})
		if !errors.Is(err, store.ErrAway) {
			t.Fatalf("Make() err = %v, want %v", err, store.ErrAway)
		}
		if _, err := signer.Find(t.Context(), f.token, token.KeyQuery{ID: id}); err != nil {
			t.Errorf("committed %v: the key is not there before Repair: %v", committed, err)
		}
		repaired, err := inv.Repair(t.Context(), now.Add(time.Hour), time.Minute)
		if want := map[bool]uint64{false: 1}[committed]; err != nil || repaired != want {
			t.Errorf("committed %v: Repair() = %d, %v, want %d", committed, repaired, err, want)
		}
		if _, err := signer.Find(t.Context(), f.token, token.KeyQuery{ID: id}); errors.Is(err, token.ErrNotFound) == committed {
			t.Errorf("committed %v: after Repair: %v", committed, err)
		}
	}
}
