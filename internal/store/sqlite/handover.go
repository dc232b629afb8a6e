package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// HandOver implements store.Store.
func (s *Store) HandOver(ctx context.Context, refs [][]byte, digest []byte, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		for _, ref := range refs {
			r, err := tx.keyPackage(ctx, ref, at)
			if err != nil {
				return err
			}
			if err := r.Releasable(digest); err != nil {
				return fmt.Errorf("key package %x: %w", ref, err)
			}
			if _, err := tx.ExecContext(ctx, "UPDATE key_packages SET handed_over_at = coalesce(handed_over_at, ?) WHERE id = ?", seconds(at), r.ID); err != nil {
				return err
			}
			if err := tx.record(ctx, r.ID, record.HandedOverEntry(&r, at)); err != nil {
				return err
			}
		}
		return nil
	})
}

// ConfirmHandover implements store.Store. The pages that held the sealed keys are overwritten:
// see secure_delete.
func (s *Store) ConfirmHandover(ctx context.Context, refs [][]byte, at time.Time) (erased uint64, err error) {
	err = s.write(ctx, func(ctx context.Context, tx *transaction) error {
		erased = 0
		for _, ref := range refs {
			changed, err := confirmHandover(ctx, tx, ref, at)
			if err != nil {
				return err
			}
			if changed {
				erased++
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return erased, nil
}

func confirmHandover(ctx context.Context, tx *transaction, ref []byte, at time.Time) (bool, error) {
	r, err := tx.keyPackage(ctx, ref, at)
	if err != nil {
		return false, err
	}
	changes, err := r.Confirmable()
	if err != nil {
		return false, fmt.Errorf("key package %x: %w", ref, err)
	}
	if !changes {
		return false, nil
	}
	if _, err := tx.ExecContext(ctx, "UPDATE key_packages SET sealed = x'', confirmed_at = ? WHERE id = ?", seconds(at), r.ID); err != nil {
		return false, err
	}
	return true, tx.record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Confirmed, at))
}
