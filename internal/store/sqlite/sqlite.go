// Package sqlite is the embedded store: one SQLite file.
//
// It runs in WAL mode with synchronous=FULL, so that a commit is on the disk
// when it returns, and with secure_delete, so that what is deleted is
// overwritten in the file. Several processes may use one file; a writer waits
// for another for as long as Options say.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// DefaultBusyTimeout is how long a call waits for another process's writing.
const DefaultBusyTimeout = 5 * time.Second

// Page caches in KiB, for each connection. The writer's holds most of the index
// of KeyPackageRefs over a million key packages.
const (
	readCacheKiB  = 4 << 10
	writeCacheKiB = 48 << 10
)

// checkpointPages is how long the WAL grows, in pages of 4 KiB, before it is
// folded into the file. KeyPackageRefs are random, so that each batch changes
// as many pages of their index as it has rows: the longer the WAL, the more of
// these changes fall on the same page and are written to the file once.
const checkpointPages = 16000

// Options adjust Open.
type Options struct {
	// BusyTimeout is how long a call waits for another process; zero means
	// DefaultBusyTimeout.
	BusyTimeout time.Duration
	// Create makes the file where there is none. Without it, that is
	// store.ErrNotFound.
	Create bool
}

// Store is a store.Store in one file.
type Store struct {
	db *sql.DB // reads, any number at once
	w  *sql.DB // writes, one at a time
	// These run for every key package, and are prepared once.
	insert *sql.Stmt // a key package
	append *sql.Stmt // an entry of the trail

	// small are acts that share a transaction with others that wait for one.
	small *record.Queue[act]
}

// act is one of those that share a transaction.
type act func(context.Context, *transaction) error

var _ store.Store = (*Store)(nil)

// Open opens the store in the file at path and brings its schema up to date. A
// new file has mode 0600, and so have the files that SQLite puts beside it; the
// mode of a file that is there already is its owner's choice: what is private in
// it is sealed. Another program's database is refused and not written to. The
// error is a *store.SchemaError, or wraps one of the errors of package store.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := makeFile(path, o.Create); err != nil {
		return nil, err
	}
	if o.BusyTimeout == 0 {
		o.BusyTimeout = DefaultBusyTimeout
	}
	if err := recognize(ctx, path, o.BusyTimeout); err != nil {
		return nil, translate(err)
	}
	s := &Store{w: openDB(path, o, 1, writeCacheKiB), db: openDB(path, o, 4, readCacheKiB)}
	s.small = record.NewQueue(s.smallActs, apart)
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(translate(err), s.Close())
	}
	return s, nil
}

// makeFile makes an empty file with mode 0600: SQLite would ask the umask.
func makeFile(path string, create bool) error {
	if !create {
		_, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", path, store.ErrNotFound)
		}
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return translate(err)
	}
	return f.Close()
}

// openDB opens a pool of connections. The settings stand in the name of the
// database, so that every connection has them.
func openDB(path string, o Options, connections, cacheKiB int) *sql.DB {
	name := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: url.Values{
		"mode":           {"rw"},
		"_busy_timeout":  {fmt.Sprint(o.BusyTimeout.Milliseconds())},
		"_cache_size":    {fmt.Sprint(-cacheKiB)},
		"_foreign_keys":  {"on"},
		"_journal_mode":  {"WAL"},
		"_secure_delete": {"on"},
		"_synchronous":   {"FULL"},
		"_txlock":        {"immediate"},
	}.Encode()}
	db := sql.OpenDB(&connector{name.String()})
	db.SetMaxOpenConns(connections)
	return db
}

// connector opens connections with the settings that the driver has no name
// for.
type connector struct{ name string }

var sqliteDriver = &sqlite3.SQLiteDriver{}

// Driver implements driver.Connector.
func (c *connector) Driver() driver.Driver { return sqliteDriver }

// Connect implements driver.Connector.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := sqliteDriver.Open(c.name)
	if err != nil {
		return nil, err
	}
	_, err = conn.(driver.ExecerContext).ExecContext(ctx, fmt.Sprintf("PRAGMA wal_autocheckpoint = %d", checkpointPages), nil)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (s *Store) prepare(ctx context.Context) error {
	if err := migrate(ctx, s.w); err != nil {
		return err
	}
	var err error
	if s.insert, err = s.w.PrepareContext(ctx, insertKeyPackage); err != nil {
		return err
	}
	s.append, err = s.w.PrepareContext(ctx, insertEntry)
	return err
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.small.Close()
	var errs []error
	for _, prepared := range []*sql.Stmt{s.insert, s.append} {
		if prepared != nil {
			errs = append(errs, prepared.Close())
		}
	}
	// The writer last: closing the last connection folds the WAL into the file.
	return errors.Join(append(errs, s.db.Close(), s.w.Close())...)
}

