package sqlite

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/storetest"
)

func open(tb testing.TB, path string) *Store {
	tb.Helper()
	s, err := Open(tb.Context(), path, Options{Create: true})
	if err != nil {
		tb.Fatalf("Open() err = %v, want nil", err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func TestSuite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
		path := filepath.Join(t.TempDir(), "store.db")
		return open(t, path), func() store.Store { return open(t, path) }
	})
}

// Every connection has the settings that durability and erasure rest on.
func TestSettingsHoldInEveryConnection(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "store.db"))
	for name, db := range map[string]*sql.DB{"reading": s.reader, "writing": s.writer} {
		var held []*sql.Conn
		for range db.Stats().MaxOpenConnections {
			conn, err := db.Conn(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			held = append(held, conn)
			for pragma, want := range map[string]string{
				"journal_mode": "wal", "synchronous": "2", "secure_delete": "1", "foreign_keys": "1", "busy_timeout": "5000",
			} {
				var got string
				if err := conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
					t.Errorf("%s connection: %s = %q (%v), want %q", name, pragma, got, err, want)
				}
			}
		}
		for _, conn := range held {
			conn.Close()
		}
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "store.db"))
	if err := s.AddIdentity(t.Context(), store.Identity{Name: "alice", Credential: []byte{}, SignatureKey: []byte{}, KeyID: []byte{}, CreatedAt: schema1Time}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("files = %v, %v, want the store, its WAL and its index", files, err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", filepath.Base(f), info.Mode().Perm())
		}
	}
}

func TestOpenWithoutCreateMakesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	if _, err := Open(t.Context(), path, Options{}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Open() err = %v, want %v", err, store.ErrNotFound)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat() err = %v, want %v", err, fs.ErrNotExist)
	}
}

func TestANewerSchemaIsRefusedAndLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	if _, err := s.writer.Exec(fmt.Sprintf("PRAGMA user_version = %d", len(migrations)+1)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), path, Options{})
	if newer, ok := errors.AsType[*store.SchemaError](err); !ok || newer.Have != len(migrations)+1 || newer.Known != len(migrations) {
		t.Errorf("Open() err = %v, want a SchemaError of 7", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("the file changed (%v)", err)
	}
}

func TestWhatIsNoStoreIsRefused(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.db")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign.db")
	sameVersion := filepath.Join(dir, "same-version.db")
	makeDatabase(t, foreign, "CREATE TABLE notes (text)")
	makeDatabase(t, sameVersion, "CREATE TABLE notes (text); PRAGMA user_version = 1; PRAGMA application_id = 7")
	for _, path := range []string{text, foreign, sameVersion} {
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), path, Options{Create: true}); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("Open(%s) err = %v, want %v", filepath.Base(path), err, store.ErrDamaged)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Errorf("%s changed (%v)", filepath.Base(path), err)
		}
	}
}

// makeDatabase makes another program's database.
func makeDatabase(t *testing.T, path, text string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(text); err != nil {
		t.Fatal(err)
	}
}

func TestAHeldStoreIsBusy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	holder := open(t, path)
	tx, err := holder.writer.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	s, err := Open(t.Context(), path, Options{BusyTimeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatalf("Open() beside a writer err = %v, want nil", err)
	}
	defer s.Close()
	if _, err := s.Identities(t.Context()); err != nil {
		t.Errorf("Identities() beside a writer err = %v, want nil", err)
	}
	start := time.Now()
	err = s.AddWrappingKey(t.Context(), store.WrappingKey{ID: []byte("k"), CreatedAt: schema1Time})
	if !errors.Is(err, store.ErrBusy) {
		t.Errorf("AddWrappingKey() err = %v, want %v", err, store.ErrBusy)
	}
	if waited := time.Since(start); waited < 50*time.Millisecond {
		t.Errorf("gave up after %v, want the whole busy timeout", waited)
	}
}

// TestMain lets the test binary be the process that TestKilledWriter kills.
func TestMain(m *testing.M) {
	if path := os.Getenv("HSM_KP_TEST_WRITER"); path != "" {
		writeForEver(path)
	}
	os.Exit(m.Run())
}

const killedBatch = 50

func writeForEver(path string) {
	ctx := context.Background()
	s, err := Open(ctx, path, Options{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	start, _ := strconv.ParseUint(os.Getenv("HSM_KP_TEST_START"), 10, 64)
	for n := start; ; n++ {
		if err := s.AddKeyPackages(ctx, rows(n*killedBatch, killedBatch)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

func rows(from uint64, n int) []store.KeyPackage {
	batch := make([]store.KeyPackage, n)
	for i := range batch {
		ref := make([]byte, 32)
		binary.BigEndian.PutUint64(ref, from+uint64(i))
		batch[i] = store.KeyPackage{Ref: ref, Identity: "alice", State: store.Available, Custody: "wrapped",
			WrappingKeyID: []byte("k1"), Sealed: make([]byte, 117), Public: make([]byte, 420), CreatedAt: schema1Time, Version: 1}
	}
	return batch
}

func furnish(tb testing.TB, s *Store) {
	tb.Helper()
	err := errors.Join(
		s.AddIdentity(tb.Context(), store.Identity{Name: "alice", Credential: []byte{}, SignatureKey: []byte{}, KeyID: []byte{}, CreatedAt: schema1Time}),
		s.AddWrappingKey(tb.Context(), store.WrappingKey{ID: []byte("k1"), Purpose: store.Seal, Current: true, CreatedAt: schema1Time}))
	if err != nil {
		tb.Fatal(err)
	}
}

// A writer that is killed leaves whole batches: all that it printed, and none in part.
func TestKilledWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := open(t, path)
	furnish(t, s)
	next := uint64(0)
	for range 15 {
		told := killWriter(t, path, next)
		counts, err := s.Count(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		n := counts[store.Available]
		if n%killedBatch != 0 {
			t.Fatalf("%d key packages: a batch of %d is there in part", n, killedBatch)
		}
		if n < told*killedBatch {
			t.Fatalf("%d key packages, but %d batches were told of", n, told)
		}
		next = n / killedBatch
	}
	var result string
	if err := s.reader.QueryRow("PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
		t.Errorf("integrity_check = %q, %v, want ok", result, err)
	}
	key, err := s.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil || key.Uses != next*killedBatch {
		t.Errorf("Uses = %d (%v), want %d", key.Uses, err, next*killedBatch)
	}
}

// killWriter starts a writer, kills it at a random time, mostly after its first batch, and returns
// how many batches it printed.
func killWriter(t *testing.T, path string, start uint64) uint64 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HSM_KP_TEST_WRITER="+path, fmt.Sprintf("HSM_KP_TEST_START=%d", start))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after := time.Duration(rand.IntN(100)) * time.Millisecond
	kill := func() { time.AfterFunc(after, func() { cmd.Process.Kill() }) }
	early := rand.IntN(4) == 0 // it may not have begun
	if early {
		kill()
	}
	told := start
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if told == start && !early {
			kill()
		}
		n, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			t.Fatalf("the writer says %q", lines.Text())
		}
		told = n + 1
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the writer ended by itself")
	}
	return told
}
