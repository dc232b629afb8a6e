package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
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
		_, err = tx.ExecContext(ctx, `UPDATE key_packages SET state = ?, welcome_digest = ?, reserved_until = ?, leaf = ?,
			reserved_from = CASE state WHEN ? THEN reserved_from ELSE state END WHERE id = ?`,
			string(store.Reserved), blob(r.Digest), seconds(r.Until), blob(r.Leaf), string(store.Reserved), was.ID)
		if err != nil {
			return err
		}
		if len(r.Leaf) > 0 { // that was a use
			if _, err := tx.ExecContext(ctx, "UPDATE wrapping_keys SET uses = uses + 1 WHERE key_id = ?", blob(r.LeafUnder)); err != nil {
				return err
			}
		}
		for _, e := range record.ReservedEntries(&was, r.Digest, r.Now) {
			if err := tx.record(ctx, was.ID, e); err != nil {
				return err
			}
		}
		reserved, err = scanKeyPackage(tx.QueryRowContext(ctx, selectKeyPackage+" WHERE k.id = ?", was.ID))
		return err
	})
	return reserved.KeyPackage, err
}

// Release implements store.Store.
func (s *Store) Release(ctx context.Context, ref, digest []byte, at time.Time) error {
	return s.endReservation(ctx, ref, digest, at, func(ctx context.Context, tx *transaction, r *row) error {
		return release(ctx, tx, r, at)
	})
}

// release ends a reservation for nothing.
func release(ctx context.Context, tx *transaction, r *row, at time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE key_packages SET state = reserved_from, reserved_from = NULL, reserved_until = NULL,
		welcome_digest = NULL, leaf = x'' WHERE id = ?`, r.ID)
	if err != nil {
		return err
	}
	return tx.record(ctx, r.ID, record.WelcomeEntry(&r.KeyPackage, audit.Released, r.WelcomeDigest, at))
}

// Consume implements store.Store. The pages that held the sealed keys are
// overwritten: see secure_delete.
func (s *Store) Consume(ctx context.Context, ref, digest []byte, at time.Time) error {
	return s.endReservation(ctx, ref, digest, at, func(ctx context.Context, tx *transaction, r *row) error {
		_, err := tx.ExecContext(ctx, `UPDATE key_packages SET
			state       = iif(last_resort, reserved_from, @consumed),
			sealed      = iif(last_resort, sealed, x''),
			leaf        = iif(last_resort, x'', leaf),
			consumed_at = iif(last_resort, NULL, @at),
			opened      = opened + last_resort,
			reserved_from = NULL, reserved_until = NULL WHERE id = @id`,
			sql.Named("consumed", string(store.Consumed)), sql.Named("at", seconds(at)), sql.Named("id", r.ID))
		if err != nil {
			return err
		}
		return tx.record(ctx, r.ID, record.ConsumedEntry(r, digest, at))
	})
}

// endReservation runs f on a key package that is reserved for the Welcome with the
// digest.
func (s *Store) endReservation(ctx context.Context, ref, digest []byte, at time.Time, f func(context.Context, *transaction, *row) error) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		r, err := tx.keyPackage(ctx, ref, at)
		if err != nil {
			return err
		}
		if err := r.ReservedFor(digest); err != nil {
			return fmt.Errorf("key package %x: %w", ref, err)
		}
		return f(ctx, tx, &r)
	})
}

const eraseLeaf = "UPDATE key_packages SET leaf = x'' WHERE id = @id"

// EraseLeaf implements store.Store.
func (s *Store) EraseLeaf(ctx context.Context, ref []byte, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		r, err := tx.keyPackage(ctx, ref, at)
		switch {
		case err != nil:
			return err
		case r.State != store.Consumed:
			return fmt.Errorf("key package %x: %w: it is %s", ref, store.ErrState, r.State)
		case len(r.Leaf) == 0:
			return nil
		}
		if _, err := tx.ExecContext(ctx, eraseLeaf, sql.Named("id", r.ID)); err != nil {
			return err
		}
		return tx.record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.LeafErased, at))
	})
}
