package sqlite

import (
	"context"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// Reserve implements store.Store.
func (s *Store) Reserve(ctx context.Context, r store.Reservation) (store.KeyPackage, error) {
	var reserved row
	err := s.write(ctx, func(ctx context.Context, tx *transaction) error {
		was, err := tx.keyPackage(ctx, r.Ref, r.Now)
		if err != nil {
			return err
		}
		if err := was.Reservable(r); err != nil {
			return fmt.Errorf("key package %x: %w", r.Ref, err)
		}
		_, err = tx.Change(ctx, `UPDATE key_packages SET state = 'reserved', welcome_digest = ?, reserved_until = ?, leaf = ?,
			reserved_from = iif(state = 'reserved', reserved_from, state) WHERE id = ?`,
			sqlstore.Blob(r.Digest), sqlstore.Seconds(r.Until), sqlstore.Blob(r.Leaf), was.ID)
		if err != nil {
			return err
		}
		if len(r.Leaf) > 0 {
			key, err := tx.counters.Usable(ctx, tx, r.LeafUnder)
			if err != nil {
				return err
			}
			tx.counters.Use(key)
		}
		for _, e := range record.ReservedEntries(was, r.Digest, r.Now) {
			if err := tx.Record(ctx, was.ID, e); err != nil {
				return err
			}
		}
		reserved, err = sqlstore.One(ctx, tx, sqlstore.ScanKeyPackage, selectKeyPackage+" WHERE k.id = ?", was.ID)
		return err
	})
	return reserved.KeyPackage, err
}

// Release implements store.Store.
func (s *Store) Release(ctx context.Context, ref, digest []byte, at time.Time) error {
	return s.endReservation(ctx, ref, digest, at, func(ctx context.Context, tx *transaction, r *row) error { return tx.release(ctx, r, at) })
}

// release ends a reservation without a result.
func (tx *transaction) release(ctx context.Context, r *row, at time.Time) error {
	_, err := tx.Change(ctx, `UPDATE key_packages SET state = reserved_from, reserved_from = NULL, reserved_until = NULL,
		welcome_digest = NULL, leaf = x'' WHERE id = ?`, r.ID)
	if err != nil {
		return err
	}
	r.State = r.ReservedFrom
	return tx.Record(ctx, r.ID, record.WelcomeEntry(&r.KeyPackage, audit.Released, r.WelcomeDigest, at))
}

// consume and openLastResort end a reservation for the Welcome that was the one: openLastResort
// that of a key package of last resort.
const (
	consume        = "UPDATE key_packages SET state = 'consumed', sealed = x'', consumed_at = ?, reserved_from = NULL, reserved_until = NULL WHERE id = ?"
	openLastResort = "UPDATE key_packages SET state = reserved_from, leaf = x'', opened = opened + 1, reserved_from = NULL, reserved_until = NULL WHERE id = ?"
)

// Consume implements store.Store. The pages that held the sealed keys are overwritten: see
// secure_delete.
func (s *Store) Consume(ctx context.Context, ref, digest []byte, at time.Time) error {
	return s.endReservation(ctx, ref, digest, at, func(ctx context.Context, tx *transaction, r *row) (err error) {
		if r.LastResort {
			_, err = tx.Change(ctx, openLastResort, r.ID)
		} else {
			_, err = tx.Change(ctx, consume, sqlstore.Seconds(at), r.ID)
		}
		if err != nil {
			return err
		}
		return tx.Record(ctx, r.ID, record.ConsumedEntry(r, digest, at))
	})
}

// endReservation runs f on a key package that is reserved for the Welcome with the digest.
func (s *Store) endReservation(ctx context.Context, ref, digest []byte, at time.Time, f func(context.Context, *transaction, *row) error) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		r, err := tx.keyPackage(ctx, ref, at)
		if err != nil {
			return err
		}
		if err := r.ReservedFor(digest); err != nil {
			return fmt.Errorf("key package %x: %w", ref, err)
		}
		return f(ctx, tx, r)
	})
}
