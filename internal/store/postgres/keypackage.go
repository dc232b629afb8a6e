package postgres

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

const selectKeyPackage = "SELECT " + keyPackageColumns + ", r.id, r.until, e.id, e.begun_at" + keyPackageTables

// keyPackageColumns are those of a key package, of its identity i and of its wrapping key w.
const keyPackageColumns = `k.id, c.ref, i.name, k.cipher_suite, k.state, k.last_resort, k.custody, w.key_id, c.sealed,
	c.public, k.created_at, k.not_before, k.not_after, k.published_at, k.welcome_digest, k.reserved_until, k.consumed_at, k.opened,
	k.version, c.leaf, k.claimed_at, k.retired_until, k.erased_at, k.reserved_from, coalesce(k.directory, ''), k.leased_until,
	k.release_digest, k.handed_over_at, k.confirmed_at`

// keyPackageTables has key packages with what they consist of and refer to, and the backlogs
// that they are to follow: r, to be retired, the first of several, and e, to be erased.
const keyPackageTables = ` FROM key_packages k JOIN contents c ON c.id = k.id JOIN identities i ON i.id = k.identity JOIN wrapping_keys w ON w.id = c.wrapping_key
	LEFT JOIN backlogs r ON r.ID = (SELECT min(o.id) FROM backlogs o
		WHERE o.finished_at IS NULL AND o.identity = k.identity AND o.before > k.version AND o.last >= k.id)
	LEFT JOIN backlogs e ON e.wrapping_key = c.wrapping_key AND e.finished_at IS NULL`

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
	return r, err
}

// insertColumns are those of new rows of the two tables.
var (
	insertColumns  = []string{"id", "identity", "version", "cipher_suite", "state", "last_resort", "custody", "created_at", "not_before", "not_after", "published_at", "release_digest"}
	contentColumns = []string{"id", "wrapping_key", "ref", "leaf", "sealed", "public"}
)

// adding is what one caller adds.
type adding = record.Waiting[[]store.KeyPackage]

// few are so many key packages that a transaction of their own would cost more than they do.
const few = 64

// AddKeyPackages implements store.Store.
func (s *Store) AddKeyPackages(ctx context.Context, batch []store.KeyPackage) error {
	switch n := len(batch); {
	case n == 0:
		return ctx.Err()
	case n <= few:
		return s.additions.Do(ctx, batch)
	}
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		return tx.addAll(ctx, []*adding{{Context: ctx, Act: batch}})
	})
}

// addTogether adds what several callers add in one transaction.
func (s *Store) addTogether(ctx context.Context, acts []*adding) error {
	return s.writeOnce(ctx, beside, func(ctx context.Context, tx *transaction) error { return tx.addAll(ctx, acts) })
}

// addAll adds the key packages of several callers, in the name of each. The rows get their
// numbers first, and go over in one COPY a table.
func (tx *transaction) addAll(ctx context.Context, acts []*adding) error {
	n := 0
	for _, a := range acts {
		n += len(a.Act)
	}
	numbers, err := query(ctx, tx, value[int64], "SELECT nextval(pg_get_serial_sequence('key_packages', 'id')) FROM generate_series(1, $1)", n)
	if err != nil {
		return err
	}
	slices.Sort(numbers)
	signers, err := tx.signers(ctx, acts)
	if err != nil {
		return err
	}
	rows, contents := make([][]any, 0, n), make([][]any, 0, n)
	for _, a := range acts {
		tx.actor = store.Actor(a.Context)
		for i := range a.Act {
			row, content, err := tx.newRow(ctx, signers, numbers[len(rows)], &a.Act[i])
			if err != nil {
				return err
			}
			rows, contents = append(rows, row), append(contents, content)
		}
	}
	if _, err = tx.copyFrom(ctx, "key_packages", insertColumns, pgx.CopyFromRows(rows)); err != nil {
		return err
	}
	_, err = tx.copyFrom(ctx, "contents", contentColumns, pgx.CopyFromRows(contents))
	return err
}

// signer is an identity with its current version.
type signer struct {
	row     int64
	name    string
	version uint64
	retired bool
}

