package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// Reserve implements store.Store.
func (s *Store) Reserve(ctx context.Context, r store.Reservation) (store.KeyPackage, error) {
	var reserved row
	err := s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		was, err := tx.keyPackage(ctx, r.Ref, r.Now)
		if err != nil {
			return err
		}
		if err := was.Reservable(r); err != nil {
			return fmt.Errorf("key package %x: %w", r.Ref, err)
		}
		tx.later(`UPDATE key_packages SET state = 'reserved', welcome_digest = $1, reserved_until = $2,
			reserved_from = CASE state WHEN 'reserved' THEN reserved_from ELSE state END WHERE id = $3`,
			blob(r.Digest), seconds(r.Until), was.ID)
		tx.later(setLeaf, blob(r.Leaf), was.ID)
		if len(r.Leaf) > 0 { // that was a use
			key, err := tx.usable(ctx, r.LeafUnder)
			if err != nil {
				return err
			}
			tx.uses[key]++
		}
		for _, e := range record.ReservedEntries(was, r.Digest, r.Now) {
			if err := tx.record(was.ID, e); err != nil {
				return err
			}
		}
		if err := tx.flush(ctx); err != nil {
			return err
		}
		reserved, err = queryOne(ctx, tx, scanKeyPackage, selectKeyPackage+" WHERE k.id = $1", was.ID)
		return err
	})
	return reserved.KeyPackage, err
}

// Release implements store.Store.
func (s *Store) Release(ctx context.Context, ref, digest []byte, at time.Time) error {
	return s.endReservation(ctx, ref, digest, at, func(tx *transaction, r *row) error { return tx.release(r, at) })
}

// release ends a reservation for nothing.
func (tx *transaction) release(r *row, at time.Time) error {
	tx.later(`UPDATE key_packages SET state = reserved_from, reserved_from = NULL, reserved_until = NULL,
		welcome_digest = NULL WHERE id = $1`, r.ID)
	tx.later(setLeaf, []byte{}, r.ID)
	r.State = r.ReservedFrom
	return tx.record(r.ID, record.WelcomeEntry(&r.KeyPackage, audit.Released, r.WelcomeDigest, at))
}

// consume and open end a reservation for the Welcome that was the one: open that of a key
// package of last resort.
const (
	consume = `UPDATE key_packages SET state = 'consumed', consumed_at = $1, reserved_from = NULL, reserved_until = NULL WHERE id = $2`
	open    = `UPDATE key_packages SET state = reserved_from, opened = opened + 1, reserved_from = NULL, reserved_until = NULL WHERE id = $1`
)

// setLeaf, eraseSealed and eraseContents change what a key package has of private keys.
const (
	setLeaf       = "UPDATE contents SET leaf = $1 WHERE id = $2 AND leaf <> $1"
	eraseSealed   = "UPDATE contents SET sealed = '' WHERE id = $1"
	eraseContents = "UPDATE contents SET sealed = '', leaf = '' WHERE id = $1"
)

// Consume implements store.Store. The row as it was before, with the sealed keys, stays in the
// table until it is vacuumed, and in the WAL: see the package.
func (s *Store) Consume(ctx context.Context, ref, digest []byte, at time.Time) error {
	return s.endReservation(ctx, ref, digest, at, func(tx *transaction, r *row) error {
		if r.LastResort {
			tx.later(open, r.ID)
			tx.later(setLeaf, []byte{}, r.ID)
		} else {
			tx.later(consume, seconds(at), r.ID)
			tx.later(eraseSealed, r.ID)
		}
		return tx.record(r.ID, record.ConsumedEntry(r, digest, at))
	})
}

// endReservation runs f on a key package that is reserved for the Welcome with the
// digest.
func (s *Store) endReservation(ctx context.Context, ref, digest []byte, at time.Time, f func(*transaction, *row) error) error {
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		r, err := tx.keyPackage(ctx, ref, at)
		if err != nil {
			return err
		}
		if err := r.ReservedFor(digest); err != nil {
			return fmt.Errorf("key package %x: %w", ref, err)
		}
		return f(tx, r)
	})
}

// EraseLeaf implements store.Store.
func (s *Store) EraseLeaf(ctx context.Context, ref []byte, at time.Time) error {
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		r, err := tx.keyPackage(ctx, ref, at)
		switch {
		case err != nil:
			return err
		case r.State != store.Consumed:
			return fmt.Errorf("key package %x: %w: it is %s", ref, store.ErrState, r.State)
		case len(r.Leaf) == 0:
			return nil
		}
		tx.later(setLeaf, []byte{}, r.ID)
		return tx.record(r.ID, record.EntryOf(&r.KeyPackage, audit.LeafErased, at))
	})
}
