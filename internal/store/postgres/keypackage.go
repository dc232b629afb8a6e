package postgres

import (
	"context"
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
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

const selectKeyPackage = "SELECT " + keyPackageColumns + ", r.id, r.until, e.id, e.begun_at" + keyPackageTables

// keyPackageColumns are those of a key package, of its identity i and of its wrapping key w.
const keyPackageColumns = `k.id, c.ref, i.name, k.cipher_suite, k.state, k.last_resort, k.custody, w.key_id, c.sealed,
	c.public, k.created_at, k.not_before, k.not_after, k.published_at, k.welcome_digest, k.reserved_until, k.consumed_at, k.opened,
	k.version, c.leaf, k.claimed_at, k.retired_until, k.erased_at, k.reserved_from, coalesce(k.directory, ''), k.leased_until,
	k.release_digest, k.handed_over_at, k.confirmed_at`

// keyPackageTables has key packages with what they consist of and refer to, and the backlogs that
// they have still to follow: r, the first one that retires them, and e, which erases their private
// keys.
const keyPackageTables = ` FROM key_packages k JOIN contents c ON c.id = k.id JOIN identities i ON i.id = k.identity JOIN wrapping_keys w ON w.id = c.wrapping_key
	LEFT JOIN backlogs r ON r.id = (SELECT min(o.id) FROM backlogs o
		WHERE o.finished_at IS NULL AND o.identity = k.identity AND o.before > k.version AND o.last >= k.id)
	LEFT JOIN backlogs e ON e.wrapping_key = c.wrapping_key AND e.finished_at IS NULL`

// hasKeys is the condition of rows of contents that have private keys. The index contents_under
// has the same one.
const hasKeys = "(sealed <> '' OR leaf <> '')"

var layout = sqlstore.Layout{Contents: "contents", HasKeys: hasKeys, Lagging: keyPackageTables}

type row = record.Row

// insertColumns and contentColumns are those of new rows in the two tables.
var (
	insertColumns  = []string{"id", "identity", "version", "cipher_suite", "state", "last_resort", "custody", "created_at", "not_before", "not_after", "published_at", "release_digest"}
	contentColumns = []string{"id", "wrapping_key", "ref", "leaf", "sealed", "public"}
)

// adding is what one caller adds.
type adding = record.Waiting[[]store.KeyPackage]

// few is how many key packages cost less than a transaction of their own would.
const few = 64

// AddKeyPackages implements store.Store.
func (s *Store) AddKeyPackages(ctx context.Context, batch []store.KeyPackage) error {
	switch n := len(batch); {
	case n == 0:
		return ctx.Err()
	case n <= few:
		return s.additions.Do(ctx, batch)
	}
	return s.write(ctx, concurrent, func(ctx context.Context, tx *transaction) error {
		return tx.addAll(ctx, []*adding{{Context: ctx, Act: batch}})
	})
}

// addTogether adds what several callers add in one transaction.
func (s *Store) addTogether(ctx context.Context, acts []*adding) error {
	return s.writeOnce(ctx, concurrent, func(ctx context.Context, tx *transaction) error { return tx.addAll(ctx, acts) })
}

// addAll adds the key packages of several callers, in the name of each. The rows get their numbers
// first, and are sent in one COPY for each table.
func (tx *transaction) addAll(ctx context.Context, acts []*adding) error {
	n := 0
	for _, a := range acts {
		n += len(a.Act)
	}
	numbers, err := sqlstore.All(ctx, tx, sqlstore.Value[int64], "SELECT nextval(pg_get_serial_sequence('key_packages', 'id')) FROM generate_series(1, $1)", n)
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
	scan := func(s sqlstore.Scanner) (f signer, err error) {
		err = s.Scan(&f.row, &f.name, &f.version, &f.retired)
		return f, err
	}
	found, err := sqlstore.All(ctx, tx, scan, "SELECT id, name, version, retired_at IS NOT NULL FROM identities WHERE name = ANY($1)", slices.Collect(maps.Keys(byName)))
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
	key, err := tx.counters.Usable(ctx, tx, k.WrappingKeyID)
	if err != nil {
		return nil, nil, err
	}
	tx.counters.Use(key)
	row = []any{number, by.row, int64(version), int32(k.Suite), string(k.State), k.LastResort, k.Custody,
		sqlstore.Seconds(k.CreatedAt), sqlstore.Seconds(k.NotBefore), sqlstore.Seconds(k.NotAfter), sqlstore.OptionalSeconds(k.PublishedAt), sqlstore.OptionalBlob(k.ReleaseDigest)}
	content = []any{number, key, sqlstore.Blob(k.Ref), []byte{}, sqlstore.Blob(k.Sealed), sqlstore.Blob(k.Public)}
	return row, content, tx.Record(ctx, number, record.EntryOf(k, audit.Generated, k.CreatedAt))
}

// signs fails for a version that is old or retired: nobody would retire what it signed. The next
// version of a retired one begins it anew. The error is store.ErrNotFound or store.ErrState.
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
	r, err := sqlstore.ReadOne(ctx, s, sqlstore.ScanKeyPackage, selectKeyPackage+" WHERE c.ref = $1", sqlstore.Blob(ref))
	return r.KeyPackage, err
}

