// Package postgres is the store that several processes on several machines share: one PostgreSQL
// database.
//
// A commit is durable when it returns if the server's settings (fsync, synchronous_commit) say so;
// Open checks the latter. Nothing overwrites what is erased: PostgreSQL keeps old versions of rows
// until VACUUM, and in the WAL. Private keys are sealed there, and end with their wrapping key.
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
	// Create makes the tables if there are none. Without it, Open fails with
	// store.ErrNotFound then.
	Create bool
}

// DefaultConnections is how many connections a store has at most by default. Acts of one process
// share transactions and seldom need more.
const DefaultConnections = 12

// Store is a store.Store in a PostgreSQL database.
type Store struct {
	*sqlstore.Acts
	pool      *pgxpool.Pool
	claims    *record.Queue[*act]               // and entries by themselves
	small     *record.Queue[smallAct]           // intents, identities
	additions *record.Queue[[]store.KeyPackage] // a few key packages each
	mayWait   bool                              // for the disk after COMMIT: see waitForDisk
}

var _ store.Store = (*Store)(nil)

// dialTimeout is how long it may take to connect, unless the URL has a connect_timeout.
const dialTimeout = 10 * time.Second

// Open opens the store in the database that a URL names, postgres://USER@HOST/DATABASE with the
// parameters of libpq, and migrates its schema. As with libpq, the environment supplies what the
// URL leaves out: PGPASSWORD, PGPASSFILE, PGSERVICE, PGSSLMODE and the others. No error has a
// password in it. The error is a *store.SchemaError, or wraps one of the errors of package store:
// store.ErrAway if there is no server.
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
	s.claims = record.NewQueue(s.together, ofOneAct)
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

// errNotDurable reports a server that may lose a commit.
var errNotDurable = errors.New("synchronous_commit is off: what it reports as done may be lost")

// checkDurable refuses connections on which a commit returns before it is on a disk. It does not
// look at fsync, which is the choice of the server's administrator: servers for tests have it off.
func (s *Store) checkDurable(ctx context.Context) error {
	var setting string
	err := s.pool.QueryRow(ctx, `SELECT current_setting('synchronous_commit'), bool_and(has_function_privilege(oid, 'EXECUTE'))
		FROM pg_proc WHERE proname = 'pg_logical_emit_message'`).Scan(&setting, &s.mayWait)
	if err == nil && setting == "off" {
		err = errNotDurable
	}
	return err
}

// parse returns the settings of a URL. It drops the parser's errors: they quote the URL, with the
// password if it is malformed.
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

// Redact returns a URL without its password, to be displayed. It hides a malformed URL.
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
	s.claims.Close()
	s.small.Close()
	s.additions.Close()
	s.pool.Close()
	return nil
}
