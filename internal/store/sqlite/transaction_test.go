package sqlite

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// A batch whose context ends while it waits or runs leaves nothing behind, and its error says why.
func TestContextThatEndsInABatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, other := open(t, path), open(t, path)
	furnish(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	err := s.write(ctx, func(inside context.Context, tx *transaction) error {
		cancel()
		if inside.Err() != nil {
			t.Errorf("the context inside a transaction ended, want it not to")
		}
		for range 6000 { // until the transaction is rolled back
			if _, err := tx.Change(inside, "UPDATE wrapping_keys SET uses = uses + 1"); err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond)
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("write() err = %v, want %v", err, context.Canceled)
	}
	if err := other.AddKeyPackages(t.Context(), rows(0, 1)); err != nil {
		t.Errorf("AddKeyPackages() afterwards err = %v, want nil", err)
	}
	key, err := s.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil || key.Uses != 1 {
		t.Errorf("Uses = %d (%v), want 1", key.Uses, err)
	}
}
