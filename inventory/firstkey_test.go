package inventory_test

import (
	"errors"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// A process that was killed while it made the first wrapping key has left an intent
// without a stamp: there was nothing to stamp it with. Once there is a key, what it names
// must be destroyed all the same; but not what somebody adds without a stamp from then on.
func TestRepairOfWhatWasBegunBeforeTheFirstKey(t *testing.T) {
	f := newBareFixture(t)
	begun := store.Intent{KeyID: []byte("begun"), Object: store.ObjectSealingKey, TokenSerial: f.config.Ring.Serial(), CreatedAt: now}
	if err := f.store.Intend(t.Context(), begun); err != nil {
		t.Fatal(err)
	}
	if _, err := f.config.Ring.Create(t.Context(), begun.KeyID, store.Seal, "begun"); err != nil {
		t.Fatal(err)
	}
	first := f.addWrappingKey(t)
	if n, err := f.inventory().Repair(t.Context(), now.Add(time.Hour), 0); n != 1 || err != nil {
		t.Errorf("Repair() = %d, %v, want 1, nil", n, err)
	}
	objects, err := f.token.Objects(t.Context())
	if err != nil || len(objects) != 1 || string(objects[0].ID) != string(first) {
		t.Errorf("Objects() = %v, %v, want the first key alone", objects, err)
	}

	forged := begun
	forged.KeyID = first
	if err := f.store.Intend(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	if n, err := f.inventory().Repair(t.Context(), now.Add(time.Hour), 0); n != 0 || !errors.Is(err, vault.ErrStamp) {
		t.Errorf("Repair() = %d, %v, want 0, %v", n, err, vault.ErrStamp)
	}
}
