package operator

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlite"
	"github.com/hsm-kp/hsm-kp/vault"
)

// elsewhere returns an operator over an empty store of the other kind, and the same token.
func (f *fixture) elsewhere(t *testing.T) *fixture {
	t.Helper()
	var s store.Store
	var err error
	if _, ok := f.store.(*sqlite.Store); ok {
		s, err = postgres.Open(t.Context(), postgrestest.Shared(t).Database(t), postgres.Options{Create: true})
	} else {
		s, err = sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "there.db"), sqlite.Options{Create: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &fixture{config: f.config, Operator: f.over(t, s), reported: f.reported, clock: f.clock}
}

// The copy opens, signs and verifies, and the original does not change.
func TestAStoreMovesToTheOtherBackend(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		refs := f.stock(t, "alice", vault.CustodyWrapped, 3)
		f.wantOpens(t, refs[0], nil)
		f.checkpoint(t)
		before := f.trail(t, TrailRequest{})
		there := f.elsewhere(t)
		rows, err := f.Migrate(t.Context(), there.store)
		if err != nil || rows["identities"] != 1 || rows["key_packages"] != 3 || rows["audit"] != int64(len(before)) {
			t.Fatalf("Migrate() = %v, %v, want 1 identity, 3 key packages and %d entries", rows, err, len(before))
		}
		same := func(a, b TrailEntry) bool { return a.Hash == b.Hash }
		if !slices.EqualFunc(before, f.trail(t, TrailRequest{}), same) || !slices.EqualFunc(before, there.trail(t, TrailRequest{}), same) {
			t.Error("the trail is another here or there")
		}
		for _, ref := range refs {
			there.wantOpens(t, ref, nil)
		}
		alice, err := there.record(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := there.OpenIdentity(t.Context(), &alice); err != nil {
			t.Errorf("OpenIdentity() there err = %v, want nil", err)
		}
		if _, err := there.VerifyTrail(t.Context(), VerifyTrailRequest{}); err != nil {
			t.Errorf("VerifyTrail() there err = %v, want nil", err)
		}
		if _, err := f.Migrate(t.Context(), there.store); !errors.Is(err, record.ErrNotEmpty) {
			t.Errorf("Migrate() again err = %v, want %v", err, record.ErrNotEmpty)
		}
	})
}
