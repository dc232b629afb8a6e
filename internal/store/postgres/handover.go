package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// HandOver implements store.Store.
func (s *Store) HandOver(ctx context.Context, refs [][]byte, digest []byte, at time.Time) error {
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		rows, err := tx.keyPackages(ctx, refs, at)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := r.Releasable(digest); err != nil {
				return fmt.Errorf("key package %x: %w", r.Ref, err)
			}
			tx.later("UPDATE key_packages SET handed_over_at = coalesce(handed_over_at, $1) WHERE id = $2", seconds(at), r.ID)
			if err := tx.record(r.ID, record.HandedOverEntry(r, at)); err != nil {
				return err
			}
		}
		return nil
	})
}

// ConfirmHandover implements store.Store. The rows as they were before, with the sealed keys, stay
// in the table until it is vacuumed, and in the WAL: see the package.
func (s *Store) ConfirmHandover(ctx context.Context, refs [][]byte, at time.Time) (erased uint64, err error) {
	err = s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		erased = 0
		rows, err := tx.keyPackages(ctx, refs, at)
		if err != nil {
			return err
		}
		for _, r := range rows {
			changes, err := r.Confirmable()
			if err != nil {
				return fmt.Errorf("key package %x: %w", r.Ref, err)
			}
			if !changes {
				continue
			}
			erased++
			r.Sealed = nil // where it is named twice
			tx.later("UPDATE key_packages SET confirmed_at = $1 WHERE id = $2", seconds(at), r.ID)
			tx.later(eraseSealed, r.ID)
			if err := tx.record(r.ID, record.EntryOf(&r.KeyPackage, audit.Confirmed, at)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return erased, nil
}
