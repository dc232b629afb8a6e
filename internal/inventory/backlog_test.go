package inventory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// Interrupted after its first batch, the shredding of a wrapping key has destroyed the key, and
// nothing opens any more, in this process and in one that had opened the key before. The next call
// continues and counts everything.
func TestAnInterruptedShreddingGoesOn(t *testing.T) {
	inEachCustody(t, func(t *testing.T, f *fixture, _ []*ciphersuite.Suite) {
		f.config.Batch = 3
		kps := makeMany(t, f, "alice", 8)
		inv, other := f.inventory(), f.again(t)
		if err := openOne(t, other, kps[0]); err != nil { // it keeps the key open from then on
			t.Fatal(err)
		}
		old, err := f.store.CurrentWrappingKey(t.Context(), f.purpose())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := inv.RotateWrappingKey(t.Context(), f.mechanism(), nil, now); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		n, err := inv.DestroyWrappingKey(ctx, old.ID, true, now, func(store.Backlog) { cancel() })
		if !errors.Is(err, inventory.ErrInterrupted) || n != 3 {
			t.Fatalf("DestroyWrappingKey() = %d, %v, want 3 and %v", n, err, inventory.ErrInterrupted)
		}
		if _, err := f.config.Ring.Open(t.Context(), old.ID, f.mechanism()); !errors.Is(err, token.ErrNotFound) {
			t.Errorf("the key is still in the token: %v", err)
		}
		for _, kp := range kps {
			wantState(t, f, kp, store.Erased)
			for _, inv := range []*inventory.Inventory{inv, other} {
				if err := openOne(t, inv, kp); !errors.Is(err, store.ErrErased) {
					t.Errorf("OpenWelcome() err = %v, want %v", err, store.ErrErased)
				}
			}
		}
		last := uint64(0)
		n, err = f.again(t).DestroyWrappingKey(t.Context(), old.ID, true, now, func(b store.Backlog) { last = b.Moved })
		if err != nil || n != 8 || last != 8 {
			t.Errorf("DestroyWrappingKey() again = %d, %v (%d reported), want 8 of both calls", n, err, last)
		}
		if _, err := inv.DestroyWrappingKey(t.Context(), old.ID, true, now, nil); !errors.Is(err, store.ErrWrappingKey) {
			t.Errorf("DestroyWrappingKey() once more err = %v, want %v", err, store.ErrWrappingKey)
		}
	})
}

func TestAnInterruptedRetirementGoesOn(t *testing.T) {
	f := newFixture(t)
	f.config.Batch = 4
	kps := makeMany(t, f, "alice", 10)
	b, err := f.store.RetireIdentity(t.Context(), "alice", now.Add(time.Hour), now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b, err = f.inventory().WorkOff(ctx, b, now, func(store.Backlog) { cancel() })
	if !errors.Is(err, inventory.ErrInterrupted) || b.Moved != 4 {
		t.Fatalf("WorkOff() = %+v, %v, want 4 written down and %v", b, err, inventory.ErrInterrupted)
	}
	for _, kp := range kps {
		wantState(t, f, kp, store.Retired)
		if err := openOne(t, f.inventory(), kp); err != nil {
			t.Errorf("OpenWelcome() within the grace err = %v, want nil", err)
		}
	}
	// The backlog includes what was opened meanwhile.
	if b, err = f.inventory().WorkOff(t.Context(), b, now, nil); err != nil || b.Moved != 10 || !b.Finished() {
		t.Errorf("WorkOff() again = %+v, %v, want 10 written down", b, err)
	}
}

// slowRing is a token whose use of private keys takes so long that their wrapping key is shredded
// meanwhile.
type slowRing struct {
	inventory.Ring
	meanwhile func()
}

func (r slowRing) Open(ctx context.Context, id vault.KeyID, m vault.Mechanism) (vault.Custodian, error) {
	c, err := r.Ring.Open(ctx, id, m)
	return slowCustodian{c, r.meanwhile}, err
}

type slowCustodian struct {
	vault.Custodian
	meanwhile func()
}

func (c slowCustodian) Keys(ctx context.Context, b vault.Binding, sealed []byte) (vault.Keys, error) {
	defer c.meanwhile()
	return c.Custodian.Keys(ctx, b, sealed)
}

// Nobody sees private keys whose wrapping key was condemned while they were unsealed.
func TestNothingIsShownOfAKeyThatIsShreddedMeanwhile(t *testing.T) {
	f := newFixture(t)
	kp := makeMany(t, f, "alice", 1)[0]
	old, err := f.store.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.inventory().RotateWrappingKey(t.Context(), f.mechanism(), nil, now); err != nil {
		t.Fatal(err)
	}
	ref, err := kp.Ref()
	if err != nil {
		t.Fatal(err)
	}
	shred := func() {
		i := store.Intent{KeyID: old.ID, Object: store.ObjectSealingKey, TokenSerial: f.config.Ring.Serial(), Destroy: true, CreatedAt: now}
		if _, err := f.store.CondemnWrappingKey(t.Context(), i, true); err != nil {
			t.Error(err)
		}
	}
	c := f.config
	c.Ring = slowRing{c.Ring, shred}
	if _, err := inventory.New(c).PrivateKeys(t.Context(), ref, now); !errors.Is(err, store.ErrErased) {
		t.Errorf("PrivateKeys() err = %v, want %v", err, store.ErrErased)
	}
}

// The same holds for the key of a leaf, which is kept after its Welcome.
func TestNothingIsDecryptedWithALeafThatIsShreddedMeanwhile(t *testing.T) {
	f := newFixture(t)
	kp := makeMany(t, f, "alice", 1)[0]
	r := ask(welcometest.NewGroup(t, suite(t, 2)).Welcome(kp))
	opened, err := f.inventory().OpenWelcome(t.Context(), r) // reserved: both keys exist
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Clear()
	old, err := f.store.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.inventory().RotateWrappingKey(t.Context(), f.mechanism(), nil, now); err != nil {
		t.Fatal(err)
	}
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(suite(t, 2), kp.LeafNode.EncryptionKey, "UpdatePathNode", []byte("context"), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	c := f.config
	c.Ring = slowRing{c.Ring, func() {
		i := store.Intent{KeyID: old.ID, Object: store.ObjectSealingKey, TokenSerial: f.config.Ring.Serial(), Destroy: true, CreatedAt: now}
		if _, err := f.store.CondemnWrappingKey(t.Context(), i, true); err != nil {
			t.Error(err)
		}
	}}
	secret, err := inventory.New(c).DecryptPathSecret(t.Context(), keypackage.Ref(opened.Record.Ref), inventory.Ciphertext{Context: []byte("context"), KEMOutput: kemOutput, Ciphertext: ciphertext}, now)
	if !errors.Is(err, store.ErrErased) || len(secret) > 0 {
		t.Errorf("DecryptPathSecret() = %x, %v, want %v", secret, err, store.ErrErased)
	}
}
