package sqlstore

import (
	"context"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// step takes a step with key packages, all or none.
func (a *Acts) step(ctx context.Context, refs [][]byte, at time.Time, take func(context.Context, Tx, *record.Row) error) error {
	return a.db.Concurrent(ctx, func(ctx context.Context, tx Tx) error {
		rows, err := tx.KeyPackages(ctx, refs, at)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := take(ctx, tx, r); err != nil {
				return fmt.Errorf("key package %x: %w", r.Ref, err)
			}
		}
		return nil
	})
}

// Move implements store.Store.
func (a *Acts) Move(ctx context.Context, refs [][]byte, from []store.State, to store.State, at time.Time) error {
	return a.step(ctx, refs, at, func(ctx context.Context, tx Tx, r *record.Row) error { return move(ctx, tx, r, from, to, at) })
}

func move(ctx context.Context, tx Tx, r *record.Row, from []store.State, to store.State, at time.Time) error {
	step, stays, err := r.Movable(from, to)
	if err != nil {
		return err
	}
	var published *int64
	if to == store.Published {
		published = OptionalSeconds(at)
	}
	if stays {
		err = tx.Later(ctx, `UPDATE key_packages SET published_at = coalesce(published_at, $1),
			reserved_from = CASE reserved_from WHEN 'pending' THEN $2 ELSE reserved_from END WHERE id = $3`, published, string(to), r.ID)
	} else {
		r.State = to
		err = tx.Later(ctx, `UPDATE key_packages SET state = $1, published_at = coalesce(published_at, $2),
			directory = NULL, leased_until = NULL WHERE id = $3`, string(to), published, r.ID)
	}
	if err != nil || step != store.Publish {
		return err
	}
	return tx.Record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Exported, at))
}

// Acknowledge implements store.Store.
func (a *Acts) Acknowledge(ctx context.Context, refs [][]byte, directory string, at time.Time) error {
	return a.step(ctx, refs, at, func(ctx context.Context, tx Tx, r *record.Row) error { return acknowledge(ctx, tx, r, directory, at) })
}

func acknowledge(ctx context.Context, tx Tx, r *record.Row, directory string, at time.Time) error {
	changes, err := r.Acknowledge(directory)
	if err != nil || !changes {
		return err
	}
	err = tx.Later(ctx, `UPDATE key_packages SET state = CASE state WHEN 'pending' THEN 'published' ELSE state END,
		reserved_from = CASE reserved_from WHEN 'pending' THEN 'published' ELSE reserved_from END,
		published_at = coalesce(published_at, $1), leased_until = NULL WHERE id = $2`, Seconds(at), r.ID)
	if err != nil {
		return err
	}
	r.LeasedUntil = time.Time{}
	if r.State == store.Pending {
		r.State = store.Published
	}
	return tx.Record(ctx, r.ID, record.AcknowledgedEntry(r, directory, at))
}

// Retire implements store.Store.
func (a *Acts) Retire(ctx context.Context, refs [][]byte, until, at time.Time) error {
	return a.step(ctx, refs, at, func(ctx context.Context, tx Tx, r *record.Row) error {
		if !r.Retirable() {
			return fmt.Errorf("%w: it is %s", store.ErrState, r.State)
		}
		if err := Retire(ctx, tx, r, until, at); err != nil {
			return err
		}
		r.State = store.Retired
		return nil
	})
}

// Retire retires a key package. One that is reserved stays so until its Welcome is settled.
func Retire(ctx context.Context, tx Tx, r *record.Row, until, at time.Time) error {
	err := tx.Later(ctx, `UPDATE key_packages SET state = CASE state WHEN 'reserved' THEN state ELSE 'retired' END, retired_until = $1,
		reserved_from = CASE state WHEN 'reserved' THEN 'retired' END WHERE id = $2`, Seconds(until), r.ID)
	if err != nil {
		return err
	}
	return tx.Record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Retired, at))
}

// HandOver implements store.Store.
func (a *Acts) HandOver(ctx context.Context, refs [][]byte, digest []byte, at time.Time) error {
	return a.step(ctx, refs, at, func(ctx context.Context, tx Tx, r *record.Row) error {
		err := r.Releasable(digest)
		if err == nil {
			err = tx.Later(ctx, "UPDATE key_packages SET handed_over_at = coalesce(handed_over_at, $1) WHERE id = $2", Seconds(at), r.ID)
		}
		if err != nil {
			return err
		}
		return tx.Record(ctx, r.ID, record.HandedOverEntry(r, at))
	})
}

// ConfirmHandover implements store.Store. What becomes of the bytes that are erased, each backend
// says.
func (a *Acts) ConfirmHandover(ctx context.Context, refs [][]byte, at time.Time) (erased uint64, err error) {
	err = a.db.Concurrent(ctx, func(ctx context.Context, tx Tx) error {
		erased = 0
		rows, err := tx.KeyPackages(ctx, refs, at)
		if err != nil {
			return err
		}
		for _, r := range rows {
			changes, err := r.Confirmable()
			if err == nil && changes {
				erased++
				err = a.confirm(ctx, tx, r, at)
			}
			if err != nil {
				return fmt.Errorf("key package %x: %w", r.Ref, err)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return erased, nil
}

// confirm erases the private keys of a key package whose device has them.
func (a *Acts) confirm(ctx context.Context, tx Tx, r *record.Row, at time.Time) error {
	r.Sealed = nil
	err := tx.Later(ctx, "UPDATE key_packages SET confirmed_at = $1 WHERE id = $2", Seconds(at), r.ID)
	if err == nil {
		err = tx.Later(ctx, "UPDATE "+a.layout.Contents+" SET sealed = $1 WHERE id = $2", []byte{}, r.ID)
	}
	if err != nil {
		return err
	}
	return tx.Record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Confirmed, at))
}

// EraseLeaf implements store.Store.
func (a *Acts) EraseLeaf(ctx context.Context, ref []byte, at time.Time) error {
	return a.step(ctx, [][]byte{ref}, at, func(ctx context.Context, tx Tx, r *record.Row) error {
		switch {
		case r.State != store.Consumed:
			return fmt.Errorf("%w: it is %s", store.ErrState, r.State)
		case len(r.Leaf) == 0:
			return nil
		}
		err := tx.Later(ctx, "UPDATE "+a.layout.Contents+" SET leaf = $1 WHERE id = $2", []byte{}, r.ID)
		if err != nil {
			return err
		}
		return tx.Record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.LeafErased, at))
	})
}
