package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// resumable finds rows that were on their way to a directory, and whose lease is over.
const resumable = selectKeyPackage + ` WHERE k.state = 'pending' AND r.ID IS NULL AND e.id IS NULL AND k.directory = @directory AND k.identity = (SELECT id FROM identities WHERE name = @name)
	AND coalesce(k.leased_until, 0) <= @at AND k.last_resort = @last AND k.not_before <= @at AND k.not_after > @ending ORDER BY k.id LIMIT @n`

// Dispatch implements store.Store.
func (s *Store) Dispatch(ctx context.Context, d store.Dispatch) (dispatched []store.Dispatched, err error) {
	err = s.write(ctx, func(ctx context.Context, tx *transaction) error {
		dispatched = nil
		rows, err := tx.dispatchable(ctx, &d)
		for i := range rows {
			if err == nil {
				err = tx.send(ctx, &rows[i], &d)
			}
			if err != nil {
				return err
			}
			if rows[i].State == store.Pending {
				dispatched = append(dispatched, store.Dispatched{KeyPackage: rows[i].KeyPackage, Again: rows[i].again})
			}
		}
		return err
	})
	return dispatched, err
}

// sendable is a row that goes to a directory, perhaps again.
type sendable struct {
	row
	again bool
}

func (tx *transaction) dispatchable(ctx context.Context, d *store.Dispatch) (all []sendable, err error) {
	n := max(d.N, 0) // SQLite takes a negative limit for none
	rows, err := queryTx(ctx, tx, scanKeyPackage, resumable, sql.Named("directory", d.Directory), sql.Named("name", d.Identity),
		sql.Named("at", seconds(d.Now)), sql.Named("ending", seconds(latest(d.Now, d.Ending))), sql.Named("last", d.LastResort), sql.Named("n", n))
	if err != nil {
		return nil, err
	}
	for i := range rows {
		all = append(all, sendable{rows[i], true})
	}
	if d.Resume {
		return all, nil
	}
	rows, err = tx.claimable(ctx, d.Identity, d.LastResort, n-len(rows), d.Now, latest(d.Now, d.Ending))
	for i := range rows {
		all = append(all, sendable{rows[i], false})
	}
	return all, err
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// send puts a row on its way, unless a backlog has other plans for it.
func (tx *transaction) send(ctx context.Context, r *sendable, d *store.Dispatch) error {
	if err := tx.catchUp(ctx, &r.row, d.Now); err != nil {
		return err
	}
	if !store.Allowed(r.State, store.Write, store.Pending) {
		return nil
	}
	r.State, r.Directory, r.LeasedUntil = store.Pending, d.Directory, date(seconds(d.Until))
	_, err := tx.ExecContext(ctx, "UPDATE key_packages SET state = 'pending', directory = ?, leased_until = ? WHERE id = ?",
		d.Directory, seconds(d.Until), r.ID)
	return err
}

// Acknowledge implements store.Store.
func (s *Store) Acknowledge(ctx context.Context, refs [][]byte, directory string, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		for _, ref := range refs {
			r, err := tx.keyPackage(ctx, ref, at)
			if err == nil {
				err = acknowledge(ctx, tx, &r, directory, at)
			}
			if err != nil {
				return fmt.Errorf("key package %x: %w", ref, err)
			}
		}
		return nil
	})
}

func acknowledge(ctx context.Context, tx *transaction, r *row, directory string, at time.Time) error {
	changes, err := r.Acknowledge(directory)
	if err != nil || !changes {
		return err
	}
	_, err = tx.ExecContext(ctx, `UPDATE key_packages SET state = iif(state = 'pending', 'published', state),
		reserved_from = iif(reserved_from = 'pending', 'published', reserved_from),
		published_at = coalesce(published_at, ?), leased_until = NULL WHERE id = ?`, seconds(at), r.ID)
	if err != nil {
		return err
	}
	return tx.record(ctx, r.ID, record.AcknowledgedEntry(r, directory, at))
}

