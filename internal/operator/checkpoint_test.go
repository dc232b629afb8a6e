package operator

import (
	"errors"
	"sync"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// checkpoint signs the state of the trail.
func (f *fixture) checkpoint(t *testing.T) SignedCheckpoint {
	t.Helper()
	c, err := f.Checkpoint(t.Context())
	if err != nil {
		t.Fatalf("Checkpoint() err = %v, want nil", err)
	}
	return c
}

// auditKeys returns the keys that sign or have signed checkpoints.
func (f *fixture) auditKeys(t *testing.T) []store.AuditKey {
	t.Helper()
	keys, err := f.AuditKeys(t.Context())
	if err != nil {
		t.Fatalf("AuditKeys() err = %v, want nil", err)
	}
	return keys
}

func TestACheckpointIsBelievedByTheKeyThatWasNoted(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		if _, err := f.AuditKeys(t.Context()); !errors.Is(err, ErrNoAuditKey) {
			t.Errorf("AuditKeys() before a checkpoint err = %v, want %v", err, ErrNoAuditKey)
		}
		first := f.checkpoint(t)
		f.stock(t, "alice", vault.CustodyWrapped, 2)
		second := f.checkpoint(t)
		keys := f.auditKeys(t)
		if len(keys) != 1 || len(f.reported.notes) != 1 {
			t.Errorf("%d audit keys, notes %q, want one key and one note of it", len(keys), f.reported.notes)
		}
		f.stock(t, "bob", vault.CustodyWrapped, 1)
		result, err := f.VerifyTrail(t.Context(), VerifyTrailRequest{
			Keys:  []string{keys[0].VerifierKey},
			Notes: []CheckpointNote{{"first", first.Note}, {"second", second.Note}},
		})
		if err != nil || result.Checkpoints != 4 || result.Entries != second.Size+2 || result.Unattested != 2 {
			t.Errorf("VerifyTrail() = %+v, %v, want the store's checkpoints and these, and 2 entries since", result, err)
		}
	})
}

func TestATrailThatIsNotAsItWasSigned(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		c := f.checkpoint(t)
		key, _, err := f.auditKey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sign := func(size uint64, root audit.Hash) CheckpointNote {
			note, err := audit.Sign(audit.Checkpoint{Origin: c.Origin, Size: size, Root: root}, key)
			if err != nil {
				t.Fatal(err)
			}
			return CheckpointNote{"kept elsewhere", note}
		}
		for name, note := range map[string]CheckpointNote{
			"another root":     sign(c.Size, audit.Hash{1}),
			"more than it has": sign(c.Size+1, c.Root),
		} {
			result, err := f.VerifyTrail(t.Context(), VerifyTrailRequest{Notes: []CheckpointNote{note}})
			if !errors.Is(err, audit.ErrTampered) || result == nil {
				t.Errorf("%s: VerifyTrail() = %v, %v, want what held up and %v", name, result, err, audit.ErrTampered)
			}
		}
		request := (*act.RequestError)(nil)
		if _, err := f.VerifyTrail(t.Context(), VerifyTrailRequest{Keys: []string{"nonsense"}}); !errors.As(err, &request) {
			t.Errorf("VerifyTrail() by nonsense err = %v, want a RequestError", err)
		}
		if result, err := f.VerifyTrail(t.Context(), VerifyTrailRequest{Notes: []CheckpointNote{{"nothing", []byte("nothing\n")}}}); !errors.Is(err, ErrForeignCheckpoint) || result != nil {
			t.Errorf("VerifyTrail() of no checkpoint = %v, %v, want nil and %v", result, err, ErrForeignCheckpoint)
		}
	})
}

