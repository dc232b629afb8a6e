// Package postgres is the store that several processes, on several machines, have in common:
// one PostgreSQL database.
//
// A commit is durable when it returns, by the server's own settings (fsync,
// synchronous_commit), which Open checks. What is erased is overwritten by nobody: PostgreSQL
// leaves old versions of rows to VACUUM, and to the WAL. Private keys are sealed there, and end
// with their wrapping key.
package postgres

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
)

// Options adjust Open.
type Options struct {
	// Connections are how many connections are open at most; zero means
	// DefaultConnections.
	Connections int
	// Create makes the tables where there are none. Without it, that is
	// store.ErrNotFound.
	Create bool
}

// DefaultConnections is how many connections a store has at most. Acts of one process share
// transactions, and seldom want more.
const DefaultConnections = 12

// Store is a store.Store in a PostgreSQL database.
type Store struct {
	pool      *pgxpool.Pool
	queue     *record.Queue[*act]               // claims and entries
	small     *record.Queue[smallAct]           // what is beside them
	additions *record.Queue[[]store.KeyPackage] // a few key packages each
	mayWait   bool                              // for the disk after COMMIT: see waitForDisk
}

var _ store.Store = (*Store)(nil)

// dialTimeout is how long a connection may take to be made, unless the URL has another
// connect_timeout.
const dialTimeout = 10 * time.Second

// Open opens the store in the database that a URL names, postgres://USER@HOST/DATABASE with
// the parameters of libpq, and brings its schema up to date. What the URL leaves out comes from
// the environment, as with libpq: PGPASSWORD, PGPASSFILE, PGSERVICE, PGSSLMODE and the others.
// No error has a password in it. The error is a *store.SchemaError, or wraps one of the errors
// of package store: store.ErrAway where there is no server.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	cfg, err := parse(url)
	if err != nil {
		return nil, err
	}
	if o.Connections == 0 {
		o.Connections = DefaultConnections
	}
	cfg.MaxConns = int32(o.Connections)
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, translate(err)
	}
	s := &Store{pool: pool}
	s.queue = record.NewQueue(s.together, apart)
	s.small = record.NewQueue(s.smallActs, apart)
	s.additions = record.NewQueue(s.addTogether, apart)
	if err := s.prepare(ctx, o.Create); err != nil {
		pool.Close()
		return nil, translate(err)
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context, create bool) error {
	if err := s.durable(ctx); err != nil {
		return err
	}
	return s.migrate(ctx, create)
}

// errNotDurable reports a server on which a commit may be lost.
var errNotDurable = errors.New("synchronous_commit is off: what it says is done may be lost")

// durable refuses connections on which a commit returns before it is on a disk. fsync is the
// server's, and its administrator's, business: it is off on servers that are for tests.
func (s *Store) durable(ctx context.Context) error {
	var setting string
	err := s.pool.QueryRow(ctx, `SELECT current_setting('synchronous_commit'), bool_and(has_function_privilege(oid, 'EXECUTE'))
		FROM pg_proc WHERE proname = 'pg_logical_emit_message'`).Scan(&setting, &s.mayWait)
	if err == nil && setting == "off" {
		err = errNotDurable
	}
	return err
}

// parse makes settings of a URL. Errors of the parser have the whole URL in them, and where it
// is malformed its password: they are left out.
func parse(text string) (*pgxpool.Config, error) {
	if !Names(text) {
		return nil, errors.New("read the store's URL: it does not begin with postgres://")
	}
	cfg, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, errors.New("read the store's URL: it, or a PG variable of the environment, is malformed, or names a file that cannot be read")
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = dialTimeout
	}
	parameters := cfg.ConnConfig.RuntimeParams
	if parameters["application_name"] == "" {
		parameters["application_name"] = "hsm-kp"
	}
	return cfg, nil
}

// Names reports whether a URL names a PostgreSQL database.
func Names(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}

// Redact returns a URL without its password, to be shown. One that is malformed is not shown.
func Redact(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "postgres://(malformed)"
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	for _, secret := range []string{"password", "sslpassword"} {
		q.Del(secret)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// Close implements store.Store.
func (s *Store) Close() error {
	s.queue.Close()
	s.small.Close()
	s.additions.Close()
	s.pool.Close()
	return nil
}

// queryer is the pool, or a transaction.
type queryer interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
	QueryRow(context.Context, string, ...any) pgx.Row
}

// scanner is a row, or the rows of a query.
type scanner interface{ Scan(...any) error }

// query returns all rows of a query.
func query[T any](ctx context.Context, q queryer, scan func(scanner) (T, error), text string, args ...any) ([]T, error) {
	rows, err := q.Query(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	return pgx.AppendRows([]T(nil), rows, func(r pgx.CollectableRow) (T, error) { return scan(r) })
}

// queryOne returns the first row of a query, or store.ErrNotFound.
func queryOne[T any](ctx context.Context, q queryer, scan func(scanner) (T, error), text string, args ...any) (T, error) {
	v, err := scan(q.QueryRow(ctx, text, args...))
	if errors.Is(err, pgx.ErrNoRows) {
		err = store.ErrNotFound
	}
	return v, err
}

// read runs f, and again where its connection was dead, as all are that were open before the
// server was started anew.
func read[T any](ctx context.Context, s *Store, f func(context.Context, queryer) (T, error)) (T, error) {
	v, err := f(ctx, s.pool)
	for tried := 1; tried < 3 && err != nil && again(err) && ctx.Err() == nil; tried++ {
		s.discard(err)
		v, err = f(ctx, s.pool)
	}
	return v, translate(err)
}

func readAll[T any](ctx context.Context, s *Store, scan func(scanner) (T, error), text string, args ...any) ([]T, error) {
	return read(ctx, s, func(ctx context.Context, q queryer) ([]T, error) { return query(ctx, q, scan, text, args...) })
}

func readOne[T any](ctx context.Context, s *Store, scan func(scanner) (T, error), text string, args ...any) (T, error) {
	return read(ctx, s, func(ctx context.Context, q queryer) (T, error) { return queryOne(ctx, q, scan, text, args...) })
}

// value scans rows of one column.
func value[T any](s scanner) (v T, err error) { return v, s.Scan(&v) }

// seconds and date turn times into what is stored: whole seconds since the epoch.
func seconds(t time.Time) int64 { return t.Unix() }

func date(s int64) time.Time { return time.Unix(s, 0).UTC() }

func optionalDate(s sql.NullInt64) time.Time {
	if !s.Valid {
		return time.Time{}
	}
	return date(s.Int64)
}

func optionalSeconds(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	s := t.Unix()
	return &s
}

// optionalBlob returns b for a column that is NULL where it is empty.
func optionalBlob(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

// blob returns b for a column that is never NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
