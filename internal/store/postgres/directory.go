package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// resumable finds rows that were on their way to a directory, and whose lease is over. Those
// that another transaction is about to send are passed over, here as below.
const resumable = `SELECT k.id FROM key_packages k WHERE k.state = 'pending' AND k.directory = @directory
	AND k.identity = (SELECT id FROM identities WHERE name = @name) AND coalesce(k.leased_until, 0) <= @at AND k.last_resort = @last
	AND k.not_before <= @at AND k.not_after > @ending
	AND ` + ahead + `
	ORDER BY k.id + 0 LIMIT %d FOR NO KEY UPDATE SKIP LOCKED`

// sendable finds rows that may go to a directory, by the condition for those of last resort, or
// for all others: each has an index of its own.
const sendable = `SELECT k.id FROM key_packages k WHERE k.state = 'available' AND %s
	AND ` + free + ` AND k.not_after > @ending ORDER BY k.id - 0 LIMIT %d FOR NO KEY UPDATE SKIP LOCKED`

// Dispatch implements store.Store.
func (s *Store) Dispatch(ctx context.Context, d store.Dispatch) (dispatched []store.Dispatched, err error) {
	if d.N <= 0 {
		return nil, ctx.Err()
	}
	err = s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		dispatched = nil
		args := pgx.NamedArgs{
			"name": d.Identity, "directory": d.Directory, "last": d.LastResort,
			"at": seconds(d.Now), "ending": max(seconds(d.Now), seconds(d.Ending)),
		}
		again, err := query(ctx, tx, value[int64], fmt.Sprintf(resumable, d.N), args)
		var fresh []int64
		if err == nil && !d.Resume && len(again) < d.N {
			kind := "NOT k.last_resort"
			if d.LastResort {
				kind = "k.last_resort"
			}
			fresh, err = query(ctx, tx, value[int64], fmt.Sprintf(sendable, kind, d.N-len(again)), args)
		}
		for i, numbers := range [][]int64{again, fresh} {
			if err == nil {
				err = tx.send(ctx, numbers, &d, i == 0, &dispatched)
			}
		}
		return err
	})
	return dispatched, err
}

// send puts rows that are locked on their way.
func (tx *transaction) send(ctx context.Context, numbers []int64, d *store.Dispatch, again bool, to *[]store.Dispatched) error {
	if len(numbers) == 0 {
		return nil
	}
	_, err := tx.change(ctx, "UPDATE key_packages SET state = 'pending', directory = $1, leased_until = $2 WHERE id = ANY($3)",
		d.Directory, seconds(d.Until), numbers)
	if err != nil {
		return err
	}
	rows, err := query(ctx, tx, scanKeyPackage, selectKeyPackage+" WHERE k.id = ANY($1) ORDER BY k.id", numbers)
	for i := range rows {
		*to = append(*to, store.Dispatched{KeyPackage: rows[i].KeyPackage, Again: again})
	}
	return err
}

// Acknowledge implements store.Store.
func (s *Store) Acknowledge(ctx context.Context, refs [][]byte, directory string, at time.Time) error {
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		rows, err := tx.keyPackages(ctx, refs, at)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := tx.acknowledge(r, directory, at); err != nil {
				return fmt.Errorf("key package %x: %w", r.Ref, err)
			}
		}
		return nil
	})
}

func (tx *transaction) acknowledge(r *row, directory string, at time.Time) error {
	changes, err := r.Acknowledge(directory)
	if err != nil || !changes {
		return err
	}
	tx.later(`UPDATE key_packages SET state = CASE state WHEN 'pending' THEN 'published' ELSE state END,
		reserved_from = CASE reserved_from WHEN 'pending' THEN 'published' ELSE reserved_from END,
		published_at = coalesce(published_at, $1), leased_until = NULL WHERE id = $2`, seconds(at), r.ID)
	r.LeasedUntil = time.Time{} // it may stand twice among the refs
	if r.State == store.Pending {
		r.State = store.Published
	}
	return tx.record(r.ID, record.AcknowledgedEntry(r, directory, at))
}

// Return implements store.Store. A lease that is over is one of the time 0: without any, the
// row would look as if it had been acknowledged.
func (s *Store) Return(ctx context.Context, refs [][]byte, until time.Time) error {
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		numbers, err := query(ctx, tx, value[int64], "SELECT id FROM contents WHERE ref = ANY($1)", refs)
		if err != nil || len(numbers) == 0 {
			return err
		}
		if _, err := tx.rows(ctx, numbers); err != nil { // locked in their order
			return err
		}
		_, err = tx.change(ctx, "UPDATE key_packages SET leased_until = 0 WHERE id = ANY($1) AND state = 'pending' AND leased_until = $2",
			numbers, seconds(until))
		return err
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
	rows, err := readAll(ctx, s, func(s scanner) (c count, err error) { return c, s.Scan(&c.state, &c.n) },
		"SELECT "+state+" AS s, count(*)"+tables+` WHERE k.identity = (SELECT id FROM identities WHERE name = @name)
		AND k.version = (SELECT version FROM identities WHERE name = @name AND retired_at IS NULL)
		AND (k.state = 'available' AND `+settled+` OR k.state IN ('pending', 'published') AND k.directory = @directory)
		AND NOT k.last_resort AND k.not_after > @after GROUP BY s`,
		pgx.NamedArgs{"name": identity, "directory": directory, "after": seconds(after)})
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
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		n, err := tx.change(ctx, `INSERT INTO leases (name, holder, until) VALUES (@name, @holder, @until)
			ON CONFLICT (name) DO UPDATE SET holder = @holder, until = @until WHERE leases.holder = @holder OR leases.until <= @now`,
			pgx.NamedArgs{"name": name, "holder": holder, "until": seconds(until), "now": seconds(now)})
		if err == nil && n == 0 {
			err = fmt.Errorf("%s: %w", name, store.ErrHeld)
		}
		return err
	})
}

// Unlease implements store.Store.
func (s *Store) Unlease(ctx context.Context, name, holder string) error {
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		_, err := tx.change(ctx, "DELETE FROM leases WHERE name = $1 AND holder = $2", name, holder)
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
	a, err := readOne(ctx, s, scanAccount, selectAccount+" WHERE a.directory = $1 AND a.client = $2", directory, blob(client))
	if err != nil {
		err = fmt.Errorf("account in directory %q: %w", directory, err)
	}
	return a, err
}

// Accounts implements store.Store.
func (s *Store) Accounts(ctx context.Context, wrappingKeyID []byte) ([]store.Account, error) {
	return readAll(ctx, s, scanAccount, selectAccount+" WHERE a.wrapping_key = $1 ORDER BY a.id", blob(wrappingKeyID))
}

// SetAccount implements store.Store.
func (s *Store) SetAccount(ctx context.Context, a store.Account) error {
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		identity, err := queryOne(ctx, tx, value[int64], "SELECT id FROM identities WHERE name = $1", a.Identity)
		if errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("identity %q: %w", a.Identity, store.ErrNotFound)
		}
		if err == nil {
			err = tx.stampable(ctx, a.WrappingKeyID)
		}
		if err == nil {
			_, err = tx.change(ctx, `INSERT INTO accounts (identity, directory, client, wrapping_key, sealed, created_at) VALUES ($1, $2, $3, $4, $5, $6)
				ON CONFLICT (directory, client) DO UPDATE SET wrapping_key = excluded.wrapping_key, sealed = excluded.sealed`,
				identity, a.Directory, blob(a.Client), blob(a.WrappingKeyID), blob(a.Sealed), seconds(a.CreatedAt))
		}
		return err
	})
}
