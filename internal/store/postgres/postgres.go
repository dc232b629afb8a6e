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
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/record"
	"github.com/hsm-kp/hsm-kp/internal/store/sqlstore"
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
	*sqlstore.Acts
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
	s.Acts = sqlstore.New(s, layout)
	s.queue = record.NewQueue(s.together, ofOneAct)
	s.small = record.NewQueue(s.smallActs, ofOneAct)
	s.additions = record.NewQueue(s.addTogether, ofOneAct)
	if err := s.prepare(ctx, o.Create); err != nil {
		pool.Close()
		return nil, translate(err)
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context, create bool) error {
	if err := s.checkDurable(ctx); err != nil {
		return err
	}
	return s.migrate(ctx, create)
}

// errNotDurable reports a server on which a commit may be lost.
var errNotDurable = errors.New("synchronous_commit is off: what it says is done may be lost")

// checkDurable refuses connections on which a commit returns before it is on a disk. fsync is the
// server's, and its administrator's, business: it is off on servers that are for tests.
func (s *Store) checkDurable(ctx context.Context) error {
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
