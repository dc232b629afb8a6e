// Package sqlite is the embedded store: one SQLite file.
//
// It runs in WAL mode with synchronous=FULL, so that a commit is on the disk when it returns, and
// with secure_delete, so that SQLite overwrites in the file what is deleted. Several processes may
// use one file. A writer waits for another for as long as Options say.
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
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
)

// DefaultBusyTimeout is how long a call waits for another process's writing.
const DefaultBusyTimeout = 5 * time.Second

// Page caches in KiB, for each connection. The writer's holds most of the index of the
// KeyPackageRefs of a million key packages.
const (
	readCacheKiB  = 4 << 10
	writeCacheKiB = 48 << 10
)

// checkpointPages is how long the WAL grows, in pages of 4 KiB, before it is folded into the file.
// KeyPackageRefs are random, so that each batch changes as many pages of their index as it has
// rows. The longer the WAL, the more of these changes fall on the same page, which is written to
// the file once.
const checkpointPages = 16000

// Options adjust Open.
type Options struct {
	// BusyTimeout is how long a call waits for another process; zero means
	// DefaultBusyTimeout.
	BusyTimeout time.Duration
	// Create makes the file if there is none. Without it, Open fails with store.ErrNotFound
	// then.
	Create bool
}

// Store is a store.Store in one file.
type Store struct {
	*sqlstore.Acts
	reader *sql.DB // any number at once
	writer *sql.DB // one at a time
	// These run for every key package, and are prepared once.
	insert *sql.Stmt // a key package
	append *sql.Stmt // an entry of the trail

	small *record.Queue[smallAct]
}

var _ store.Store = (*Store)(nil)

// Open opens the store in the file at path and migrates its schema. A new file has mode 0600, and
// so have the files that SQLite puts beside it. The mode of an existing file is its owner's choice:
// what is private in it is sealed. Open refuses another program's database without writing to it.
// The error is a *store.SchemaError, or wraps one of the errors of package store.
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
	s := &Store{writer: openDB(path, o, 1, writeCacheKiB), reader: openDB(path, o, 4, readCacheKiB)}
	s.Acts = sqlstore.New(s, layout)
	s.small = record.NewQueue(s.smallActs, ofOneAct)
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(translate(err), s.Close())
	}
	return s, nil
}

// makeFile makes an empty file with mode 0600: SQLite would use the umask.
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

// openDB opens a pool of connections. The settings are in the name of the database, so that every
// connection has them.
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

// connector opens connections with the settings that the driver has no name for.
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
	if err := migrate(ctx, s.writer); err != nil {
		return err
	}
	var err error
	if s.insert, err = s.writer.PrepareContext(ctx, insertKeyPackage); err != nil {
		return err
	}
	s.append, err = s.writer.PrepareContext(ctx, insertEntry)
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
	// The writer is last: closing the last connection folds the WAL into the file.
	return errors.Join(append(errs, s.reader.Close(), s.writer.Close())...)
}