// signers returns the identities that key packages are of, by name.
func (tx *transaction) signers(ctx context.Context, acts []*adding) (map[string]signer, error) {
	byName := make(map[string]signer)
	for _, a := range acts {
		for i := range a.Act {
			byName[a.Act[i].Identity] = signer{}
		}
	}
	scan := func(s scanner) (f signer, err error) {
		err = s.Scan(&f.row, &f.name, &f.version, &f.retired)
		return f, err
	}
	found, err := query(ctx, tx, scan, "SELECT id, name, version, retired_at IS NOT NULL FROM identities WHERE name = ANY($1)", slices.Collect(maps.Keys(byName)))
	clear(byName)
	for _, f := range found {
		byName[f.name] = f
	}
	return byName, err
}

// newRow returns the rows of a new key package, in the order of insertColumns and contentColumns.
func (tx *transaction) newRow(ctx context.Context, signers map[string]signer, number int64, k *store.KeyPackage) (row, content []any, err error) {
	version := max(k.Version, 1)
	by, known := signers[k.Identity]
	if err := by.signs(known, version); err != nil {
		return nil, nil, fmt.Errorf("identity %q, version %d: %w", k.Identity, version, err)
	}
	key, err := tx.usable(ctx, k.WrappingKeyID)
	if err != nil {
		return nil, nil, err
	}
	tx.uses[key]++
	row = []any{number, by.row, int64(version), int32(k.Suite), string(k.State), k.LastResort, k.Custody,
		seconds(k.CreatedAt), seconds(k.NotBefore), seconds(k.NotAfter), optionalSeconds(k.PublishedAt), optionalBlob(k.ReleaseDigest)}
	content = []any{number, key, blob(k.Ref), []byte{}, blob(k.Sealed), blob(k.Public)}
	return row, content, tx.record(number, record.EntryOf(k, audit.Generated, k.CreatedAt))
}

// signs fails for a version that does not sign, nor is to. What one that is old or retired signed
// would be retired by nobody; the next version of a retired one begins it anew. The error is
// store.ErrNotFound or store.ErrState.
func (by signer) signs(known bool, version uint64) error {
	switch {
	case !known:
		return store.ErrNotFound
	case version < by.version, version == by.version && by.retired:
		return store.ErrState
	}
	return nil
}

// KeyPackage implements store.Store.
func (s *Store) KeyPackage(ctx context.Context, ref []byte) (store.KeyPackage, error) {
	r, err := readOne(ctx, s, scanKeyPackage, selectKeyPackage+" WHERE c.ref = $1", blob(ref))
	return r.KeyPackage, err
}

// page is how many key packages a query of KeyPackages reads: between pages no transaction is
// open, which would hold back VACUUM.
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
			args["after"], args["page"] = after, page
			text := selectKeyPackage + " WHERE " + condition + " ORDER BY k.id LIMIT @page"
			rows, err := readAll(ctx, s, scanKeyPackage, text, args)
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
func (s *Store) rowOf(ctx context.Context, ref []byte) (int64, error) {
	if len(ref) == 0 {
		return 0, nil
	}
	return readOne(ctx, s, value[int64], "SELECT id FROM contents WHERE ref = $1", ref)
}

// condition fits the rows of a page, which begins after the row @after. Those of
// one identity are found by index, which has them by state and then by row: the
// first of each state, and of these the page. While rows lag behind a backlog, no index
// has the states.
func condition(f store.Filter, lags bool) (text string, args pgx.NamedArgs) {
	args = pgx.NamedArgs{"identity": f.Identity, "state": string(f.State), "key": f.WrappingKeyID}
	state := "k.state = @state"
	if lags {
		state = stateAhead + " = @state"
	}
	switch {
	case len(f.WrappingKeyID) > 0:
		return "k.id > @after AND e.id IS NULL AND " + under + " AND c.wrapping_key = (SELECT id FROM wrapping_keys WHERE key_id = @key)", args
	case f.Unconfirmed:
		return unconfirmed(f, state), args
	case f.LastResort && f.State == "":
		return "k.id > @after AND k.last_resort AND k.identity = (SELECT id FROM identities WHERE name = @identity)", args
	case f.LastResort:
		return "k.id > @after AND k.last_resort AND k.identity = (SELECT id FROM identities WHERE name = @identity) AND " + state, args
	case f.Identity == "" && f.State == "":
		return "k.id > @after", args
	case f.Identity == "":
		return "k.id > @after AND " + state, args
	}
	states := store.States
	if f.State != "" && !lags {
		states = []store.State{f.State}
	}
	var firsts []string
	for i, state := range states {
		name := fmt.Sprint("state", i)
		firsts = append(firsts, `(SELECT id FROM key_packages
			WHERE identity = (SELECT id FROM identities WHERE name = @identity) AND state = @`+name+` AND id + 0 > @after
			ORDER BY id + 0 LIMIT @page)`)
		args[name] = string(state)
	}
	return "k.id IN (" + strings.Join(firsts, " UNION ALL ") + ")", args
}

