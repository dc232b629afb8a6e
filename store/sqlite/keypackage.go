package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/store"
)

const insertKeyPackage = `INSERT INTO key_packages (ref, identity, cipher_suite, state, last_resort, custody,
	wrapping_key, sealed, public, created_at, not_before, not_after, published_at)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

const selectKeyPackage = `SELECT k.id, k.ref, i.name, k.cipher_suite, k.state, k.last_resort, k.custody, w.key_id, k.sealed,
	k.public, k.created_at, k.not_before, k.not_after, k.published_at, k.welcome_digest, k.reserved_until, k.consumed_at, k.opened
	FROM key_packages k JOIN identities i ON i.id = k.identity JOIN wrapping_keys w ON w.id = k.wrapping_key`

// row is a key package with its rowid, which pages follow.
type row struct {
	id int64
	store.KeyPackage
}

func scanKeyPackage(s scanner) (row, error) {
	var r row
	var created, notBefore, notAfter int64
	var published, reserved, consumed sql.NullInt64
	err := s.Scan(&r.id, &r.Ref, &r.Identity, &r.Suite, &r.State, &r.LastResort, &r.Custody, &r.WrappingKeyID, &r.Sealed,
		&r.Public, &created, &notBefore, &notAfter, &published, &r.WelcomeDigest, &reserved, &consumed, &r.Opened)
	r.CreatedAt, r.NotBefore, r.NotAfter = date(created), date(notBefore), date(notAfter)
	for to, from := range map[*time.Time]sql.NullInt64{&r.PublishedAt: published, &r.ReservedUntil: reserved, &r.ConsumedAt: consumed} {
		if from.Valid {
			*to = date(from.Int64)
		}
	}
	return r, translate(err)
}

// AddKeyPackages implements store.Store.
func (s *Store) AddKeyPackages(ctx context.Context, batch []store.KeyPackage) error {
	return s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
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
	tx           *sql.Tx
	identities   map[string]int64
	wrappingKeys map[string]int64
}

// insert inserts one key package and returns the row of its wrapping key.
func (n *numbers) insert(stmt *sql.Stmt, k *store.KeyPackage) (int64, error) {
	identity, err := n.find(n.identities, k.Identity, "SELECT id FROM identities WHERE name = ?", k.Identity)
	if err != nil {
		return 0, fmt.Errorf("identity %q: %w", k.Identity, err)
	}
	key, err := n.find(n.wrappingKeys, string(k.WrappingKeyID), "SELECT id FROM wrapping_keys WHERE key_id = ?", k.WrappingKeyID)
	if err != nil {
		return 0, fmt.Errorf("wrapping key %x: %w", k.WrappingKeyID, err)
	}
	_, err = stmt.ExecContext(n.ctx, blob(k.Ref), identity, k.Suite, string(k.State), k.LastResort, k.Custody, key, blob(k.Sealed), blob(k.Public),
		seconds(k.CreatedAt), seconds(k.NotBefore), seconds(k.NotAfter), optionalSeconds(k.PublishedAt))
	return key, err
}

func (n *numbers) find(known map[string]int64, name, query string, arg any) (int64, error) {
	if id, ok := known[name]; ok {
		return id, nil
	}
	var id int64
	if err := n.tx.QueryRowContext(n.ctx, query, arg).Scan(&id); err != nil {
		return 0, translate(err)
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
		condition, args := condition(f)
		text := selectKeyPackage + " WHERE " + condition + " ORDER BY k.id LIMIT @page"
		for after := int64(0); ; {
			rows, err := query(ctx, s.db, scanKeyPackage, text, append(args, sql.Named("after", after), sql.Named("page", page))...)
			if err != nil {
				yield(store.KeyPackage{}, err)
				return
			}
			for i := range rows {
				if !yield(rows[i].KeyPackage, nil) {
					return
				}
			}
			if len(rows) < page {
				return
			}
			after = rows[len(rows)-1].id
		}
	}
}

// condition fits the rows of a page, which begins after the row @after. Those of
// one identity are found by index, which has them by state and then by row: the
// first of each state, and of these the page.
func condition(f store.Filter) (text string, args []any) {
	switch {
	case f == store.Filter{}:
		return "k.id > @after", nil
	case f.Identity == "":
		return "k.id > @after AND k.state = @state", []any{sql.Named("state", string(f.State))}
	}
	states := store.States
	if f.State != "" {
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
	published := sql.NullInt64{Int64: seconds(at), Valid: to == store.Published}
	return s.write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, ref := range refs {
			if err := move(ctx, tx, ref, from, to, published); err != nil {
				return fmt.Errorf("key package %x: %w", ref, translate(err))
			}
		}
		return nil
	})
}

func move(ctx context.Context, tx *sql.Tx, ref []byte, from []store.State, to store.State, published sql.NullInt64) error {
	var state store.State
	if err := tx.QueryRowContext(ctx, "SELECT state FROM key_packages WHERE ref = ?", ref).Scan(&state); err != nil {
		return err
	}
	if to == store.Published && slices.Contains(from, store.Pending) && (state == store.Reserved || state == store.Consumed) {
		_, err := tx.ExecContext(ctx, `UPDATE key_packages SET published_at = coalesce(published_at, ?),
			reserved_from = iif(reserved_from = ?, ?, reserved_from) WHERE ref = ?`, published, string(store.Pending), string(to), ref)
		return err
	}
	if !slices.Contains(from, state) {
		return fmt.Errorf("%w: it is %s", store.ErrState, state)
	}
	_, err := tx.ExecContext(ctx, "UPDATE key_packages SET state = ?, published_at = coalesce(published_at, ?) WHERE ref = ?",
		string(to), published, ref)
	return err
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
	rows, err := query(ctx, s.db, scan, `SELECT k.state, count(*) FROM key_packages k JOIN identities i ON i.id = k.identity
		WHERE ? = '' OR i.name = ? GROUP BY k.state`, name, name)
	for _, c := range rows {
		counts[c.state] = c.n
	}
	return counts, err
}