// Of several processes that sign the first checkpoint, one makes the key.
func TestOneOfSeveralMakesTheFirstAuditKey(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		var group sync.WaitGroup
		for range 4 {
			other := f.inSmallBatches(100)
			group.Go(func() {
				if _, err := other.Checkpoint(t.Context()); err != nil {
					t.Errorf("Checkpoint() err = %v, want nil", err)
				}
			})
		}
		group.Wait()
		if keys := f.auditKeys(t); len(keys) != 1 {
			t.Errorf("%d audit keys, want 1", len(keys))
		}
	})
}

// The last checkpoint of the previous key makes the new one trusted.
func TestANewAuditKeyIsVouchedForByTheOneBefore(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.checkpoint(t)
		last, err := f.NewAuditKey(t.Context())
		if err != nil || len(last) == 0 {
			t.Fatalf("NewAuditKey() = %q, %v, want a last checkpoint", last, err)
		}
		keys := f.auditKeys(t)
		if _, err := audit.Open(last, keys[0].VerifierKey); err != nil || len(keys) != 2 {
			t.Errorf("Open() of the last checkpoint err = %v, want it signed by the first of 2 keys, of %d", err, len(keys))
		}
		now := f.checkpoint(t)
		if _, err := audit.Open(now.Note, keys[1].VerifierKey); err != nil {
			t.Errorf("Open() of the next checkpoint err = %v, want it signed by the new key", err)
		}
		if _, err := f.VerifyTrail(t.Context(), VerifyTrailRequest{Keys: []string{keys[0].VerifierKey}}); err != nil {
			t.Errorf("VerifyTrail() by the first key err = %v, want nil", err)
		}
	})
}

// If a process made a new key and ended before the previous one signed, the next checkpoint
// completes that.
func TestAnInterruptedHandoverIsCompleted(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		first := f.checkpoint(t)
		before := f.auditKeys(t)[0]
		if made, err := f.makeAuditKey(t.Context(), before.KeyID); err != nil || !made {
			t.Fatalf("makeAuditKey() = %v, %v, want one", made, err)
		}
		now := f.checkpoint(t)
		_, err := f.VerifyTrail(t.Context(), VerifyTrailRequest{
			Keys: []string{before.VerifierKey}, Notes: []CheckpointNote{{"first", first.Note}, {"now", now.Note}},
		})
		if err != nil {
			t.Errorf("VerifyTrail() by the key before err = %v, want nil", err)
		}
	})
}

// A lost key vouches for no other: there is a warning, and trust in it does not extend to another.
func TestALostAuditKeyVouchesForNoOther(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.checkpoint(t)
		before := f.auditKeys(t)[0]
		if _, err := f.token.DestroyByID(t.Context(), before.KeyID, token.ClassPrivateKey, token.ClassPublicKey); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Checkpoint(t.Context()); !errors.Is(err, ErrAuditKeyLost) || !errors.Is(err, token.ErrNotFound) {
			t.Fatalf("Checkpoint() err = %v, want %v", err, ErrAuditKeyLost)
		}
		if last, err := f.NewAuditKey(t.Context()); err != nil || len(last) != 0 {
			t.Fatalf("NewAuditKey() = %q, %v, want nothing", last, err)
		}
		if len(f.reported.warnings) != 1 {
			t.Errorf("warnings = %v, want one", f.reported.warnings)
		}
		now := f.checkpoint(t)
		r := VerifyTrailRequest{Keys: []string{before.VerifierKey}, Notes: []CheckpointNote{{"now", now.Note}}}
		unvouched := (*UnvouchedKeyError)(nil)
		if _, err := f.VerifyTrail(t.Context(), r); !errors.As(err, &unvouched) || !errors.Is(err, ErrForeignCheckpoint) {
			t.Errorf("VerifyTrail() by the lost key err = %v, want an UnvouchedKeyError", err)
		}
		r.Keys = append(r.Keys, f.auditKeys(t)[1].VerifierKey)
		if _, err := f.VerifyTrail(t.Context(), r); err != nil {
			t.Errorf("VerifyTrail() by both keys err = %v, want nil", err)
		}
	})
}