// KeyPackages implements store.Store.
func (s *Store) KeyPackages(ctx context.Context, f store.Filter) iter.Seq2[store.KeyPackage, error] {
	first := func() (int64, error) { return layout.RowOf(ctx, s, f.After) }
	return sqlstore.Pages(f, first, func(after int64) (rows []row, err error) {
		err = s.Read(ctx, func(ctx context.Context, q sqlstore.Querier) error {
			lags, err := sqlstore.Lags(ctx, q)
			if err != nil {
				return err
			}
			condition, args := condition(f, lags)
			args["after"], args["page"] = after, sqlstore.Page
			rows, err = sqlstore.All(ctx, q, sqlstore.ScanKeyPackage, selectKeyPackage+" WHERE "+condition+" ORDER BY k.id LIMIT @page", args)
			return err
		})
		return rows, err
	})
}

// condition fits the rows of a page, which begins after the row @after. An index finds those of
// one identity; it has them by state and then by row, so the condition takes the first of each
// state, and of these the page. While rows lag behind a backlog, no index has the states.
func condition(f store.Filter, lags bool) (text string, args pgx.NamedArgs) {
	args = pgx.NamedArgs{"identity": f.Identity, "state": string(f.State), "key": f.WrappingKeyID}
	state := "k.state = @state"
	if lags {
		state = layout.State() + " = @state"
	}
	switch {
	case len(f.WrappingKeyID) > 0:
		return "k.id > @after AND e.id IS NULL AND " + hasKeys + " AND c.wrapping_key = (SELECT id FROM wrapping_keys WHERE key_id = @key)", args
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

// unconfirmed fits the rows that the index unconfirmed has.
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

// KeyPackages implements sqlstore.Tx. It locks the rows in the order of their numbers.
func (tx *transaction) KeyPackages(ctx context.Context, refs [][]byte, at time.Time) ([]*row, error) {
	numbers, err := sqlstore.All(ctx, tx, sqlstore.Value[int64], "SELECT id FROM contents WHERE ref = ANY($1)", refs)
	if err != nil {
		return nil, err
	}
	rows, err := tx.rows(ctx, numbers)
	byRef := make(map[string]*row, len(rows))
	for i := range rows {
		if err == nil {
			err = tx.catchUp(ctx, &rows[i], at)
		}
		byRef[string(rows[i].Ref)] = &rows[i]
	}
	if err != nil {
		return nil, err
	}
	found := make([]*row, len(refs))
	for i, ref := range refs {
		if found[i] = byRef[string(ref)]; found[i] == nil {
			return nil, fmt.Errorf("key package %x: %w", ref, store.ErrNotFound)
		}
	}
	return found, nil
}

// keyPackage returns a key package that is to be changed.
func (tx *transaction) keyPackage(ctx context.Context, ref []byte, at time.Time) (*row, error) {
	rows, err := tx.KeyPackages(ctx, [][]byte{ref}, at)
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

// rows locks rows in the order of their numbers, and returns them as they are then, the oldest
// first. A second statement reads them once all are locked: a statement that waits for a lock sees
// the locked rows as they were left, but everything else as it was when the statement began.
func (tx *transaction) rows(ctx context.Context, numbers []int64) ([]row, error) {
	if len(numbers) == 0 {
		return nil, nil
	}
	if _, err := tx.Change(ctx, "SELECT id FROM key_packages WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", numbers); err != nil {
		return nil, err
	}
	return sqlstore.All(ctx, tx, sqlstore.ScanKeyPackage, selectKeyPackage+" WHERE k.id = ANY($1) ORDER BY k.id", numbers)
}
