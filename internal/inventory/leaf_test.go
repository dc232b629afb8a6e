package inventory_test

import (
	"context"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// pathSecret returns what a committer encrypts to a leaf.
func pathSecret(t *testing.T, s *ciphersuite.Suite, kp *keypackage.KeyPackage, label string) inventory.Ciphertext {
	t.Helper()
	c := inventory.Ciphertext{Context: []byte("group context")}
	var err error
	if c.KEMOutput, c.Ciphertext, err = hpke.EncryptWithLabel(s, kp.LeafNode.EncryptionKey, label, c.Context, []byte("path secret")); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestALeafsKeyOutlivesTheInitKey(t *testing.T) { inEachCustody(t, leafOutlives) }

func leafOutlives(t *testing.T, f *fixture, suites []*ciphersuite.Suite) {
	for _, s := range suites {
		kp := makeOne(t, f, s.ID, false)
		ref, err := kp.Ref()
		if err != nil {
			t.Fatal(err)
		}
		c := pathSecret(t, s, kp, "UpdatePathNode")
		if _, err := f.inventory().DecryptPathSecret(t.Context(), ref, c, now); !errors.Is(err, store.ErrState) {
			t.Errorf("DecryptPathSecret() before a Welcome err = %v, want %v", err, store.ErrState)
		}
		r := ask(welcometest.NewGroup(t, s).Welcome(kp))
		r.KeepLeaf = true
		opened, err := f.inventory().OpenWelcome(t.Context(), r)
		if err != nil {
			t.Fatalf("OpenWelcome() err = %v, want nil", err)
		}
		opened.Clear()
		decrypts(t, f, ref, c) // while it is reserved
		if err := f.inventory().Confirm(t.Context(), ref, inventory.WelcomeDigest(r.Welcome), now); err != nil {
			t.Fatal(err)
		}
		if record := wantState(t, f, kp, store.Consumed); len(record.Sealed) != 0 || len(record.Leaf) == 0 {
			t.Errorf("after Confirm() %d sealed bytes and %d of the leaf are left, want the leaf's alone", len(record.Sealed), len(record.Leaf))
		}
		decrypts(t, f, ref, c)
		for what, wrong := range map[string]inventory.Ciphertext{
			"another context": {Context: []byte("other"), KEMOutput: c.KEMOutput, Ciphertext: c.Ciphertext},
			"another label":   pathSecret(t, s, kp, "Welcome"),
			"no KEM output":   {Context: c.Context, Ciphertext: c.Ciphertext},
		} {
			if _, err := f.inventory().DecryptPathSecret(t.Context(), ref, wrong, now); !errors.Is(err, hpke.ErrOpen) {
				t.Errorf("%s: DecryptPathSecret() err = %v, want %v", what, err, hpke.ErrOpen)
			}
		}
		for range 2 { // erasing again is not an error
			if err := f.inventory().ConfirmLeaf(t.Context(), ref, now); err != nil {
				t.Errorf("ConfirmLeaf() err = %v, want nil", err)
			}
		}
		if record := wantState(t, f, kp, store.Consumed); len(record.Leaf) != 0 {
			t.Errorf("after ConfirmLeaf() %d bytes of the leaf are left, want none", len(record.Leaf))
		}
		if _, err := f.inventory().DecryptPathSecret(t.Context(), ref, c, now); !errors.Is(err, inventory.ErrNoLeaf) {
			t.Errorf("DecryptPathSecret() after ConfirmLeaf() err = %v, want %v", err, inventory.ErrNoLeaf)
		}
	}
}

func decrypts(t *testing.T, f *fixture, ref keypackage.Ref, c inventory.Ciphertext) {
	t.Helper()
	secret, err := f.inventory().DecryptPathSecret(t.Context(), ref, c, now)
	if err != nil || string(secret) != "path secret" {
		t.Errorf("DecryptPathSecret() = %q, %v, want the path secret", secret, err)
	}
}

// If the key was handed over, no copy is kept.
func TestALeafsKeyIsKeptOnlyWhereItIsNotHandedOver(t *testing.T) {
	inEachCustody(t, func(t *testing.T, f *fixture, _ []*ciphersuite.Suite) {
		kp := makeOne(t, f, 2, false)
		w := welcometest.NewGroup(t, suite(t, 2)).Welcome(kp)
		opened, err := f.inventory().OpenWelcome(t.Context(), ask(w))
		if err != nil {
			t.Fatal(err)
		}
		opened.Clear()
		if err := f.inventory().Confirm(t.Context(), keypackage.Ref(opened.Record.Ref), inventory.WelcomeDigest(w), now); err != nil {
			t.Fatal(err)
		}
		record := wantState(t, f, kp, store.Consumed)
		if kept := len(record.Leaf) > 0; kept != (f.custody == vault.CustodyToken) {
			t.Errorf("custody %s keeps the leaf's key = %v", f.custody, kept)
		}
	})
}

func TestPrivateKeysInTheTokenHaveNothingToShow(t *testing.T) {
	f := newFixture(t)
	f.addWrappingKeyBy(t, vault.AESKeyWrap)
	f.custody = vault.CustodyToken
	ref, err := makeOne(t, f, 2, false).Ref()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.inventory().PrivateKeys(t.Context(), ref, now); !errors.Is(err, inventory.ErrNothingToShow) {
		t.Errorf("PrivateKeys() err = %v, want %v", err, inventory.ErrNothingToShow)
	}
}

// A request for what the token cannot keep fails before anything is made.
func TestTokenCustodyIsRefusedAtOnce(t *testing.T) {
	f := newFixture(t)
	for _, id := range []ciphersuite.ID{1, 3, 4, 6} {
		r := request(f.identity(t, "of suite "+id.String(), id), 3)
		r.Custody = vault.CustodyToken
		var s shown
		if n, err := f.inventory().Generate(t.Context(), r, s.take); n != 0 || !errors.Is(err, vault.ErrCustody) {
			t.Errorf("Generate() in suite %v = %d, %v, want 0 and %v", id, n, err, vault.ErrCustody)
		}
	}
}

// rewrapsOnce moves everything to a new wrapping key when a key package is about to be reserved for
// the first time.
type rewrapsOnce struct {
	store.Store
	rewrap func()
}

func (s *rewrapsOnce) Reserve(ctx context.Context, r store.Reservation) (store.KeyPackage, error) {
	if s.rewrap != nil {
		rewrap := s.rewrap
		s.rewrap = nil
		rewrap()
	}
	return s.Store.Reserve(ctx, r)
}

// A leaf would be lost if it were sealed under a wrapping key from which its key package was moved
// meanwhile.
func TestALeafIsKeptUnderTheKeyOfItsKeyPackage(t *testing.T) {
	inEachCustody(t, func(t *testing.T, f *fixture, _ []*ciphersuite.Suite) {
		kp := makeOne(t, f, 2, false)
		ref, err := kp.Ref()
		if err != nil {
			t.Fatal(err)
		}
		old, err := f.store.CurrentWrappingKey(t.Context(), f.purpose())
		if err != nil {
			t.Fatal(err)
		}
		config := f.config
		config.Store = &rewrapsOnce{Store: f.store, rewrap: func() {
			other := f.again(t)
			if _, err := other.RotateWrappingKey(t.Context(), f.mechanism(), nil, now); err != nil {
				t.Error(err)
			}
			if done, err := other.Rewrap(t.Context(), old.ID, now, nil); err != nil || done.KeyPackages != 1 {
				t.Errorf("Rewrap() = %+v, %v, want 1", done, err)
			}
			if _, err := other.DestroyWrappingKey(t.Context(), old.ID, false, now, nil); err != nil {
				t.Error(err)
			}
		}}
		r := ask(welcometest.NewGroup(t, suite(t, 2)).Welcome(kp))
		r.KeepLeaf = true
		opened, err := inventory.New(config).OpenWelcome(t.Context(), r)
		if err != nil {
			t.Fatalf("OpenWelcome() err = %v, want nil", err)
		}
		opened.Clear()
		if err := f.inventory().Confirm(t.Context(), ref, inventory.WelcomeDigest(r.Welcome), now); err != nil {
			t.Fatal(err)
		}
		decrypts(t, f, ref, pathSecret(t, suite(t, 2), kp, "UpdatePathNode"))
	})
}
