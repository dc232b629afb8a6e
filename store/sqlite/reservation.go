package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/audit"
	"github.com/hsm-kp/hsm-kp/store"
)

// Reserve implements store.Store.
func (s *Store) Reserve(ctx context.Context, r store.Reservation) (store.KeyPackage, error) {
	var reserved row
	err := s.write(ctx, func(ctx context.Context, tx *transaction) error {
		was, err := tx.keyPackage(ctx, r.Ref, r.Now)
		if err != nil {
			return err
		}
		err = reservable(&was, r.Digest, r.Now)
		if err == nil && len(r.Leaf) > 0 && !bytes.Equal(r.LeafUnder, was.WrappingKeyID) {
			err = store.ErrRewrapped
		}
		if err != nil {
			return fmt.Errorf("key package %x: %w", r.Ref, err)
		}
		_, err = tx.ExecContext(ctx, `UPDATE key_packages SET state = ?, welcome_digest = ?, reserved_until = ?, leaf = ?,
			reserved_from = CASE state WHEN ? THEN reserved_from ELSE state END WHERE id = ?`,
			string(store.Reserved), blob(r.Digest), seconds(r.Until), blob(r.Leaf), string(store.Reserved), was.id)
		if err != nil {
			return err
		}
		if len(r.Leaf) > 0 { // that was a use
			if _, err := tx.ExecContext(ctx, "UPDATE wrapping_keys SET uses = uses + 1 WHERE key_id = ?", blob(r.LeafUnder)); err != nil {
				return err
			}
		}
		for _, act := range []audit.Act{audit.Reserved, audit.Opened} {
			if act == audit.Reserved && was.State == store.Reserved && bytes.Equal(was.WelcomeDigest, r.Digest) {
				continue // it has been before
			}
			e := entryOf(&was.KeyPackage, act, r.Now)
			e.Detail = welcomeDetail(r.Digest)
			if err := tx.record(ctx, was.id, e); err != nil {
				return err
			}
		}
		reserved, err = scanKeyPackage(tx.QueryRowContext(ctx, selectKeyPackage+" WHERE k.id = ?", was.id))
		return err
	})
	return reserved.KeyPackage, err
}

// reservable says what keeps a key package from being reserved for the Welcome with
// the digest.
func reservable(was *row, digest []byte, now time.Time) error {
	switch {
	case was.State == store.Consumed:
		return store.ErrConsumed
	case was.State == store.Erased:
		return store.ErrErased
	case was.State == store.Reserved && !bytes.Equal(was.WelcomeDigest, digest) && now.Before(was.ReservedUntil):
		return fmt.Errorf("%w until %s", store.ErrReserved, was.ReservedUntil.Format(time.RFC3339))
	}
	return nil
}

// welcomeDetail names a Welcome in the trail.
func welcomeDetail(digest []byte) string { return fmt.Sprintf("Welcome %x", digest) }

// Release implements store.Store.
func (s *Store) Release(ctx context.Context, ref, digest []byte, at time.Time) error {
	return s.endReservation(ctx, ref, digest, at, func(ctx context.Context, tx *transaction, r *row) error {
		return release(ctx, tx, r, at)
	})
}

// release ends a reservation for nothing.
func release(ctx context.Context, tx *transaction, r *row, at time.Time) error {
	_, err := tx.ExecContext(ctx, `UPDATE key_packages SET state = reserved_from, reserved_from = NULL, reserved_until = NULL,
		welcome_digest = NULL, leaf = x'' WHERE id = ?`, r.id)
	if err != nil {
		return err
	}
	e := entryOf(&r.KeyPackage, audit.Released, at)
	e.Detail = welcomeDetail(r.WelcomeDigest)
	return tx.record(ctx, r.id, e)
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
			sql.Named("consumed", string(store.Consumed)), sql.Named("at", seconds(at)), sql.Named("id", r.id))
		if err != nil {
			return err
		}
		e := entryOf(&r.KeyPackage, audit.Consumed, at)
		e.Detail = welcomeDetail(digest)
		if r.LastResort {
			e.Detail += ", last resort"
		}
		return tx.record(ctx, r.id, e)
	})
}

// endReservation runs f on a key package that is reserved for the Welcome with the
// digest.
func (s *Store) endReservation(ctx context.Context, ref, digest []byte, at time.Time, f func(context.Context, *transaction, *row) error) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		r, err := tx.keyPackage(ctx, ref, at)
		switch {
		case err != nil:
			return err
		case r.State != store.Reserved:
			return fmt.Errorf("key package %x: %w: it is %s", ref, store.ErrState, r.State)
		case !bytes.Equal(r.WelcomeDigest, digest):
			return fmt.Errorf("key package %x: %w: it is reserved for another Welcome", ref, store.ErrState)
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
		if _, err := tx.ExecContext(ctx, eraseLeaf, sql.Named("id", r.id)); err != nil {
			return err
		}
		return tx.record(ctx, r.id, entryOf(&r.KeyPackage, audit.LeafErased, at))
	})
}
