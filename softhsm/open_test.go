package softhsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
)

func open(t *testing.T, i *softhsm.Installation) *token.Token {
	t.Helper()
	tok, err := i.Open(t.Context(), token.Config{})
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	t.Cleanup(func() { tok.Close() })
	return tok
}

// wantVariable has SOFTHSM2_CONF set for the test, and returns a check that it still is.
func wantVariable(t *testing.T) func() {
	t.Helper()
	t.Setenv("SOFTHSM2_CONF", "/before")
	return func() {
		t.Helper()
		if got := os.Getenv("SOFTHSM2_CONF"); got != "/before" {
			t.Errorf("SOFTHSM2_CONF = %q, want it as it was before", got)
		}
	}
}

func TestInstallationOpensItself(t *testing.T) {
	wantVariable(t)
	i := create(t, t.TempDir())
	first := open(t, i)
	second, err := i.Open(t.Context(), token.Config{Sessions: 2})
	if err != nil {
		t.Fatalf("Open() again err = %v, want nil", err)
	}
	defer second.Close()
	if second.Sessions() != 2 {
		t.Errorf("Sessions() = %d, want 2", second.Sessions())
	}
	spec := token.KeyPairSpec{Curve: token.P256, ID: []byte("one"), Label: "one"}
	if _, err := first.GenerateKeyPair(t.Context(), spec); err != nil {
		t.Fatalf("GenerateKeyPair() err = %v, want nil", err)
	}
	if _, err := second.FindKeyPair(t.Context(), token.KeyQuery{ID: spec.ID}); err != nil {
		t.Errorf("FindKeyPair() by the other Token err = %v, want nil", err)
	}
}

func TestInstallationsOpenOneAfterAnother(t *testing.T) {
	wantVariable(t)
	one, two := create(t, t.TempDir()), create(t, t.TempDir())
	for range 2 {
		for _, i := range []*softhsm.Installation{one, two} {
			tok := open(t, i)
			if got := tok.Info().Serial; got != i.Serial {
				t.Errorf("Info().Serial = %s, want %s", got, i.Serial)
			}
			if err := tok.Close(); err != nil {
				t.Errorf("Close() err = %v, want nil", err)
			}
		}
	}
}

func TestSecondInstallationIsRefusedWhileTheFirstIsOpen(t *testing.T) {
	wantVariable(t)
	one, two := create(t, t.TempDir()), create(t, t.TempDir())
	open(t, one)
	if _, err := two.Open(t.Context(), token.Config{}); !errors.Is(err, softhsm.ErrInUse) {
		t.Errorf("Open() of another installation err = %v, want ErrInUse", err)
	}
	if _, err := softhsm.Create(t.Context(), t.TempDir(), softhsm.Options{}); !errors.Is(err, softhsm.ErrInUse) {
		t.Errorf("Create() err = %v, want ErrInUse", err)
	}
	if got := os.Getenv("SOFTHSM2_CONF"); got != one.ConfPath {
		t.Errorf("SOFTHSM2_CONF = %q, want %q, for the token that is open", got, one.ConfPath)
	}
}

func TestInstallationIsRefusedWhileTheModuleHasAnotherConfiguration(t *testing.T) {
	i := create(t, t.TempDir())
	softhsmtest.Open(t) // which sets the variable itself
	unchanged := wantVariable(t)
	if _, err := i.Open(t.Context(), token.Config{}); !errors.Is(err, softhsm.ErrInUse) {
		t.Errorf("Open() err = %v, want ErrInUse", err)
	}
	unchanged()
}

func TestVariableIsAsBeforeWhenOpenFails(t *testing.T) {
	i := create(t, t.TempDir())
	unchanged := wantVariable(t)
	for want, cfg := range map[error]token.Config{
		token.ErrPINSource: {PIN: token.File(filepath.Join(i.Dir, "missing"))},
		token.ErrPIN:       {PIN: token.Static(token.NewPIN([]byte("wrong")))},
		token.ErrNoToken:   {Label: "another"},
		token.ErrModule:    {Module: filepath.Join(i.Dir, "missing.so")},
	} {
		if _, err := i.Open(t.Context(), cfg); !errors.Is(err, want) || errors.Is(err, softhsm.ErrInUse) {
			t.Errorf("Open(%+v) err = %v, want %v", cfg, err, want)
		}
		unchanged()
	}
}

// Of goroutines that open two installations at once, those of one succeed.
func TestInstallationsOpenAtTheSameTime(t *testing.T) {
	wantVariable(t)
	installations := []*softhsm.Installation{create(t, t.TempDir()), create(t, t.TempDir())}
	var group sync.WaitGroup
	errs := make([]error, 8)
	for n := range errs {
		group.Go(func() {
			tok, err := installations[n%2].Open(t.Context(), token.Config{})
			if errs[n] = err; err == nil {
				t.Cleanup(func() { tok.Close() })
			}
		})
	}
	group.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("Open() of two installations err = %v, %v, want one nil", errs[0], errs[1])
	}
	for n, err := range errs {
		if (err == nil) != (errs[n%2] == nil) || err != nil && !errors.Is(err, softhsm.ErrInUse) {
			t.Errorf("Open() of installation %d err = %v, want nil for one installation and ErrInUse for the other", n%2, err)
		}
	}
}

// SoftHSM reads its configuration again when a Token initializes the module anew.
func TestOpenedTokenRecovers(t *testing.T) {
	wantVariable(t)
	i := create(t, t.TempDir())
	faults := tokentest.New(t, i.Module)
	tok, err := i.Open(t.Context(), token.Config{Module: faults.Path})
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	before := faults.Calls("C_Initialize")
	faults.Fail(t, "C_GenerateRandom", 1, 1, token.CKR_CRYPTOKI_NOT_INITIALIZED)
	if err := tok.Random(t.Context(), make([]byte, 8)); err != nil {
		t.Errorf("Random() err = %v, want nil", err)
	}
	if faults.Calls("C_Initialize") == before {
		t.Error("the module was not initialized again")
	}
}
