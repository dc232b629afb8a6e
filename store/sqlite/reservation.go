package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/store"
)

// Reserve implements store.Store.
func (s *Store) Reserve(ctx context.Context, ref, digest []byte, until, now time.Time) (store.KeyPackage, error) {
	var reserved row
	err := s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		was, err := scanKeyPackage(tx.QueryRowContext(ctx, selectKeyPackage+" WHERE k.ref = ?", ref))
		if err != nil {
			return fmt.Errorf("key package %x: %w", ref, err)
		}
		switch {
		case was.State == store.Consumed:
			return fmt.Errorf("key package %x: %w", ref, store.ErrConsumed)
		case was.State == store.Expired:
			return fmt.Errorf("key package %x: %w", ref, store.ErrExpired)
		case was.State == store.Reserved && !bytes.Equal(was.WelcomeDigest, digest) && now.Before(was.ReservedUntil):
			return fmt.Errorf("key package %x: %w until %s", ref, store.ErrReserved, was.ReservedUntil.Format(time.RFC3339))
		}
		_, err = tx.ExecContext(ctx, `UPDATE key_packages SET state = ?, welcome_digest = ?, reserved_until = ?,
			reserved_from = CASE state WHEN ? THEN reserved_from ELSE state END WHERE ref = ?`,
			string(store.Reserved), blob(digest), seconds(until), string(store.Reserved), ref)
		if err != nil {
			return err
		}
		reserved, err = scanKeyPackage(tx.QueryRowContext(ctx, selectKeyPackage+" WHERE k.ref = ?", ref))
		return err
	})
	return reserved.KeyPackage, err
}

// Release implements store.Store.
func (s *Store) Release(ctx context.Context, ref, digest []byte) error {
	return s.endReservation(ctx, ref, digest, `UPDATE key_packages SET state = reserved_from, reserved_from = NULL, reserved_until = NULL,
		welcome_digest = NULL WHERE ref = @ref`)
}

// Consume implements store.Store. The pages that held the sealed keys are
// overwritten: see secure_delete.
func (s *Store) Consume(ctx context.Context, ref, digest []byte, at time.Time) error {
	return s.endReservation(ctx, ref, digest, `UPDATE key_packages SET
		state       = iif(last_resort, reserved_from, @consumed),
		sealed      = iif(last_resort, sealed, x''),
		consumed_at = iif(last_resort, NULL, @at),
		opened      = opened + last_resort,
		reserved_from = NULL, reserved_until = NULL WHERE ref = @ref`,
		sql.Named("consumed", string(store.Consumed)), sql.Named("at", seconds(at)))
}

// endReservation runs an update on a key package that is reserved for the Welcome with
// the digest.
func (s *Store) endReservation(ctx context.Context, ref, digest []byte, update string, args ...any) error {
	return s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		was, err := scanKeyPackage(tx.QueryRowContext(ctx, selectKeyPackage+" WHERE k.ref = ?", ref))
		switch {
		case err != nil:
			return fmt.Errorf("key package %x: %w", ref, err)
		case was.State != store.Reserved:
			return fmt.Errorf("key package %x: %w: it is %s", ref, store.ErrState, was.State)
		case !bytes.Equal(was.WelcomeDigest, digest):
			return fmt.Errorf("key package %x: %w: it is reserved for another Welcome", ref, store.ErrState)
		}
		_, err = tx.ExecContext(ctx, update, append(args, sql.Named("ref", ref))...)
		return err
	})
}
