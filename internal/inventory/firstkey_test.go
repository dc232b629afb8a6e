package inventory_test

import (
	"errors"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// A process that was killed while it made the first wrapping key has left it in the token, with an
// intent without a stamp, as no key could stamp it. The next process takes the key up.
func TestTheFirstWrappingKeyIsTakenUpAfterACrash(t *testing.T) {
	for m, objects := range map[vault.Mechanism]int{vault.AESGCM: 1, vault.RSAOAEP: 4} {
		t.Run(string(m), func(t *testing.T) { firstKeyIsTakenUp(t, m, objects) })
	}
}

func firstKeyIsTakenUp(t *testing.T, m vault.Mechanism, want int) {
	f := newBareFixture(t)
	f.seals = m
	begun := begin(t, f)
	if _, err := f.config.Ring.Create(t.Context(), begun, m, "begun"); err != nil {
		t.Fatal(err)
	}
	if n, err := f.inventory().Repair(t.Context(), now.Add(time.Hour), 0); n != 0 || err != nil {
		t.Errorf("Repair() before = %d, %v, want it left alone", n, err)
	}
	first := f.addWrappingKey(t)
	if string(first) != string(begun) {
		t.Errorf("the first wrapping key is %v, want %v, which was begun", first, begun)
	}
	objects, err := f.token.Objects(t.Context())
	if err != nil || len(objects) != want {
		t.Errorf("%d objects, %v in the token, want %d: one wrapping key", len(objects), err, want)
	}
	if intents, err := f.store.Intents(t.Context()); err != nil || len(intents) != 0 {
		t.Errorf("Intents() = %v, %v, want none", intents, err)
	}
	makeMany(t, f, "alice", 2)
}

func begin(t *testing.T, f *fixture) vault.KeyID {
	t.Helper()
	id, err := vault.NewKeyID(f.config.Rand)
	if err != nil {
		t.Fatal(err)
	}
	object := map[vault.Mechanism]store.Object{vault.AESGCM: store.ObjectSealingKey, vault.RSAOAEP: store.ObjectSealingPair}[f.sealing()]
	i := store.Intent{KeyID: id, Object: object, TokenSerial: f.config.Ring.Serial(), CreatedAt: now}
	if err := f.store.Intend(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	return id
}

// If it was killed before the token made anything, nothing blocks the next process. A planted
// intent does not destroy anything.
func TestAnIntentToMakeTheFirstKeyIsDroppedOnceThereIsOne(t *testing.T) {
	f := newBareFixture(t)
	begin(t, f)
	first := f.addWrappingKey(t)
	if _, err := f.inventory().Repair(t.Context(), now.Add(time.Hour), 0); err != nil {
		t.Errorf("Repair() err = %v, want nil", err)
	}
	if intents, err := f.store.Intents(t.Context()); err != nil || len(intents) != 0 {
		t.Errorf("Intents() = %v, %v, want none", intents, err)
	}
	planted := store.Intent{KeyID: first, Object: store.ObjectSealingKey, TokenSerial: f.config.Ring.Serial(), CreatedAt: now}
	if err := f.store.Intend(t.Context(), planted); err != nil {
		t.Fatal(err)
	}
	if _, err := f.inventory().Repair(t.Context(), now.Add(time.Hour), 0); !errors.Is(err, vault.ErrStamp) {
		t.Errorf("Repair() of one that was planted err = %v, want %v", err, vault.ErrStamp)
	}
	if _, err := f.config.Ring.Open(t.Context(), first, vault.AESGCM); err != nil {
		t.Errorf("the first key is gone: %v", err)
	}
}