// transaction holds the write lock from its start, and adds to the trail.
type transaction struct {
	*sql.Tx
	store *Store
	actor string
	head  *head // of the trail, once it was read
	// append is the store's, once it was used.
	append *sql.Stmt
	// prepared are the statements that change something, which end with the transaction.
	prepared map[string]*sql.Stmt
}

// ExecContext prepares a statement once: many run for row after row.
func (tx *transaction) ExecContext(ctx context.Context, text string, args ...any) (sql.Result, error) {
	stmt := tx.prepared[text]
	if stmt == nil {
		var err error
		if stmt, err = tx.PrepareContext(ctx, text); err != nil {
			return nil, err
		}
		tx.prepared[text] = stmt
	}
	return stmt.ExecContext(ctx, args...)
}

// write runs f in a transaction. Where ctx ends, it is rolled back. The statements of
// f get a context that does not end: for one that may, the driver starts a goroutine at
// each statement, which doubles the cost of a row.
func (s *Store) write(ctx context.Context, f func(context.Context, *transaction) error) error {
	tx, err := s.w.BeginTx(ctx, nil)
	if err != nil {
		return translate(err)
	}
	defer tx.Rollback()
	err = f(context.WithoutCancel(ctx), &transaction{Tx: tx, store: s, actor: store.Actor(ctx), prepared: make(map[string]*sql.Stmt)})
	if err == nil {
		err = tx.Commit()
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err() // it was rolled back under f
	}
	return translate(err)
}

// share runs f in a transaction that others may have part in.
func (s *Store) share(ctx context.Context, f act) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.small.Do(ctx, f)
}

// smallActs does acts in one transaction, each in the name of its own actor.
func (s *Store) smallActs(ctx context.Context, group []*record.Waiting[act]) error {
	return s.write(ctx, func(_ context.Context, tx *transaction) error {
		for _, one := range group {
			tx.actor = store.Actor(one.Context)
			if err := one.Act(context.WithoutCancel(one.Context), tx); err != nil {
				return err
			}
		}
		return nil
	})
}

// apart reports whether an error of several acts may be that of one of them.
func apart(err error) bool {
	for _, all := range []error{store.ErrBusy, store.ErrFull, store.ErrReadOnly, store.ErrDamaged} {
		if errors.Is(err, all) {
			return false
		}
	}
	return true
}

// translate wraps an error of SQLite with the error of package store that it
// means, where there is one.
func translate(err error) error {
	var code sqlite3.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return store.ErrNotFound
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", store.ErrReadOnly, err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case !errors.As(err, &code):
		return err
	}
	switch {
	case code.SystemErrno == syscall.ENOSPC, code.SystemErrno == syscall.EDQUOT:
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case code.Code == sqlite3.ErrBusy, code.Code == sqlite3.ErrLocked:
		return fmt.Errorf("%w: %w", store.ErrBusy, err)
	case code.Code == sqlite3.ErrFull:
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case code.Code == sqlite3.ErrReadonly, code.Code == sqlite3.ErrPerm, code.Code == sqlite3.ErrCantOpen:
		return fmt.Errorf("%w: %w", store.ErrReadOnly, err)
	case code.Code == sqlite3.ErrNotADB, code.Code == sqlite3.ErrCorrupt:
		return fmt.Errorf("%w: %w", store.ErrDamaged, err)
	case code.ExtendedCode == sqlite3.ErrConstraintUnique, code.ExtendedCode == sqlite3.ErrConstraintPrimaryKey:
		return store.ErrExists
	case code.ExtendedCode == sqlite3.ErrConstraintForeignKey:
		return store.ErrNotFound
	}
	return err
}

// seconds and date turn times into what is stored: whole seconds since the
// epoch.
func seconds(t time.Time) int64 { return t.Unix() }

func date(s int64) time.Time { return time.Unix(s, 0).UTC() }

// blob returns b for a column that is never NULL, which the driver makes of nil.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// optionalBlob returns b for a column that is NULL where it is empty.
func optionalBlob(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

func optionalDate(s sql.NullInt64) time.Time {
	if !s.Valid {
		return time.Time{}
	}
	return date(s.Int64)
}

func optionalSeconds(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.Unix(), Valid: !t.IsZero()}
}
