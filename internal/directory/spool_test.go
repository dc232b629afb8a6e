package directory

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// namesIn returns the names of the files in a folder.
func namesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestReplaceFileReplacesTheWhole(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a.mls")
	for _, text := range []string{"first, which is long", "second", ""} {
		if err := ReplaceFile(name, []byte(text), 0o644); err != nil {
			t.Fatalf("ReplaceFile() err = %v, want nil", err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != text {
			t.Errorf("the file has %q, %v, want %q", got, err, text)
		}
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o644 {
		t.Errorf("Stat() = %v, %v, want mode 0644", info.Mode(), err)
	}
	if got := namesIn(t, dir); len(got) != 1 {
		t.Errorf("the folder has %q, want the file alone", got)
	}
}

// A folder has the name of the file, so the last step, the rename, fails.
func TestReplaceFileLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "a.mls")
	if err := os.Mkdir(name, 0o755); err != nil {
		t.Fatal(err)
	}
	err := ReplaceFile(name, []byte("x"), 0o644)
	if err == nil || !strings.HasPrefix(err.Error(), name+": ") || strings.Contains(err.Error(), ".tmp") {
		t.Errorf("ReplaceFile() err = %v, want one that names %s and no temporary file", err, name)
	}
	if got := namesIn(t, dir); len(got) != 1 || got[0] != "a.mls" {
		t.Errorf("the folder has %q, want what it had", got)
	}
	missing := filepath.Join(dir, "none", "a.mls")
	if err := ReplaceFile(missing, []byte("x"), 0o644); !errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), ".tmp") {
		t.Errorf("ReplaceFile() into no folder err = %v, want %v and no temporary file's name", err, fs.ErrNotExist)
	}
}

// sweep removes only regular files that a killed run of hsm-kp left long ago, and does not
// interpret a folder's name as a pattern.
func TestSweepTakesOnlyWhatIsOldAndOurs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), `odd [a-z]* \?`)
	if err := os.MkdirAll(filepath.Join(dir, ".hsm-kp-folder.tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-2 * time.Hour)
	for _, name := range []string{".hsm-kp-1.tmp", ".hsm-kp-2.tmp", ".hsm-kp-notes", "a.tmp", "a.mls"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if name == ".hsm-kp-2.tmp" {
			continue // from a current run
		}
		if err := os.Chtimes(path, long, long); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(filepath.Join(dir, ".hsm-kp-folder.tmp"), long, long); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSpool(dir); err != nil {
		t.Fatalf("OpenSpool() err = %v, want nil", err)
	}
	want := ".hsm-kp-2.tmp .hsm-kp-folder.tmp .hsm-kp-notes a.mls a.tmp"
	if got := strings.Join(namesIn(t, dir), " "); got != want {
		t.Errorf("the folder has %s, want %s", got, want)
	}
}
