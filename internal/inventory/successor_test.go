package inventory_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// If many processes replace one wrapping key at once, one makes another of the same mechanism, and
// all use that one.
func TestOneOfManyReplacesAWrappingKey(t *testing.T) {
	f := newBareFixture(t)
	for _, m := range []vault.Mechanism{vault.AESGCM, vault.RSAOAEP, vault.AESKeyWrap} {
		f.addWrappingKeyBy(t, m)
		was, err := f.store.CurrentWrappingKey(t.Context(), inventory.PurposeOf(m))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		got := make([]store.WrappingKey, 8)
		for i := range got {
			inv := f.again(t)
			wg.Go(func() {
				var err error
				if got[i], err = inv.ReplaceWrappingKey(t.Context(), &was, now); err != nil {
					t.Errorf("ReplaceWrappingKey() err = %v, want nil", err)
				}
			})
		}
		wg.Wait()
		for _, k := range got {
			of, err := inventory.MechanismOf(&k)
			if string(k.ID) != string(got[0].ID) || string(k.ID) == string(was.ID) || !k.Current || err != nil || of != m {
				t.Errorf("ReplaceWrappingKey() = %+v by %s (%v), want one by %s for all", k, of, err, m)
			}
		}
	}
	keys, err := f.store.WrappingKeys(t.Context())
	if err != nil || len(keys) != 6 {
		t.Errorf("there are %d wrapping keys (%v), want 6: two of each mechanism", len(keys), err)
	}
	checkOnlyRecordedKeys(t, f, keys)
}

// checkOnlyRecordedKeys checks that the token has the store's wrapping keys and no others, and that
// nothing is unfinished.
func checkOnlyRecordedKeys(t *testing.T, f *fixture, keys []store.WrappingKey) {
	t.Helper()
	objects, err := f.token.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	recorded := make(map[string]bool)
	for _, k := range keys {
		recorded[string(k.ID)] = true
		recorded[string(vault.StampingKeyID(k.ID))] = true // the one of a pair
	}
	for _, o := range objects {
		if !recorded[string(o.ID)] {
			t.Errorf("the token has %v %x, and the store knows nothing of it", o.Class, o.ID)
		}
	}
	if intents, err := f.store.Intents(t.Context()); err != nil || len(intents) > 0 {
		t.Errorf("Intents() = %+v, %v, want none", intents, err)
	}
}

// A process that finds that another was faster, in whatever way, makes nothing.
func TestAReplacedWrappingKeyIsNotReplacedAgain(t *testing.T) {
	f := newFixture(t)
	inv := f.inventory()
	was, err := f.store.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil {
		t.Fatal(err)
	}
	rotated, err := inv.RotateWrappingKey(t.Context(), f.mechanism(), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	got, err := inv.ReplaceWrappingKey(t.Context(), &was, now)
	if err != nil || string(got.ID) != string(rotated.ID) {
		t.Errorf("ReplaceWrappingKey() = %+v, %v, want %x", got, err, rotated.ID)
	}
	keys, err := f.store.WrappingKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkOnlyRecordedKeys(t, f, keys)
}

// A process that began and died is not waited for, and a repair clears the way.
func TestADeadSuccessorIsNotWaitedFor(t *testing.T) {
	f := newFixture(t)
	inv := f.inventory()
	was, err := f.store.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil {
		t.Fatal(err)
	}
	i := store.Intent{
		KeyID: []byte("0123456789abcdef"), Object: store.ObjectSealingKey, TokenSerial: f.config.Ring.Serial(), CreatedAt: now.Add(-2 * time.Minute),
		Succeeds: true, Instead: was.ID,
	}
	func() {
		defer func() { recover() }() // as a kill ends it
		inv.Make(t.Context(), i, func(ctx context.Context) error {
			if _, err := f.config.Ring.Create(ctx, i.KeyID, f.mechanism(), "left"); err != nil {
				t.Error(err)
			}
			panic("died")
		})
	}()
	start := time.Now()
	if _, err := inv.ReplaceWrappingKey(t.Context(), &was, now); !errors.Is(err, inventory.ErrUnderWay) || time.Since(start) > 5*time.Second {
		t.Errorf("ReplaceWrappingKey() err = %v after %v, want %v at once", err, time.Since(start), inventory.ErrUnderWay)
	}
	if n, err := inv.Repair(t.Context(), now, time.Minute); n != 1 || err != nil {
		t.Errorf("Repair() = %d, %v, want 1", n, err)
	}
	next, err := inv.ReplaceWrappingKey(t.Context(), &was, now)
	if err != nil || string(next.ID) == string(was.ID) {
		t.Errorf("ReplaceWrappingKey() after it = %+v, %v, want another key", next, err)
	}
	keys, err := f.store.WrappingKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checkOnlyRecordedKeys(t, f, keys)
}
