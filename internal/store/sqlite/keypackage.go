package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

const insertKeyPackage = `INSERT INTO key_packages (ref, identity, cipher_suite, state, last_resort, custody,
	wrapping_key, sealed, public, created_at, not_before, not_after, published_at, version, release_digest)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

const selectKeyPackage = `SELECT k.id, k.ref, i.name, k.cipher_suite, k.state, k.last_resort, k.custody, w.key_id, k.sealed,
	k.public, k.created_at, k.not_before, k.not_after, k.published_at, k.welcome_digest, k.reserved_until, k.consumed_at, k.opened,
	k.version, k.leaf, k.claimed_at, k.retired_until, k.erased_at, k.reserved_from, coalesce(k.directory, ''), k.leased_until,
	k.release_digest, k.handed_over_at, k.confirmed_at, r.id, r.until, e.id, e.begun_at` + keyPackageTables

// keyPackageTables has key packages with what they refer to, and the backlogs that they have still
// to follow: r, the first one that retires them, and e, which erases their private keys.
const keyPackageTables = ` FROM key_packages k JOIN identities i ON i.id = k.identity JOIN wrapping_keys w ON w.id = k.wrapping_key
	LEFT JOIN backlogs r ON r.id = (SELECT min(o.id) FROM backlogs o
		WHERE o.finished_at IS NULL AND o.identity = k.identity AND o.before > k.version AND o.last >= k.id)
	LEFT JOIN backlogs e ON e.wrapping_key = k.wrapping_key AND e.finished_at IS NULL`

// hasKeys is the condition of key packages that have private keys. The index key_packages_under
// has the same one.
const hasKeys = "(sealed <> x'' OR leaf <> x'')"

var layout = sqlstore.Layout{Contents: "key_packages", HasKeys: hasKeys, Lagging: keyPackageTables}

type row = record.Row

// few is how many key packages cost less than a transaction of their own would.
const few = 64

// AddKeyPackages implements store.Store.
func (s *Store) AddKeyPackages(ctx context.Context, batch []store.KeyPackage) error {
	add := func(ctx context.Context, tx *transaction) error { return tx.addAll(ctx, batch) }
	if len(batch) > few {
		return s.write(ctx, add)
	}
	return s.share(ctx, add)
}

func (tx *transaction) addAll(ctx context.Context, batch []store.KeyPackage) error {
	insert := tx.tx.StmtContext(ctx, tx.store.insert)
	defer insert.Close()
	signers := map[signer]int64{}
	for i := range batch {
		if err := tx.add(ctx, insert, signers, &batch[i]); err != nil {
			return err
		}
	}
	return nil
}

// add adds a key package, whose row gets the number after the last.
func (tx *transaction) add(ctx context.Context, insert *sql.Stmt, signers map[signer]int64, k *store.KeyPackage) error {
	by := signer{k.Identity, max(k.Version, 1)}
	identity, err := tx.signs(ctx, signers, by)
	if err != nil {
		return fmt.Errorf("identity %q, version %d: %w", by.name, by.version, err)
	}
	key, err := tx.counters.Usable(ctx, tx, k.WrappingKeyID)
	if err != nil {
		return err
	}
	tx.counters.Use(key)
	result, err := insert.ExecContext(ctx, sqlstore.Blob(k.Ref), identity, k.Suite, string(k.State), k.LastResort, k.Custody, key,
		sqlstore.Blob(k.Sealed), sqlstore.Blob(k.Public), sqlstore.Seconds(k.CreatedAt), sqlstore.Seconds(k.NotBefore), sqlstore.Seconds(k.NotAfter),
		sqlstore.OptionalSeconds(k.PublishedAt), by.version, sqlstore.OptionalBlob(k.ReleaseDigest))
	if err != nil {
		return err
	}
	number, err := result.LastInsertId()
	if err != nil {
		return err
	}
	return tx.Record(ctx, number, record.EntryOf(k, audit.Generated, k.CreatedAt))
}

// signer is a version of an identity.
type signer struct {
	name    string
	version uint64
}

// signs returns the row of an identity, and fails for a version that is old or retired: nobody
// would retire what it signed. The next version of a retired one begins it anew. The error is
// store.ErrNotFound or store.ErrState.
func (tx *transaction) signs(ctx context.Context, known map[signer]int64, by signer) (int64, error) {
	if row, ok := known[by]; ok {
		return row, nil
	}
	type found struct {
		row  int64
		over bool
	}
	scan := func(s sqlstore.Scanner) (f found, err error) { return f, s.Scan(&f.row, &f.over) }
	f, err := sqlstore.One(ctx, tx, scan, "SELECT id, iif(version = @version, retired_at IS NOT NULL, version > @version) FROM identities WHERE name = @name",
		sql.Named("version", by.version), sql.Named("name", by.name))
	if err == nil && f.over {
		err = store.ErrState
	}
	if err == nil {
		known[by] = f.row
	}
	return f.row, err
}

// KeyPackage implements store.Store.
func (s *Store) KeyPackage(ctx context.Context, ref []byte) (store.KeyPackage, error) {
	r, err := sqlstore.ReadOne(ctx, s, sqlstore.ScanKeyPackage, selectKeyPackage+" WHERE k.ref = ?", ref)
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
			args = append(args, sql.Named("after", after), sql.Named("page", sqlstore.Page))
			rows, err = sqlstore.All(ctx, q, sqlstore.ScanKeyPackage, selectKeyPackage+" WHERE "+condition+" ORDER BY k.id LIMIT @page", args...)
			return err
		})
		return rows, err
	})
}

// condition fits the rows of a page, which begins after the row @after. An index finds those of
// one identity; it has them by state and then by row, so the condition takes the first of each
// state, and of these the page. While rows lag behind a backlog, no index has the states.
func condition(f store.Filter, lags bool) (text string, args []any) {
	state := "k.state = @state"
	if lags {
		state = layout.State() + " = @state"
	}
	switch {
	case len(f.WrappingKeyID) > 0:
		return "k.id > @after AND e.id IS NULL AND " + hasKeys + " AND k.wrapping_key = (SELECT id FROM wrapping_keys WHERE key_id = @key)",
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

// KeyPackages implements sqlstore.Tx.
func (tx *transaction) KeyPackages(ctx context.Context, refs [][]byte, at time.Time) ([]*row, error) {
	found := make([]*row, len(refs))
	byRef := make(map[string]*row, len(refs))
	for i, ref := range refs {
		if byRef[string(ref)] == nil {
			r, err := sqlstore.One(ctx, tx, sqlstore.ScanKeyPackage, selectKeyPackage+" WHERE k.ref = ?", ref)
			if err == nil {
				err = tx.catchUp(ctx, &r, at)
			}
			if err != nil {
				return nil, fmt.Errorf("key package %x: %w", ref, err)
			}
			byRef[string(ref)] = &r
		}
		found[i] = byRef[string(ref)]
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

// rows returns key packages by the numbers of their rows, the oldest first.
func (tx *transaction) rows(ctx context.Context, numbers []int64) ([]row, error) {
	return sqlstore.All(ctx, tx, sqlstore.ScanKeyPackage, selectKeyPackage+" WHERE k.id IN (SELECT value FROM json_each(?)) ORDER BY k.id", list(numbers))
}

// list is numbers in JSON.
func list(numbers []int64) string {
	b := []byte{'['}
	for i, n := range numbers {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return string(append(b, ']'))
}
