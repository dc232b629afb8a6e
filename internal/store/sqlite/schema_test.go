package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// A file that the program with the first schema wrote is migrated without a loss.
func TestAFileOfSchema1IsOpened(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "schema-1.db"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "store.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer s.Close()
	id, err := s.Identity(t.Context(), "alice")
	if err != nil || id.KeyLabel != "label of alice" || !id.CreatedAt.Equal(schema1Time) {
		t.Errorf("Identity() = %+v, %v, want what was added", id, err)
	}
	key, err := s.CurrentWrappingKey(t.Context(), store.Seal)
	if err != nil || string(key.ID) != "k1" || key.Uses != 3 {
		t.Errorf("CurrentWrappingKey() = %+v, %v, want k1 with 3 uses", key, err)
	}
	for i, want := range schema1KeyPackages() {
		got, err := s.KeyPackage(t.Context(), want.Ref)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("KeyPackage(%d) = %+v, %v, want %+v", i, got, err, want)
		}
	}
	if err := s.AddKeyPackages(t.Context(), rows(100, 2)); err != nil {
		t.Errorf("AddKeyPackages() err = %v, want nil", err)
	}
}

var schema1Time = time.Unix(1_800_000_000, 0).UTC()

// schema1KeyPackages are what testdata/schema-1.db has.
func schema1KeyPackages() []store.KeyPackage {
	all := rows(1, 3)
	for i := range all {
		k := &all[i]
		k.Suite, k.Sealed, k.Public = 2, fmt.Appendf(nil, "sealed %d", i), fmt.Appendf(nil, "public %d", i)
		k.CreatedAt, k.NotBefore, k.NotAfter = schema1Time, schema1Time.Add(-time.Hour), schema1Time.Add(84*24*time.Hour)
	}
	all[1].LastResort = true
	all[2].State, all[2].PublishedAt = store.Published, schema1Time.Add(time.Minute)
	return all
}

// migratedTo returns a database with the schema of a version, as the program of that time wrote it.
func migratedTo(t *testing.T, path string, version int) *sql.DB {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	db := openDB(path, Options{BusyTimeout: time.Second}, 1, readCacheKiB)
	t.Cleanup(func() { db.Close() })
	for i := range version {
		if _, err := db.Exec(migrations[i] + fmt.Sprintf("; PRAGMA user_version = %d; PRAGMA application_id = %d", i+1, applicationID)); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

// The text that SQLite keeps of a schema freezes what released programs write.
func TestSchemasAreFrozen(t *testing.T) {
	for version := 3; version <= len(migrations); version++ {
		db := migratedTo(t, filepath.Join(t.TempDir(), "store.db"), version)
		got := schemaOf(t, db)
		want, err := os.ReadFile(filepath.Join("testdata", fmt.Sprintf("schema-%d.sql", version)))
		if err != nil || got != string(want) {
			t.Errorf("schema %d =\n%swant (%v)\n%s", version, got, err, want)
		}
	}
}

func schemaOf(t *testing.T, db *sql.DB) string {
	t.Helper()
	rows, err := db.QueryContext(context.Background(), "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got strings.Builder
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&got, strings.Join(strings.Fields(text), " "))
	}
	return got.String()
}

// Version 3 called Expired what had been erased, and did not record the wrapping key of a stamp.
func TestAFileOfSchema3IsBroughtUpToDate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	db := migratedTo(t, path, 3)
	key := "0123456789abcdef"
	for _, statement := range []string{
		"INSERT INTO wrapping_keys (key_id, label, token_serial, current, created_at) VALUES (CAST('" + key + "' AS BLOB), '', '', 1, 0)",
		"INSERT INTO identities (name, cipher_suite, credential, signature_key, key_id, key_label, token_serial, created_at, stamp) VALUES ('alice', 2, x'', x'', x'01', '', '', 0, x'" + fmt.Sprintf("0101000010%x0000000000", key) + "')",
		"INSERT INTO identities (name, cipher_suite, credential, signature_key, key_id, key_label, token_serial, created_at) VALUES ('bob', 2, x'', x'', x'02', '', '', 0)",
		"INSERT INTO key_packages (ref, identity, cipher_suite, state, last_resort, custody, wrapping_key, sealed, public, created_at, not_before, not_after) VALUES (x'aa', 1, 2, 'expired', 0, 'wrapped', 1, x'', x'', 0, 0, 0)",
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	db.Close()
	s := open(t, path)
	if k, err := s.KeyPackage(t.Context(), []byte{0xAA}); err != nil || k.State != store.Erased {
		t.Errorf("KeyPackage() = %s, %v, want it erased", k.State, err)
	}
	alice, err := s.Identity(t.Context(), "alice")
	if err != nil || string(alice.StampKey) != key || alice.Version != 1 || alice.State != store.Current {
		t.Errorf("Identity(alice) = %+v, %v, want version 1, stamped under %s", alice, err, key)
	}
	if bob, err := s.Identity(t.Context(), "bob"); err != nil || len(bob.StampKey) != 0 {
		t.Errorf("Identity(bob) = %+v, %v, want it without a stamp", bob, err)
	}
	if current, err := s.CurrentWrappingKey(t.Context(), store.Seal); err != nil || string(current.ID) != key {
		t.Errorf("CurrentWrappingKey() = %+v, %v, want the one that was", current, err)
	}
}
