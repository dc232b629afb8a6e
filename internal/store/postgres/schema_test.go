package postgres

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/store/postgres/postgrestest"
)

// A database that the program with schema 2 wrote is migrated without a loss. testdata/schema-2.sql
// is its pg_dump, and schema-2.jsonl what that program read from it. It has a wrapping key that is
// being shredded.
func TestADatabaseOfSchema2IsOpened(t *testing.T) {
	url := postgrestest.Shared(t).Database(t)
	execute(t, url, "schema-2.sql")
	s := openAt(t, url)
	want := readKeyPackages(t, "schema-2.jsonl")
	for i := range want {
		got, err := s.KeyPackage(t.Context(), want[i].Ref)
		if err != nil || printed(got) != printed(want[i]) {
			t.Errorf("KeyPackage(%d) = %+v, %v, want %+v", i, got, err, want[i])
		}
	}
	if _, err := audit.Verify(s.Entries(t.Context(), 0), nil); err != nil {
		t.Errorf("Verify() err = %v, want nil", err)
	}
	claimed, err := s.Claim(t.Context(), "alice", 1, made)
	if err != nil || len(claimed) != 1 || !bytes.Equal(claimed[0].Ref, want[3].Ref) {
		t.Errorf("Claim() = %+v, %v, want the first that is available", claimed, err)
	}
	swept, err := s.Sweep(t.Context(), made.Add(2*time.Hour), 24*time.Hour)
	if err != nil || swept.Finished != 3 {
		t.Errorf("Sweep() = %+v, %v, want three shredded", swept, err)
	}
	batch := []store.KeyPackage{{Ref: bytes.Repeat([]byte{7}, 32), Identity: "alice", Version: 1, State: store.Available, WrappingKeyID: []byte("k2"), CreatedAt: made}}
	if err := s.AddKeyPackages(t.Context(), batch); err != nil {
		t.Errorf("AddKeyPackages() err = %v, want nil", err)
	}
}

func execute(t *testing.T, url, name string) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), string(text)); err != nil {
		t.Fatal(err)
	}
}

func readKeyPackages(t *testing.T, name string) (all []store.KeyPackage) {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(bytes.NewReader(text)); d.More(); {
		var k store.KeyPackage
		if err := d.Decode(&k); err != nil {
			t.Fatal(err)
		}
		all = append(all, k)
	}
	return all
}

// printed does not distinguish nil from empty bytes.
func printed(k store.KeyPackage) string { return fmt.Sprintf("%+v", k) }
