package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/store"
)

// A file that the first schema's program wrote is opened by every later one, and
// brought up to date without a loss.
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
	key, err := s.CurrentWrappingKey(t.Context())
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
