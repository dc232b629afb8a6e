package postgres

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
	err := s.write(ctx, concurrent, func(ctx context.Context, tx *transaction) error {
		was, err := tx.keyPackage(ctx, r.Ref, r.Now)
		if err != nil {
			return err
		}
		if err := was.Reservable(r); err != nil {
			return fmt.Errorf("key package %x: %w", r.Ref, err)
		}
		tx.queue(`UPDATE key_packages SET state = 'reserved', welcome_digest = $1, reserved_until = $2,
			reserved_from = CASE state WHEN 'reserved' THEN reserved_from ELSE state END WHERE id = $3`,
			sqlstore.Blob(r.Digest), sqlstore.Seconds(r.Until), was.ID)
		tx.queue(setLeaf, sqlstore.Blob(r.Leaf), was.ID)
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
		if err := tx.flush(ctx); err != nil {
			return err
		}
		reserved, err = sqlstore.One(ctx, tx, sqlstore.ScanKeyPackage, selectKeyPackage+" WHERE k.id = $1", was.ID)
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
	tx.queue(`UPDATE key_packages SET state = reserved_from, reserved_from = NULL, reserved_until = NULL,
		welcome_digest = NULL WHERE id = $1`, r.ID)
	tx.queue(setLeaf, []byte{}, r.ID)
	r.State = r.ReservedFrom
	return tx.Record(ctx, r.ID, record.WelcomeEntry(&r.KeyPackage, audit.Released, r.WelcomeDigest, at))
}

// consume and openLastResort end a reservation for the Welcome that was the one: openLastResort
// that of a key package of last resort.
const (
	consume        = `UPDATE key_packages SET state = 'consumed', consumed_at = $1, reserved_from = NULL, reserved_until = NULL WHERE id = $2`
	openLastResort = `UPDATE key_packages SET state = reserved_from, opened = opened + 1, reserved_from = NULL, reserved_until = NULL WHERE id = $1`
)

// setLeaf, eraseSealed and eraseContents change the private keys of a key package.
const (
	setLeaf       = "UPDATE contents SET leaf = $1 WHERE id = $2 AND leaf <> $1"
	eraseSealed   = "UPDATE contents SET sealed = '' WHERE id = $1"
	eraseContents = "UPDATE contents SET sealed = '', leaf = '' WHERE id = $1"
)

// Consume implements store.Store. The old version of the row, with the sealed keys, stays in the
// table until VACUUM, and in the WAL: see the package comment.
func (s *Store) Consume(ctx context.Context, ref, digest []byte, at time.Time) error {
	return s.endReservation(ctx, ref, digest, at, func(ctx context.Context, tx *transaction, r *row) error {
		if r.LastResort {
			tx.queue(openLastResort, r.ID)
			tx.queue(setLeaf, []byte{}, r.ID)
		} else {
			tx.queue(consume, sqlstore.Seconds(at), r.ID)
			tx.queue(eraseSealed, r.ID)
		}
		return tx.Record(ctx, r.ID, record.ConsumedEntry(r, digest, at))
	})
}

// endReservation runs f on a key package that is reserved for the Welcome with the digest.
func (s *Store) endReservation(ctx context.Context, ref, digest []byte, at time.Time, f func(context.Context, *transaction, *row) error) error {
	return s.write(ctx, concurrent, func(ctx context.Context, tx *transaction) error {
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
