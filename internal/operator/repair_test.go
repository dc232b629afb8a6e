package operator

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// crash makes a signature key in the token, as a process does that ends before it records the
// key, and returns its CKA_ID.
func (f *fixture) crash(t *testing.T) []byte {
	t.Helper()
	inv, err := f.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	id, err := vault.NewKeyID(f.rand)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		defer close(ended)
		intent := store.Intent{KeyID: id, Object: store.ObjectSignatureKey, TokenSerial: f.token.Info().Serial, CreatedAt: f.now()}
		ended <- inv.Make(t.Context(), intent, func(ctx context.Context) error {
			if _, err := signer.Generate(ctx, f.token, ciphersuite.ECDSA_SECP256R1_SHA256, id, "lost"); err != nil {
				return err
			}
			runtime.Goexit()
			return nil
		})
	}()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return id
}

// wantSignatureKey checks whether the token has a signature key.
func (f *fixture) wantSignatureKey(t *testing.T, id []byte, want bool) {
	t.Helper()
	_, err := signer.Find(t.Context(), f.token, token.KeyQuery{ID: id})
	if err != nil && !errors.Is(err, token.ErrNotFound) {
		t.Fatal(err)
	}
	if (err == nil) != want {
		t.Errorf("the token has signature key %x: %v, want %v", id, err == nil, want)
	}
}

// A key without a record is destroyed after the time in which a process may still be working on it.
func TestSweepRepairsWhatACrashLeft(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		lost := f.crash(t)
		f.clock.advance(time.Minute)
		r := SweepRequest{Unfinished: UnfinishedAfter}
		if swept, err := f.Sweep(t.Context(), r); err != nil || swept.Repaired != 0 {
			t.Fatalf("Sweep() after a minute = %+v, %v, want nothing repaired", swept, err)
		}
		f.wantSignatureKey(t, lost, true)
		f.clock.advance(UnfinishedAfter)
		if swept, err := f.Sweep(t.Context(), r); err != nil || swept.Repaired != 1 {
			t.Fatalf("Sweep() = %+v, %v, want 1 repaired", swept, err)
		}
		f.wantSignatureKey(t, lost, false)
		if n, _ := f.acts(t, audit.Repaired); n != 1 {
			t.Errorf("%d repairs are in the trail, want 1", n)
		}
		if swept, err := f.Sweep(t.Context(), r); err != nil || swept != (SweepResult{}) {
			t.Errorf("Sweep() again = %+v, %v, want nothing", swept, err)
		}
	})
}

// An intent that hsm-kp did not record destroys nothing, and the others are still repaired.
func TestSweepDestroysNothingForAPlantedIntent(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		lost := f.crash(t)
		key, err := signer.Generate(t.Context(), f.token, ciphersuite.ECDSA_SECP256R1_SHA256, nil, "somebody's")
		if err != nil {
			t.Fatal(err)
		}
		planted := store.Intent{KeyID: key.ID(), Object: store.ObjectSignatureKey, TokenSerial: f.token.Info().Serial, CreatedAt: f.now()}
		if err := f.store.Intend(t.Context(), planted); err != nil {
			t.Fatal(err)
		}
		swept, err := f.Sweep(t.Context(), SweepRequest{})
		if !errors.Is(err, vault.ErrStamp) || swept.Repaired != 1 {
			t.Errorf("Sweep() = %+v, %v, want 1 repaired and %v", swept, err, vault.ErrStamp)
		}
		f.wantSignatureKey(t, lost, false)
		f.wantSignatureKey(t, key.ID(), true)
	})
}

// A long act continues if a repair fails; it warns.
func TestTidyingWarnsOfWhatCannotBeRepaired(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		planted := store.Intent{KeyID: []byte("nobody's"), Object: store.ObjectSignatureKey, TokenSerial: f.token.Info().Serial, CreatedAt: f.now()}
		if err := f.store.Intend(t.Context(), planted); err != nil {
			t.Fatal(err)
		}
		f.clock.advance(2 * UnfinishedAfter)
		if err := f.tidy(t.Context()); err != nil {
			t.Errorf("tidy() err = %v, want nil", err)
		}
		if w := f.reported.warnings; len(w) != 1 || !errors.Is(w[0], vault.ErrStamp) {
			t.Errorf("warnings = %v, want one of %v", w, vault.ErrStamp)
		}
	})
}

// Unfinished acts in another token are left alone.
func TestSweepWarnsOfUnfinishedActsInOtherTokens(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		elsewhere := store.Intent{KeyID: []byte("elsewhere"), Object: store.ObjectSignatureKey, TokenSerial: "another", CreatedAt: f.now()}
		if err := f.store.Intend(t.Context(), elsewhere); err != nil {
			t.Fatal(err)
		}
		if swept, err := f.Sweep(t.Context(), SweepRequest{}); err != nil || swept.Repaired != 0 {
			t.Errorf("Sweep() = %+v, %v, want nothing repaired", swept, err)
		}
		if len(f.reported.warnings) != 1 {
			t.Errorf("warnings = %v, want one", f.reported.warnings)
		}
	})
}
