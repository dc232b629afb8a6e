package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

const insertKeyPackage = `INSERT INTO key_packages (ref, identity, cipher_suite, state, last_resort, custody,
	wrapping_key, sealed, public, created_at, not_before, not_after, published_at, version, release_digest)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

const selectKeyPackage = `SELECT k.id, k.ref, i.name, k.cipher_suite, k.state, k.last_resort, k.custody, w.key_id, k.sealed,
	k.public, k.created_at, k.not_before, k.not_after, k.published_at, k.welcome_digest, k.reserved_until, k.consumed_at, k.opened,
	k.version, k.leaf, k.claimed_at, k.retired_until, k.erased_at, k.reserved_from, coalesce(k.directory, ''), k.leased_until,
	k.release_digest, k.handed_over_at, k.confirmed_at, r.id, r.until, e.id, e.begun_at` + keyPackageTables

// keyPackageTables has key packages with what they refer to, and the backlogs that they are
// to follow: r, to be retired, the first of several, and e, to be erased.
const keyPackageTables = ` FROM key_packages k JOIN identities i ON i.id = k.identity JOIN wrapping_keys w ON w.id = k.wrapping_key
	LEFT JOIN backlogs r ON r.ID = (SELECT min(o.id) FROM backlogs o
		WHERE o.finished_at IS NULL AND o.identity = k.identity AND o.before > k.version AND o.last >= k.id)
	LEFT JOIN backlogs e ON e.wrapping_key = k.wrapping_key AND e.finished_at IS NULL`

// stateAhead is the state of a key package by its row and its backlogs: that of record.Row.Ahead.
const stateAhead = `CASE WHEN k.state IN ('consumed', 'erased') THEN k.state WHEN e.id IS NOT NULL AND ` + under + ` THEN 'erased'
	WHEN r.ID IS NOT NULL AND k.state IN (` + retirableStates + `) THEN 'retired' ELSE k.state END`

type row = record.Row

func scanKeyPackage(s scanner) (row, error) {
	var r row
	var created, notBefore, notAfter int64
	var published, reserved, consumed, claimed, retired, erased, leased, handedOver, confirmed sql.NullInt64
	var from sql.NullString
	var retireBy, until, eraseBy, begun sql.NullInt64
	err := s.Scan(&r.ID, &r.Ref, &r.Identity, &r.Suite, &r.State, &r.LastResort, &r.Custody, &r.WrappingKeyID, &r.Sealed,
		&r.Public, &created, &notBefore, &notAfter, &published, &r.WelcomeDigest, &reserved, &consumed, &r.Opened,
		&r.Version, &r.Leaf, &claimed, &retired, &erased, &from, &r.Directory, &leased,
		&r.ReleaseDigest, &handedOver, &confirmed, &retireBy, &until, &eraseBy, &begun)
	r.CreatedAt, r.NotBefore, r.NotAfter = date(created), date(notBefore), date(notAfter)
	r.PublishedAt, r.ReservedUntil, r.ConsumedAt = optionalDate(published), optionalDate(reserved), optionalDate(consumed)
	r.ClaimedAt, r.RetiredUntil, r.ErasedAt = optionalDate(claimed), optionalDate(retired), optionalDate(erased)
	r.ReservedFrom, r.LeasedUntil = store.State(from.String), optionalDate(leased)
	r.HandedOverAt, r.ConfirmedAt = optionalDate(handedOver), optionalDate(confirmed)
	if err == nil {
		r.Ahead(record.Lag{Retire: retireBy.Int64, Until: optionalDate(until), Erase: eraseBy.Int64, Erased: optionalDate(begun)})
	}
	return r, translate(err)
}

// few are so many key packages that a transaction of their own would cost more than they do.
const few = 64

// AddKeyPackages implements store.Store.
func (s *Store) AddKeyPackages(ctx context.Context, batch []store.KeyPackage) error {
	write := s.share
	if len(batch) > few {
		write = func(ctx context.Context, f act) error { return s.write(ctx, f) }
	}
	return write(ctx, func(ctx context.Context, tx *transaction) error {
		n := numbers{ctx: ctx, tx: tx, identities: map[string]int64{}, wrappingKeys: map[string]int64{}}
		uses := map[int64]int64{}
		insert := tx.StmtContext(ctx, s.insert)
		defer insert.Close()
		for i := range batch {
			key, err := n.insert(insert, &batch[i])
			if err != nil {
				return err
			}
			uses[key]++
		}
		for key, more := range uses {
			if _, err := tx.ExecContext(ctx, "UPDATE wrapping_keys SET uses = uses + ? WHERE id = ?", more, key); err != nil {
				return err
			}
		}
		return nil
	})
}

// numbers finds the rows that key packages of a batch refer to, each once.
type numbers struct {
	ctx          context.Context
	tx           *transaction
	identities   map[string]int64
	wrappingKeys map[string]int64
}

// signsNoMore finds an identity, and whether a version of it is old or retired: what it
// signed would be retired by nobody. The next version of a retired one begins it anew.
const signsNoMore = "SELECT id, iif(version = @version, retired_at IS NOT NULL, version > @version) FROM identities WHERE name = @name"

// insert inserts one key package and returns the row of its wrapping key.
func (n *numbers) insert(stmt *sql.Stmt, k *store.KeyPackage) (int64, error) {
	number := max(k.Version, 1)
	identity, err := n.find(n.identities, fmt.Sprint(number, k.Identity), store.ErrState, signsNoMore, sql.Named("version", number), sql.Named("name", k.Identity))
	if err != nil {
		return 0, fmt.Errorf("identity %q, version %d: %w", k.Identity, number, err)
	}
	key, err := n.find(n.wrappingKeys, string(k.WrappingKeyID), store.ErrWrappingKey, "SELECT id, condemned FROM wrapping_keys WHERE key_id = ?", k.WrappingKeyID)
	if err != nil {
		return 0, fmt.Errorf("wrapping key %x: %w", k.WrappingKeyID, err)
	}
	result, err := stmt.ExecContext(n.ctx, blob(k.Ref), identity, k.Suite, string(k.State), k.LastResort, k.Custody, key, blob(k.Sealed), blob(k.Public),
		seconds(k.CreatedAt), seconds(k.NotBefore), seconds(k.NotAfter), optionalSeconds(k.PublishedAt), number, optionalBlob(k.ReleaseDigest))
	if err != nil {
		return 0, err
	}
	row, err := result.LastInsertId()
	if err != nil {
		return 0, err
	}
	return key, n.tx.record(n.ctx, row, record.EntryOf(k, audit.Generated, k.CreatedAt))
}

// find returns the row that a query finds. The query says whether it is out of use,
// which is the error ended.
func (n *numbers) find(known map[string]int64, name string, ended error, query string, args ...any) (int64, error) {
	if id, ok := known[name]; ok {
		return id, nil
	}
	var id int64
	var over bool
	if err := n.tx.QueryRowContext(n.ctx, query, args...).Scan(&id, &over); err != nil {
		return 0, translate(err)
	}
	if over {
		return 0, ended
	}
	known[name] = id
	return id, nil
}

// KeyPackage implements store.Store.
func (s *Store) KeyPackage(ctx context.Context, ref []byte) (store.KeyPackage, error) {
	r, err := scanKeyPackage(s.db.QueryRowContext(ctx, selectKeyPackage+" WHERE k.ref = ?", ref))
	return r.KeyPackage, err
}

// page is how many key packages a query of KeyPackages reads: between pages no
// read transaction is open, so that the WAL can be folded into the file.
const page = 256

// KeyPackages implements store.Store.
func (s *Store) KeyPackages(ctx context.Context, f store.Filter) iter.Seq2[store.KeyPackage, error] {
	return func(yield func(store.KeyPackage, error) bool) {
		after, err := s.rowOf(ctx, f.After)
		if err != nil {
			yield(store.KeyPackage{}, err)
			return
		}
		for {
			lags, err := s.lags(ctx)
			if err != nil {
				yield(store.KeyPackage{}, err)
				return
			}
			condition, args := condition(f, lags)
			text := selectKeyPackage + " WHERE " + condition + " ORDER BY k.id LIMIT @page"
			rows, err := query(ctx, s.db, scanKeyPackage, text, append(args, sql.Named("after", after), sql.Named("page", page))...)
			if err != nil {
				yield(store.KeyPackage{}, err)
				return
			}
			for i := range rows {
				if f.State != "" && rows[i].State != f.State {
					continue // a backlog was begun since
				}
				if !yield(rows[i].KeyPackage, nil) {
					return
				}
			}
			if len(rows) < page {
				return
			}
			after = rows[len(rows)-1].ID
		}
	}
}

// rowOf returns the row of a key package, or 0, which is before all, for no ref.
func (s *Store) rowOf(ctx context.Context, ref []byte) (id int64, err error) {
	if len(ref) == 0 {
		return 0, nil
	}
	err = s.db.QueryRowContext(ctx, "SELECT id FROM key_packages WHERE ref = ?", ref).Scan(&id)
	return id, translate(err)
}

// condition fits the rows of a page, which begins after the row @after. Those of
// one identity are found by index, which has them by state and then by row: the
// first of each state, and of these the page. While rows lag behind a backlog, no index
// has the states.
func condition(f store.Filter, lags bool) (text string, args []any) {
	state := "k.state = @state"
	if lags {
		state = stateAhead + " = @state"
	}
	switch {
	case len(f.WrappingKeyID) > 0:
		return "k.id > @after AND e.id IS NULL AND " + under + " AND k.wrapping_key = (SELECT id FROM wrapping_keys WHERE key_id = @key)",
			[]any{sql.Named("key", f.WrappingKeyID)}
	case f.Unconfirmed:
		return "k.id > @after AND e.id IS NULL AND k.release_digest IS NOT NULL AND k.sealed <> x'' AND (@state = '' OR " + state + `)
			AND (@identity = '' OR k.identity = (SELECT id FROM identities WHERE name = @identity)) AND k.last_resort >= @last`,
			[]any{sql.Named("identity", f.Identity), sql.Named("state", string(f.State)), sql.Named("last", f.LastResort)}
	case f.LastResort:
		return "k.id > @after AND k.last_resort = 1 AND k.identity = (SELECT id FROM identities WHERE name = @identity) AND (@state = '' OR " + state + ")",
			[]any{sql.Named("identity", f.Identity), sql.Named("state", string(f.State))}
	case f.Identity == "" && f.State == "":
		return "k.id > @after", nil
	case f.Identity == "":
		return "k.id > @after AND " + state, []any{sql.Named("state", string(f.State))}
	}
	states := store.States
	if f.State != "" && !lags {
		states = []store.State{f.State}
	}
	args = append(args, sql.Named("identity", f.Identity))
	var firsts []string
	for i, state := range states {
		firsts = append(firsts, fmt.Sprintf(`SELECT id FROM (SELECT id FROM key_packages
			WHERE identity = (SELECT id FROM identities WHERE name = @identity) AND state = @state%d AND id > @after
			ORDER BY id LIMIT @page)`, i))
		args = append(args, sql.Named(fmt.Sprint("state", i), string(state)))
	}
	return "k.id IN (" + strings.Join(firsts, " UNION ALL ") + ")", args
}

// FindRefs implements store.Store.
func (s *Store) FindRefs(ctx context.Context, lo, hi []byte, limit int) ([][]byte, error) {
	scan := func(s scanner) (ref []byte, err error) { return ref, s.Scan(&ref) }
	return query(ctx, s.db, scan, "SELECT ref FROM key_packages WHERE ref BETWEEN ? AND ? ORDER BY ref LIMIT ?", lo, hi, limit)
}

// Move implements store.Store.
func (s *Store) Move(ctx context.Context, refs [][]byte, from []store.State, to store.State, at time.Time) error {
	return s.write(ctx, func(ctx context.Context, tx *transaction) error {
		for _, ref := range refs {
			r, err := tx.keyPackage(ctx, ref, at)
			if err != nil {
				return err
			}
			if err := move(ctx, tx, &r, from, to, at); err != nil {
				return fmt.Errorf("key package %x: %w", ref, err)
			}
		}
		return nil
	})
}

func move(ctx context.Context, tx *transaction, r *row, from []store.State, to store.State, at time.Time) error {
	step, stays, err := r.Movable(from, to)
	if err != nil {
		return err
	}
	published := sql.NullInt64{Int64: seconds(at), Valid: to == store.Published}
	if stays {
		_, err = tx.ExecContext(ctx, `UPDATE key_packages SET published_at = coalesce(published_at, ?),
			reserved_from = iif(reserved_from = ?, ?, reserved_from) WHERE id = ?`, published, string(store.Pending), string(to), r.ID)
	} else {
		_, err = tx.ExecContext(ctx, `UPDATE key_packages SET state = ?, published_at = coalesce(published_at, ?),
			directory = NULL, leased_until = NULL WHERE id = ?`, string(to), published, r.ID)
	}
	if err != nil {
		return err
	}
	if step != store.Publish {
		return nil
	}
	return tx.record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Exported, at))
}

// claimable finds the first rows that Claim, or Dispatch, may hand out of those under one wrapping key, by
// an index. What is under a key that is being shredded may be half a million rows, none of
// which is read while a claim holds the store: those keys are left out.
const claimable = `SELECT c.id FROM key_packages c WHERE c.state = 'available' AND c.wrapping_key = @key
	AND c.identity = (SELECT id FROM identities WHERE name = @name)
	AND c.version = (SELECT version FROM identities WHERE name = @name AND retired_at IS NULL)
	AND NOT EXISTS (SELECT 1 FROM backlogs o WHERE o.finished_at IS NULL AND o.identity = c.identity AND o.before > c.version AND o.last >= c.id)
	AND (c.release_digest IS NULL OR c.confirmed_at IS NOT NULL)
	AND c.last_resort = @last AND c.not_before <= @at AND c.not_after > @ending ORDER BY c.id LIMIT @n`

// claimable returns the first n rows that may be handed out.
func (tx *transaction) claimable(ctx context.Context, identity string, lastResort bool, n int, at, ending time.Time) ([]row, error) {
	number := func(s scanner) (id int64, err error) { return id, s.Scan(&id) }
	keys, err := queryTx(ctx, tx, number, `SELECT id FROM wrapping_keys
		WHERE id NOT IN (SELECT wrapping_key FROM backlogs WHERE finished_at IS NULL AND wrapping_key IS NOT NULL)`)
	var first []int64
	for _, key := range keys {
		var ids []int64
		if err == nil {
			ids, err = queryTx(ctx, tx, number, claimable, sql.Named("key", key), sql.Named("name", identity), sql.Named("last", lastResort), sql.Named("at", seconds(at)), sql.Named("ending", seconds(ending)), sql.Named("n", n))
		}
		first = append(first, ids...)
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(first)
	return tx.rows(ctx, first[:min(n, len(first))])
}

// rows returns key packages by their rows, the oldest first.
func (tx *transaction) rows(ctx context.Context, ids []int64) ([]row, error) {
	return queryTx(ctx, tx, scanKeyPackage, selectKeyPackage+" WHERE k.id IN (SELECT value FROM json_each(?)) ORDER BY k.id", list(ids))
}

// Claim implements store.Store.
func (s *Store) Claim(ctx context.Context, identity string, n int, at time.Time) (claimed []store.KeyPackage, err error) {
	err = s.write(ctx, func(ctx context.Context, tx *transaction) error {
		rows, err := tx.claimable(ctx, identity, false, max(n, 0), at, at) // SQLite takes a negative limit for none
		if err != nil {
			return err
		}
		claimed = nil
		for i := range rows {
			r := &rows[i]
			if _, err := tx.ExecContext(ctx, "UPDATE key_packages SET state = ?, claimed_at = ? WHERE id = ?", string(store.Claimed), seconds(at), r.ID); err != nil {
				return err
			}
			if err := tx.record(ctx, r.ID, record.EntryOf(&r.KeyPackage, audit.Claimed, at)); err != nil {
				return err
			}
			r.State, r.ClaimedAt = store.Claimed, date(seconds(at))
			claimed = append(claimed, r.KeyPackage)
		}
		return nil
	})
	return claimed, err
}

// Stock implements store.Store.
func (s *Store) Stock(ctx context.Context, name string) ([]store.Stock, error) {
	state, tables, err := s.counted(ctx)
	if err != nil {
		return nil, err
	}
	return query(ctx, s.db, func(s scanner) (line store.Stock, err error) {
		return line, translate(s.Scan(&line.Version, &line.State, &line.LastResort, &line.Custody, &line.Count))
	}, "SELECT k.version, "+state+" AS s, k.last_resort, k.custody, count(*)"+tables+` WHERE k.identity = (SELECT id FROM identities WHERE name = ?)
		GROUP BY k.version, s, k.last_resort, k.custody ORDER BY k.version, s, k.last_resort, k.custody`, name)
}

// counted returns the state of a key package, and the tables that it is found in: an index
// has it, unless rows lag behind a backlog.
func (s *Store) counted(ctx context.Context) (state, tables string, err error) {
	lags, err := s.lags(ctx)
	if lags {
		return stateAhead, keyPackageTables, err
	}
	return "k.state", " FROM key_packages k", err
}

// Count implements store.Store.
func (s *Store) Count(ctx context.Context, name string) (map[store.State]uint64, error) {
	counts := make(map[store.State]uint64, len(store.States))
	for _, state := range store.States {
		counts[state] = 0
	}
	type count struct {
		state store.State
		n     uint64
	}
	scan := func(s scanner) (c count, err error) { return c, s.Scan(&c.state, &c.n) }
	state, tables, err := s.counted(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := query(ctx, s.db, scan, "SELECT "+state+" AS s, count(*)"+tables+`
		WHERE ? = '' OR k.identity = (SELECT id FROM identities WHERE name = ?) GROUP BY s`, name, name)
	for _, c := range rows {
		counts[c.state] = c.n
	}
	return counts, err
}