// unconfirmed fits what the index unconfirmed has.
func unconfirmed(f store.Filter, state string) string {
	text := "k.id > @after AND e.id IS NULL AND k.release_digest IS NOT NULL AND k.confirmed_at IS NULL AND k.erased_at IS NULL"
	if f.Identity != "" {
		text += " AND k.identity = (SELECT id FROM identities WHERE name = @identity)"
	}
	if f.State != "" {
		text += " AND " + state
	}
	if f.LastResort {
		text += " AND k.last_resort"
	}
	return text
}

// FindRefs implements store.Store.
func (s *Store) FindRefs(ctx context.Context, lo, hi []byte, limit int) ([][]byte, error) {
	return readAll(ctx, s, value[[]byte], "SELECT ref FROM contents WHERE ref BETWEEN $1 AND $2 ORDER BY ref LIMIT $3", lo, hi, limit)
}

// Move implements store.Store.
func (s *Store) Move(ctx context.Context, refs [][]byte, from []store.State, to store.State, at time.Time) error {
	return s.write(ctx, beside, func(ctx context.Context, tx *transaction) error {
		rows, err := tx.keyPackages(ctx, refs, at)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if err := tx.move(r, from, to, at); err != nil {
				return fmt.Errorf("key package %x: %w", r.Ref, err)
			}
		}
		return nil
	})
}

func (tx *transaction) move(r *row, from []store.State, to store.State, at time.Time) error {
	step, stays, err := r.Movable(from, to)
	if err != nil {
		return err
	}
	var published *int64
	if to == store.Published {
		published = optionalSeconds(at)
	}
	if stays {
		tx.later(`UPDATE key_packages SET published_at = coalesce(published_at, $1),
			reserved_from = CASE reserved_from WHEN 'pending' THEN $2 ELSE reserved_from END WHERE id = $3`, published, string(to), r.ID)
	} else {
		tx.later(`UPDATE key_packages SET state = $1, published_at = coalesce(published_at, $2),
			directory = NULL, leased_until = NULL WHERE id = $3`, string(to), published, r.ID)
		r.State = to
	}
	if step != store.Publish {
		return nil
	}
	return tx.record(r.ID, record.EntryOf(&r.KeyPackage, audit.Exported, at))
}

// rows locks rows in the order of their numbers, and returns them as they are then, the oldest
// first. They are read once all are locked, by a statement of its own: one that waits for a lock
// sees what it is about as it was left, and all else as it was when it began.
func (tx *transaction) rows(ctx context.Context, numbers []int64) ([]row, error) {
	if len(numbers) == 0 {
		return nil, nil
	}
	if _, err := tx.change(ctx, "SELECT id FROM key_packages WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", numbers); err != nil {
		return nil, err
	}
	return query(ctx, tx, scanKeyPackage, selectKeyPackage+" WHERE k.id = ANY($1) ORDER BY k.id", numbers)
}

// Stock implements store.Store.
func (s *Store) Stock(ctx context.Context, name string) ([]store.Stock, error) {
	state, tables, err := s.counted(ctx)
	if err != nil {
		return nil, err
	}
	return readAll(ctx, s, func(s scanner) (line store.Stock, err error) {
		return line, translate(s.Scan(&line.Version, &line.State, &line.LastResort, &line.Custody, &line.Count))
	}, "SELECT k.version, "+state+" AS s, k.last_resort, k.custody, count(*)"+tables+` WHERE k.identity = (SELECT id FROM identities WHERE name = $1)
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
	rows, err := readAll(ctx, s, scan, "SELECT "+state+" AS s, count(*)"+tables+`
		WHERE $1 = '' OR k.identity = (SELECT id FROM identities WHERE name = $1) GROUP BY s`, name)
	for _, c := range rows {
		counts[c.state] = c.n
	}
	return counts, err
}