// Return implements store.Store. A lease that is over is one of the time 0: without any, the
// row would look as if it had been acknowledged.
func (s *Store) Return(ctx context.Context, refs [][]byte, until time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		for _, ref := range refs {
			_, err := tx.ExecContext(ctx, "UPDATE key_packages SET leased_until = 0 WHERE ref = ? AND state = 'pending' AND leased_until = ?",
				blob(ref), seconds(until))
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Level implements store.Store.
func (s *Store) Level(ctx context.Context, identity, directory string, after time.Time) (level store.Level, err error) {
	if _, err := s.Identity(ctx, identity); err != nil {
		return level, fmt.Errorf("identity %q: %w", identity, err)
	}
	state, tables, err := s.counted(ctx)
	if err != nil {
		return level, err
	}
	type count struct {
		state store.State
		n     uint64
	}
	rows, err := query(ctx, s.db, func(s scanner) (c count, err error) { return c, s.Scan(&c.state, &c.n) },
		"SELECT "+state+" AS s, count(*)"+tables+` WHERE k.identity = (SELECT id FROM identities WHERE name = @name)
		AND k.version = (SELECT version FROM identities WHERE name = @name AND retired_at IS NULL)
		AND (k.state = 'available' AND (k.release_digest IS NULL OR k.confirmed_at IS NOT NULL) OR k.state IN ('pending', 'published') AND k.directory = @directory)
		AND NOT k.last_resort AND k.not_after > @after GROUP BY s`,
		sql.Named("name", identity), sql.Named("directory", directory), sql.Named("after", seconds(after)))
	for _, c := range rows {
		switch c.state {
		case store.Available:
			level.Available = c.n
		case store.Pending:
			level.Underway = c.n
		case store.Published:
			level.Published = c.n
		}
	}
	return level, err
}

// Lease implements store.Store.
func (s *Store) Lease(ctx context.Context, name, holder string, until, now time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		n, err := count(tx.ExecContext(ctx, `INSERT INTO leases (name, holder, until) VALUES (@name, @holder, @until)
			ON CONFLICT (name) DO UPDATE SET holder = @holder, until = @until WHERE holder = @holder OR until <= @now`,
			sql.Named("name", name), sql.Named("holder", holder), sql.Named("until", seconds(until)), sql.Named("now", seconds(now))))
		if err == nil && n == 0 {
			err = fmt.Errorf("%s: %w", name, store.ErrHeld)
		}
		return err
	})
}

// Unlease implements store.Store.
func (s *Store) Unlease(ctx context.Context, name, holder string) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM leases WHERE name = ? AND holder = ?", name, holder)
		return err
	})
}

const selectAccount = `SELECT i.name, a.directory, a.client, a.wrapping_key, a.sealed, a.created_at
	FROM accounts a JOIN identities i ON i.id = a.identity`

func scanAccount(s scanner) (a store.Account, err error) {
	var created int64
	err = s.Scan(&a.Identity, &a.Directory, &a.Client, &a.WrappingKeyID, &a.Sealed, &created)
	a.CreatedAt = date(created)
	return a, translate(err)
}

// Account implements store.Store.
func (s *Store) Account(ctx context.Context, directory string, client []byte) (store.Account, error) {
	a, err := scanAccount(s.db.QueryRowContext(ctx, selectAccount+" WHERE a.directory = ? AND a.client = ?", directory, blob(client)))
	if err != nil {
		err = fmt.Errorf("account in directory %q: %w", directory, err)
	}
	return a, err
}

// Accounts implements store.Store.
func (s *Store) Accounts(ctx context.Context, wrappingKeyID []byte) ([]store.Account, error) {
	return query(ctx, s.db, scanAccount, selectAccount+" WHERE a.wrapping_key = ? ORDER BY a.id", blob(wrappingKeyID))
}

// SetAccount implements store.Store.
func (s *Store) SetAccount(ctx context.Context, a store.Account) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		var identity int64
		err := tx.QueryRowContext(ctx, "SELECT id FROM identities WHERE name = ?", a.Identity).Scan(&identity)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("identity %q: %w", a.Identity, store.ErrNotFound)
		}
		if err == nil {
			err = tx.stampable(ctx, a.WrappingKeyID)
		}
		if err == nil {
			_, err = tx.ExecContext(ctx, `INSERT INTO accounts (identity, directory, client, wrapping_key, sealed, created_at) VALUES (?, ?, ?, ?, ?, ?)
				ON CONFLICT (directory, client) DO UPDATE SET wrapping_key = excluded.wrapping_key, sealed = excluded.sealed`,
				identity, a.Directory, blob(a.Client), blob(a.WrappingKeyID), blob(a.Sealed), seconds(a.CreatedAt))
		}
		return err
	})
}
