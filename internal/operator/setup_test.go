package operator

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// setUp returns what SetUp made or found.
func (f *fixture) setUp(t *testing.T, sealing vault.Mechanism) (did []string) {
	t.Helper()
	err := f.SetUp(t.Context(), SetUpRequest{Sealing: sealing, Each: func(key store.WrappingKey, made bool) error {
		did = append(did, fmt.Sprintf("%s made: %v", key.Purpose, made))
		return nil
	}})
	if err != nil {
		t.Fatalf("SetUp() err = %v, want nil", err)
	}
	return did
}

func TestSetUpMakesWhatIsMissing(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		if did, want := f.setUp(t, ""), []string{"seal made: false"}; !slices.Equal(did, want) {
			t.Errorf("SetUp() did %q, want %q", did, want)
		}
		empty := f.elsewhere(t)
		empty.settings.KeyPackages.Custody = vault.CustodyToken
		if did, want := empty.setUp(t, ""), []string{"seal made: true", "wrap made: true"}; !slices.Equal(did, want) {
			t.Errorf("SetUp() of an empty store did %q, want %q", did, want)
		}
		if did, want := empty.setUp(t, vault.AESGCM), []string{"seal made: false", "wrap made: false"}; !slices.Equal(did, want) {
			t.Errorf("SetUp() again did %q, want %q", did, want)
		}
		other, request := (*MechanismError)(nil), (*act.RequestError)(nil)
		if err := empty.SetUp(t.Context(), SetUpRequest{Sealing: vault.RSAOAEP}); !errors.As(err, &other) || !errors.As(err, &request) {
			t.Errorf("SetUp() by another mechanism err = %v, want a MechanismError", err)
		}
	})
}

// SetUp makes no other wrapping key if the store has one that is not in the token.
func TestSetUpWantsTheKeyThatTheStoreKnows(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		gone := f.current(t, store.Seal)
		if _, err := f.token.DestroyByID(t.Context(), gone.ID, token.ClassSecretKey); err != nil {
			t.Fatal(err)
		}
		if err := f.SetUp(t.Context(), SetUpRequest{}); err == nil {
			t.Error("SetUp() without the key in the token err = nil, want one")
		}
	})
}
