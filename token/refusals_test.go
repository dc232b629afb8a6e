package token_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
)

func pinOf(text string) token.PIN { return token.NewPIN([]byte(text)) }

func TestRefusedPINsAreRememberedInAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "refused")
	known := func(serial, pin string) bool {
		t.Helper()
		refused, err := token.RefusalFile(path).Refused(serial, pinOf(pin)) // as another process would
		if err != nil {
			t.Fatalf("Refused() err = %v, want nil", err)
		}
		return refused
	}
	if known("s1", "1234") {
		t.Error("a PIN is refused before any was")
	}
	for range 2 {
		for _, serial := range []string{"s1", "s2"} {
			if err := token.RefusalFile(path).Remember(serial, pinOf("1234")); err != nil {
				t.Fatalf("Remember() err = %v, want nil", err)
			}
		}
	}
	if !known("s1", "1234") || known("s1", "1235") || known("s3", "1234") {
		t.Error("the file does not know what it was told")
	}
	text, err := os.ReadFile(path)
	if err != nil || bytes.Contains(text, []byte("1234")) {
		t.Errorf("the file is %s, %v, want it without the PIN", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v, want 0600", info.Mode(), err)
	}
	if err := token.RefusalFile(path).Forget("s1"); err != nil || known("s1", "1234") || !known("s2", "1234") {
		t.Errorf("Forget() = %v, or it forgot the wrong one", err)
	}
	if err := token.RefusalFile(path).Forget("s2"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file without a refused PIN is left: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
		t.Errorf("%v are left (%v), want nothing", left, err)
	}
}

func TestTheLastRefusedPINsOfATokenAreRemembered(t *testing.T) {
	f := token.RefusalFile(filepath.Join(t.TempDir(), "refused"))
	for i := range 18 {
		if err := f.Remember("s", pinOf(fmt.Sprint("pin", i))); err != nil {
			t.Fatal(err)
		}
	}
	for pin, want := range map[string]bool{"pin0": false, "pin2": true, "pin17": true} {
		if refused, err := f.Refused("s", pinOf(pin)); err != nil || refused != want {
			t.Errorf("Refused(%s) = %v, %v, want %v", pin, refused, err, want)
		}
	}
}

// A file that cannot be read might list the PIN: the PIN is not sent.
func TestADamagedFileOfRefusedPINsSendsNone(t *testing.T) {
	cfg := softhsmtest.Config(t)
	logins := countLogins(t, cfg.Module)
	path := filepath.Join(t.TempDir(), "refused")
	cfg.Refusals = token.RefusalFile(path)
	for _, text := range []string{"", "{", `{"version":2}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := token.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("Open() with %q as the file err = %v, want one that names it", text, err)
		}
	}
	if n := logins.Load(); n != 0 {
		t.Errorf("%d logins, want none", n)
	}
}

// A wrong PIN reaches the token once, however many processes are started with it.
func TestAWrongPINIsSentOnceByAnyProcess(t *testing.T) {
	cfg := softhsmtest.Config(t)
	logins := countLogins(t, cfg.Module)
	cfg.Refusals = token.RefusalFile(filepath.Join(t.TempDir(), "refused"))
	wrong := cfg
	wrong.PIN = token.Static(pinOf("not the PIN"))
	for range 3 {
		if _, err := token.Open(t.Context(), wrong); !errors.Is(err, token.ErrPIN) {
			t.Errorf("Open() err = %v, want %v", err, token.ErrPIN)
		}
		token.ForgetRefusals(t, cfg.Module) // as a new process has
	}
	if n := logins.Load(); n != 1 {
		t.Errorf("the PIN was sent %d times, want once", n)
	}
	cfg.ForceLogin = true
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() with the right PIN err = %v, want nil", err)
	}
	defer tok.Close()
	if refused, err := cfg.Refusals.Refused(cfg.Serial, pinOf("not the PIN")); err != nil || refused {
		t.Errorf("Refused() after a login = %v, %v, want it forgotten", refused, err)
	}
}

// atRisk answers as a token does before the last try.
type atRisk struct{ token.Cryptoki }

func (c atRisk) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	info, err := c.Cryptoki.GetTokenInfo(slot)
	info.Flags |= pkcs11.CKF_USER_PIN_FINAL_TRY
	return info, err
}

func TestTheLastTryIsNotTaken(t *testing.T) {
	cfg := softhsmtest.Config(t)
	logins := countLogins(t, cfg.Module)
	token.Intercept(t, cfg.Module, func(real token.Cryptoki) token.Cryptoki { return atRisk{real} })
	if _, err := token.Open(t.Context(), cfg); !errors.Is(err, token.ErrPINAtRisk) || !strings.Contains(err.Error(), "one more wrong PIN locks it") {
		t.Errorf("Open() err = %v, want %v", err, token.ErrPINAtRisk)
	}
	if n := logins.Load(); n != 0 {
		t.Errorf("%d logins, want none", n)
	}
	cfg.ForceLogin = true
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() by force err = %v, want nil", err)
	}
	tok.Close()
}
