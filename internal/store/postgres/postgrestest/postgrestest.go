// Package postgrestest gives tests a PostgreSQL of their own.
//
// The server runs from the installed binaries, in a temporary folder, and listens only on a Unix
// socket in it. The tests of one binary share one server and have a database each. A watchdog stops
// the server and removes the folder when the test binary ends, however it ends.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options are those of a server.
type Options struct {
	// Durable puts commits on the disk before they return, as in production. Without it the
	// server is faster, and loses data if the machine stops, but not if the server does.
	Durable bool
	// Dir is a folder that is kept, with its databases, and may exist already. Its path has to
	// be short: the path of a socket has 107 bytes. Empty: a temporary folder.
	Dir string
	// Settings are lines for postgresql.conf, such as "max_connections=200".
	Settings []string
}

// Server is a PostgreSQL server.
type Server struct {
	dir, bin string
	user     *syscall.Credential // the user that it runs as; nil: the user of the test
	options  Options
	process  *exec.Cmd
	watchdog *exec.Cmd
	leash    io.Closer    // what the watchdog reads
	number   atomic.Int64 // of databases
}

// superuser is the role that tests connect as.
const superuser = "postgres"

// FindServer returns the folder of initdb and postgres, of the newest version if there are several.
func FindServer() (string, error) {
	patterns := []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/libexec/postgresql*", "/opt/homebrew/opt/postgresql*/bin", "/usr/bin", "/usr/local/bin"}
	for _, pattern := range patterns {
		folders, _ := filepath.Glob(pattern) // the patterns are well formed
		for _, dir := range slices.Backward(folders) {
			if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
				return dir, nil
			}
		}
	}
	return "", errors.New("there is no PostgreSQL server: scripts/install-deps test installs one")
}

var shared struct {
	sync.Mutex
	server *Server
}

// Shared returns the server of this test binary, which is not durable. Without PostgreSQL it skips
// the test, or fails it if CI=true.
func Shared(tb testing.TB) *Server {
	tb.Helper()
	bin := find(tb)
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		s, err := start(bin, Options{Settings: []string{"max_connections=200"}})
		if err != nil {
			tb.Fatalf("start PostgreSQL: %v", err)
		}
		shared.server = s
	}
	return shared.server
}

// Start returns a server for this test alone, which ends with it.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	s, err := start(find(tb), o)
	if err != nil {
		tb.Fatalf("start PostgreSQL: %v", err)
	}
	tb.Cleanup(s.end)
	return s
}

func find(tb testing.TB) string {
	tb.Helper()
	bin, err := FindServer()
	if err == nil {
		return bin
	}
	if os.Getenv("CI") == "true" {
		tb.Fatal(err)
	}
	tb.Skip(err)
	return ""
}

func start(bin string, o Options) (*Server, error) {
	dir, err := o.Dir, error(nil)
	if dir == "" {
		dir, err = os.MkdirTemp("", "pg")
	} else {
		err = os.MkdirAll(dir, 0o755) // the user of the server reads it
	}
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin, options: o}
	if err := s.make(); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	if err := errors.Join(s.watch(), s.Up()); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

// remove removes a folder that is not kept.
func (s *Server) remove() error {
	if s.options.Dir != "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

// make makes the folder of the server. PostgreSQL does not run as root.
func (s *Server) make() error {
	if os.Getuid() == 0 {
		uid, gid, err := unprivileged()
		if err != nil {
			return err
		}
		s.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(s.data(), "PG_VERSION")); err == nil {
		return nil // it exists already
	}
	out, err := s.command("initdb", "-D", s.data(), "-U", superuser, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	return nil
}

// unprivileged returns a user who is not root.
func unprivileged() (uid, gid int, err error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, first := strconv.Atoi(u.Uid)
		gid, second := strconv.Atoi(u.Gid)
		return uid, gid, errors.Join(first, second)
	}
	return 0, 0, errors.New("there is no user postgres or nobody to run PostgreSQL as")
}

// command runs a program of PostgreSQL, out of reach of the terminal's signals.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user, Setpgid: true}
	return cmd
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// watch starts the watchdog, which ends the server when this process ends: it reads from a pipe that
// is closed then.
func (s *Server) watch() error {
	s.watchdog = exec.Command("/bin/sh", "-c", `cat >/dev/null
		pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" 2>/dev/null &&
			while kill -0 "$pid" 2>/dev/null && [ -e "$1/data/postmaster.pid" ]; do sleep 0.05; done
		[ -n "$2" ] || rm -rf "$1"`, "sh", s.dir, s.options.Dir)
	s.watchdog.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	leash, err := s.watchdog.StdinPipe() // held until this process ends
	if err != nil {
		return err
	}
	s.leash = leash
	return s.watchdog.Start()
}

// Up starts a stopped server, and waits until it answers.
func (s *Server) Up() error {
	args := []string{"-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "unix_socket_permissions=0777"}
	settings := s.options.Settings
	if !s.options.Durable {
		settings = append([]string{"fsync=off", "full_page_writes=off"}, settings...)
	}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.process = s.command("postgres", args...)
	s.process.Stdout, s.process.Stderr = log, log
	if err := s.process.Start(); err != nil {
		return err
	}
	return s.await()
}

// patience is how long a server may take to start.
const patience = 2 * time.Minute

func (s *Server) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("%w; its log: %s", err, log)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop stops the server as an operator in a hurry does: it cuts off connections, and the server
// recovers from its log at the next start.
func (s *Server) Stop() error { return s.stop(syscall.SIGQUIT) }

// Shutdown stops the server as a service manager does: it rolls back transactions under way, and
// tells connections why they end.
func (s *Server) Shutdown() error { return s.stop(syscall.SIGINT) }

func (s *Server) stop(how syscall.Signal) error {
	if s.process == nil {
		return nil
	}
	if err := s.process.Process.Signal(how); err != nil {
		return err
	}
	s.process.Wait() // its status only says how it was stopped
	s.process = nil
	return nil
}

// end stops the server for good; the watchdog removes the folder.
func (s *Server) end() {
	s.Stop()
	if s.leash != nil {
		s.leash.Close()
		s.watchdog.Wait()
	}
}

// URL names a database of the server.
func (s *Server) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/" + database, RawQuery: url.Values{"host": {s.dir}}.Encode()}
	return u.String()
}

// Database makes an empty database and returns its URL.
func (s *Server) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("t%d", s.number.Add(1))
	Exec(tb, s.URL("postgres"), "CREATE DATABASE "+name+" TEMPLATE template0")
	return s.URL(name)
}

// Exec runs a statement in a database.
func Exec(tb testing.TB, url, statement string) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), url)
	if err == nil {
		defer conn.Close(context.WithoutCancel(tb.Context()))
		_, err = conn.Exec(tb.Context(), statement)
	}
	if err != nil {
		tb.Fatalf("%s: %v", statement, err)
	}
}
