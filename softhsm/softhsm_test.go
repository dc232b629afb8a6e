package softhsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
)

func create(t *testing.T, dir string) *softhsm.Installation {
	t.Helper()
	if _, err := softhsm.FindModule(); err != nil {
		softhsmtest.Open(t) // skips or fails the test
	}
	i, err := softhsm.Create(t.Context(), dir, softhsm.Options{Label: "kp"})
	if err != nil {
		t.Fatalf("Create() err = %v, want nil", err)
	}
	return i
}

func TestCreatedTokenOpens(t *testing.T) {
	i := create(t, filepath.Join(t.TempDir(), "new", "folder with blanks"))
	if got := os.Getenv("SOFTHSM2_CONF"); got == i.ConfPath {
		t.Error("Create() left SOFTHSM2_CONF set")
	}
	for name, value := range i.Environ() {
		t.Setenv(name, value)
	}
	tok, err := token.Open(t.Context(), i.Config())
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	if got := tok.Info(); got.Label != "kp" || got.Serial != i.Serial {
		t.Errorf("Info() = %v, want label kp and serial %s", got, i.Serial)
	}
}

func TestWhatIsCreatedIsForTheOwnerOnly(t *testing.T) {
	i := create(t, filepath.Join(t.TempDir(), "folder"))
	err := filepath.Walk(i.Dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, want none for others", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Errorf("Walk() err = %v, want nil", err)
	}
	pin, errPIN := os.ReadFile(i.PINPath)
	soPIN, errSOPIN := os.ReadFile(i.SOPINPath)
	if err := errors.Join(errPIN, errSOPIN); err != nil {
		t.Fatal(err)
	}
	if len(pin) != 27 || len(soPIN) != 27 || string(pin) == string(soPIN) {
		t.Errorf("PINs of %d and %d bytes, want two different ones of 26 and a newline", len(pin), len(soPIN))
	}
}

func TestFolderThatHasATokenIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	first := create(t, dir)
	pin, err := os.ReadFile(first.PINPath)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := softhsm.Create(t.Context(), dir, softhsm.Options{}); !errors.Is(err, softhsm.ErrExists) {
		t.Errorf("Create() again err = %v, want ErrExists", err)
	}
	if again, err := os.ReadFile(first.PINPath); err != nil || string(again) != string(pin) {
		t.Errorf("PIN file after Create() again = %q, %v, want it as it was", again, err)
	}
	loaded, err := softhsm.Load(dir)
	if err != nil || !reflect.DeepEqual(loaded, first) {
		t.Errorf("Load() = %+v, %v, want %+v", loaded, err, first)
	}
}

func TestNothingStaysBehindAfterAnError(t *testing.T) {
	dir := t.TempDir()
	module := filepath.Join(t.TempDir(), "missing.so")
	if _, err := softhsm.Create(t.Context(), dir, softhsm.Options{Module: module}); !errors.Is(err, token.ErrModule) {
		t.Errorf("Create() err = %v, want token.ErrModule", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("folder has %v, %v, want nothing", left, err)
	}
	create(t, dir)
}

func TestFilesOfOthersAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	pin := filepath.Join(dir, "pin")
	if err := os.WriteFile(pin, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	create(t, t.TempDir()) // skips without SoftHSM
	if _, err := softhsm.Create(t.Context(), dir, softhsm.Options{}); !errors.Is(err, os.ErrExist) {
		t.Errorf("Create() over a file named pin err = %v, want os.ErrExist", err)
	}
	left, err := os.ReadDir(dir)
	if content, errPIN := os.ReadFile(pin); err != nil || len(left) != 1 || errPIN != nil || string(content) != "mine" {
		t.Errorf("folder has %v, and pin is %q, want pin alone as it was", left, content)
	}
}

func TestUnfinishedTokenIsReported(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	if err := os.Remove(filepath.Join(dir, "softhsm.json")); err != nil {
		t.Fatal(err)
	}
	if i, err := softhsm.Load(dir); !errors.Is(err, softhsm.ErrUnfinished) {
		t.Errorf("Load() = %v, %v, want ErrUnfinished", i, err)
	}
}

func TestLoadOfAFolderWithoutAToken(t *testing.T) {
	dir := t.TempDir()
	if i, err := softhsm.Load(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load() = %v, %v, want os.ErrNotExist", i, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "softhsm.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if i, err := softhsm.Load(dir); err == nil {
		t.Errorf("Load() of a damaged record = %v, want an error", i)
	}
}

func TestCreateWhileAnotherFolderIsOpenIsRefused(t *testing.T) {
	softhsmtest.Open(t)
	dir := t.TempDir()
	if _, err := softhsm.Create(t.Context(), dir, softhsm.Options{}); !errors.Is(err, softhsm.ErrInUse) {
		t.Errorf("Create() err = %v, want ErrInUse", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("folder has %v, %v, want nothing", left, err)
	}
}

func TestFolderThatSoftHSMCannotNameIsRefused(t *testing.T) {
	create(t, t.TempDir()) // skips without SoftHSM
	if _, err := softhsm.Create(t.Context(), filepath.Join(t.TempDir(), "a#b"), softhsm.Options{}); err == nil {
		t.Error("Create() err = nil, want an error")
	}
}

func TestModuleIsWhereTheVariableSays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libsofthsm2.so")
	t.Setenv("SOFTHSM2_MODULE", path)
	if got, err := softhsm.FindModule(); !errors.Is(err, softhsm.ErrNotInstalled) {
		t.Errorf("FindModule() = %q, %v, want ErrNotInstalled", got, err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := softhsm.FindModule(); err != nil || got != path {
		t.Errorf("FindModule() = %q, %v, want %q", got, err, path)
	}
}
