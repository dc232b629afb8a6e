package token_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
)

// loginCounter counts the PINs that reach the module.
type loginCounter struct {
	token.Cryptoki
	logins atomic.Int32
}

func (c *loginCounter) Login(s pkcs11.SessionHandle, user uint, pin string) error {
	c.logins.Add(1)
	return c.Cryptoki.Login(s, user, pin)
}

func countLogins(t *testing.T, module string) *atomic.Int32 {
	t.Helper()
	c := &loginCounter{}
	token.Intercept(t, module, func(real token.Cryptoki) token.Cryptoki { c.Cryptoki = real; return c })
	return &c.logins
}

// crypto11 logs in by itself, past the counter, unless its config forbids it: so this test also
// asks the token, which remembers that a wrong PIN was sent.
func TestWrongPINIsTriedOnce(t *testing.T) {
	cfg := softhsmtest.Config(t)
	logins := countLogins(t, cfg.Module)
	wrong := cfg
	wrong.PIN = token.Static(token.NewPIN([]byte("not the PIN")))

	_, err := token.Open(t.Context(), wrong)
	if !errors.Is(err, token.ErrPIN) || !errors.Is(err, token.CKR_PIN_INCORRECT) {
		t.Fatalf("Open() err = %v, want ErrPIN with CKR_PIN_INCORRECT", err)
	}
	if call, ok := errors.AsType[*token.Error](err); !ok || call.Func != "C_Login" {
		t.Errorf("Open() err = %#v, want a *token.Error of C_Login in it", err)
	}
	if strings.Contains(err.Error(), "not the PIN") {
		t.Errorf("Open() err = %q has the PIN in it", err)
	}
	if n := logins.Load(); n != 1 {
		t.Errorf("Open() tried the PIN %d times, want once", n)
	}

	if _, err := token.Open(t.Context(), wrong); !errors.Is(err, token.ErrPIN) {
		t.Errorf("Open() again err = %v, want ErrPIN", err)
	}
	if n := logins.Load(); n != 1 {
		t.Errorf("a refused PIN was tried again: %d logins, want 1", n)
	}
	if info := infoOf(t, cfg); !info.UserPINCountLow {
		t.Error("Info.UserPINCountLow = false after a wrong PIN, want true")
	}

	if _, err := token.Open(t.Context(), cfg); !errors.Is(err, token.ErrPINAtRisk) {
		t.Errorf("Open() of a token at risk err = %v, want %v", err, token.ErrPINAtRisk)
	}
	if n := logins.Load(); n != 1 {
		t.Errorf("a PIN was sent to a token at risk: %d logins, want 1", n)
	}
	forced := cfg
	forced.ForceLogin = true
	tok, err := token.Open(t.Context(), forced)
	if err != nil {
		t.Fatalf("Open() with the right PIN err = %v, want nil", err)
	}
	defer tok.Close()
	if n := logins.Load(); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
	if info := infoOf(t, cfg); info.UserPINCountLow {
		t.Error("Info.UserPINCountLow = true after the right PIN, want false")
	}
}

func infoOf(t *testing.T, cfg token.Config) token.Info {
	t.Helper()
	infos, err := token.List(t.Context(), cfg.Module, token.Quirks{})
	if err != nil {
		t.Fatalf("List() err = %v, want nil", err)
	}
	for _, i := range infos {
		if i.Serial == cfg.Serial {
			return i
		}
	}
	t.Fatalf("List() = %v, want serial %s among them", infos, cfg.Serial)
	return token.Info{}
}

func TestWrongPINIsNotAcceptedWhileAnotherTokenIsLoggedIn(t *testing.T) {
	cfg := softhsmtest.Config(t)
	first, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer first.Close()
	logins := countLogins(t, cfg.Module)
	wrong := cfg
	wrong.PIN = token.Static(token.NewPIN([]byte("not the PIN")))
	if _, err := token.Open(t.Context(), wrong); !errors.Is(err, token.ErrPIN) {
		t.Errorf("Open() err = %v, want ErrPIN", err)
	}
	if n := logins.Load(); n != 0 {
		t.Errorf("%d logins, want none", n)
	}
}

func TestTwoTokensOfOneTokenShareTheLogin(t *testing.T) {
	cfg := softhsmtest.Config(t)
	first, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	second, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() again err = %v, want nil", err)
	}
	defer second.Close()
	k, err := second.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256})
	if err != nil {
		t.Fatalf("GenerateKeyPair() err = %v, want nil", err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("Close() err = %v, want nil", err)
	}
	if _, err := first.KeyPairs(t.Context()); !errors.Is(err, token.ErrClosed) {
		t.Errorf("KeyPairs() on the closed one err = %v, want ErrClosed", err)
	}
	mustSign(t, k)
}

func mustSign(t *testing.T, k *token.SigningKey) {
	t.Helper()
	digest := sha256.Sum256([]byte("message"))
	if _, err := k.Sign(nil, digest[:], crypto.SHA256); err != nil {
		t.Errorf("Sign() err = %v, want nil", err)
	}
}

func TestOpenAgainAfterClose(t *testing.T) {
	cfg := softhsmtest.Config(t)
	var id []byte
	for range 3 {
		tok, err := token.Open(t.Context(), cfg)
		if err != nil {
			t.Fatalf("Open() err = %v, want nil", err)
		}
		if id == nil {
			k, err := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256})
			if err != nil {
				t.Fatalf("GenerateKeyPair() err = %v, want nil", err)
			}
			id = k.ID()
		}
		k, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: id})
		if err != nil {
			t.Fatalf("FindKeyPair() err = %v, want nil", err)
		}
		mustSign(t, k)
		if err := errors.Join(tok.Close(), tok.Close()); err != nil {
			t.Errorf("Close() twice err = %v, want nil", err)
		}
		if _, err := token.Raw(t, cfg.Module).GetInfo(); !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)) {
			t.Errorf("C_GetInfo after Close err = %v, want CKR_CRYPTOKI_NOT_INITIALIZED", err)
		}
		if _, err := k.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, token.ErrClosed) {
			t.Errorf("Sign() after Close err = %v, want ErrClosed", err)
		}
	}
}

func TestOpenInAnotherFolderOfSoftHSM(t *testing.T) {
	if _, err := softhsm.FindModule(); err != nil {
		softhsmtest.Open(t) // skips or fails as the rest does
	}
	t.Setenv("SOFTHSM2_CONF", "")
	for _, label := range []string{"one", "two"} {
		i, err := softhsm.Create(t.Context(), filepath.Join(t.TempDir(), "a folder"), softhsm.Options{Label: label})
		if err != nil {
			t.Fatalf("Create() err = %v, want nil", err)
		}
		if err := i.Setenv(); err != nil {
			t.Fatal(err)
		}
		cfg := i.Config()
		cfg.Serial, cfg.Label = "", label
		tok, err := token.Open(t.Context(), cfg)
		if err != nil {
			t.Fatalf("Open() err = %v, want nil", err)
		}
		if got := tok.Info(); got.Serial != i.Serial {
			t.Errorf("Info() = %v, want serial %s", got, i.Serial)
		}
		if err := tok.Close(); err != nil {
			t.Errorf("Close() err = %v, want nil", err)
		}
	}
}

func TestTokenThatIsNotThere(t *testing.T) {
	cfg := softhsmtest.Config(t)
	here := infoOf(t, cfg)
	slot := here.Slot + 1
	for _, absent := range []token.Config{
		{Label: "no such label"},
		{Serial: "0000"},
		{Slot: &slot},
		{Label: here.Label, Serial: "0000"},
		{Serial: here.Serial, Model: "Luna"},
	} {
		absent.Module, absent.PIN = cfg.Module, cfg.PIN
		_, err := token.Open(t.Context(), absent)
		if !errors.Is(err, token.ErrNoToken) {
			t.Errorf("Open() err = %v, want ErrNoToken", err)
			continue
		}
		if !strings.Contains(err.Error(), here.Serial) {
			t.Errorf("Open() err = %q, want it to name what is there, serial %s", err, here.Serial)
		}
	}
}

func TestLabelThatFitsTwoTokens(t *testing.T) {
	cfg := softhsmtest.Config(t)
	pin := token.NewPIN([]byte("12345678"))
	var serials []string
	for range 2 {
		info, err := token.InitToken(t.Context(), cfg.Module, "twin", pin, pin)
		if err != nil {
			t.Fatalf("InitToken() err = %v, want nil", err)
		}
		serials = append(serials, info.Serial)
	}
	logins := countLogins(t, cfg.Module)
	twin := token.Config{Module: cfg.Module, Label: "twin", PIN: token.Static(pin)}
	_, err := token.Open(t.Context(), twin)
	if !errors.Is(err, token.ErrAmbiguousToken) {
		t.Fatalf("Open() err = %v, want ErrAmbiguousToken", err)
	}
	for _, serial := range serials {
		if !strings.Contains(err.Error(), serial) {
			t.Errorf("Open() err = %q, want it to name serial %s", err, serial)
		}
	}
	if n := logins.Load(); n != 0 {
		t.Errorf("%d logins, want none", n)
	}
	twin.Serial = serials[1]
	tok, err := token.Open(t.Context(), twin)
	if err != nil {
		t.Fatalf("Open() with a serial err = %v, want nil", err)
	}
	defer tok.Close()
	if got := tok.Info().Serial; got != serials[1] {
		t.Errorf("Info().Serial = %s, want %s", got, serials[1])
	}
}

func TestTokenThatWasNeverInitialized(t *testing.T) {
	cfg := softhsmtest.Config(t)
	infos, err := token.List(t.Context(), cfg.Module, token.Quirks{})
	if err != nil {
		t.Fatalf("List() err = %v, want nil", err)
	}
	for _, i := range infos {
		if i.Initialized {
			continue
		}
		_, err := token.Open(t.Context(), token.Config{Module: cfg.Module, Slot: &i.Slot, PIN: cfg.PIN})
		if !errors.Is(err, token.ErrUninitialized) {
			t.Errorf("Open() err = %v, want ErrUninitialized", err)
		}
		return
	}
	t.Fatalf("List() = %v, want a blank token of SoftHSM among them", infos)
}

func TestModuleThatDoesNotLoad(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text.so")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a library ", 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, says string }{
		"missing":   {filepath.Join(dir, "missing.so"), "no such file"},
		"folder":    {dir, "not a file"},
		"text file": {text, "invalid ELF header"},
		"no path":   {"", "no path given"},
	} {
		_, err := token.Open(t.Context(), token.Config{Module: c.path})
		if !errors.Is(err, token.ErrModule) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("Open() of %s err = %v, want ErrModule that says %q", name, err, c.says)
		}
		if name == "missing" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open() of %s err = %v, want fs.ErrNotExist in it", name, err)
		}
	}
}

func TestLibraryThatIsNoPKCS11Module(t *testing.T) {
	found, _ := filepath.Glob("/lib/*/libm.so.6")
	if len(found) == 0 {
		t.Skip("no libm.so.6 here")
	}
	_, err := token.Open(t.Context(), token.Config{Module: found[0]})
	if !errors.Is(err, token.ErrModule) || !strings.Contains(err.Error(), "C_GetFunctionList") {
		t.Errorf("Open() err = %v, want ErrModule that says that C_GetFunctionList is missing", err)
	}
}

func TestModuleUnderTwoNamesIsOne(t *testing.T) {
	cfg := softhsmtest.Config(t)
	link := filepath.Join(t.TempDir(), "link.so")
	if err := os.Symlink(cfg.Module, link); err != nil {
		t.Fatal(err)
	}
	first, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer first.Close()
	cfg.Module = link
	second, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() through a link err = %v, want nil", err)
	}
	defer second.Close()
	if first.Info().Module != second.Info().Module {
		t.Errorf("Info().Module = %q and %q, want the same", first.Info().Module, second.Info().Module)
	}
}

func TestNoPINIsReadWhenThereIsNoToken(t *testing.T) {
	cfg := softhsmtest.Config(t)
	asked := false
	cfg.Serial, cfg.PIN = "0000", sourceFunc(func(context.Context) (token.PIN, error) { asked = true; return token.PIN{}, nil })
	if _, err := token.Open(t.Context(), cfg); !errors.Is(err, token.ErrNoToken) {
		t.Errorf("Open() err = %v, want ErrNoToken", err)
	}
	if asked {
		t.Error("Open() asked for a PIN")
	}
}

type sourceFunc func(context.Context) (token.PIN, error)

func (f sourceFunc) Read(ctx context.Context) (token.PIN, error) { return f(ctx) }

func TestPINThatDoesNotCome(t *testing.T) {
	cfg := softhsmtest.Config(t)
	for name, source := range map[string]token.PINSource{
		"no source": nil,
		"fault":     token.Env("NO_SUCH_VARIABLE"),
		"empty":     token.Static(token.NewPIN(nil)),
	} {
		cfg.PIN = source
		if _, err := token.Open(t.Context(), cfg); !errors.Is(err, token.ErrPINSource) {
			t.Errorf("Open() with %s err = %v, want ErrPINSource", name, err)
		}
	}
}

// lockedToken answers as a token does after too many wrong PINs. SoftHSM never locks.
type lockedToken struct{ loginCounter }

func (l *lockedToken) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	info, err := l.Cryptoki.GetTokenInfo(slot)
	info.Flags |= pkcs11.CKF_USER_PIN_LOCKED
	return info, err
}

func TestLockedPINIsNotTried(t *testing.T) {
	cfg := softhsmtest.Config(t)
	locked := &lockedToken{}
	token.Intercept(t, cfg.Module, func(real token.Cryptoki) token.Cryptoki { locked.Cryptoki = real; return locked })
	_, err := token.Open(t.Context(), cfg)
	if !errors.Is(err, token.ErrPIN) || !errors.Is(err, token.CKR_PIN_LOCKED) {
		t.Errorf("Open() err = %v, want ErrPIN with CKR_PIN_LOCKED", err)
	}
	if n := locked.logins.Load(); n != 0 {
		t.Errorf("%d logins, want none", n)
	}
}

// smallToken allows few sessions.
type smallToken struct {
	token.Cryptoki
	max uint
}

func (s smallToken) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	info, err := s.Cryptoki.GetTokenInfo(slot)
	info.MaxSessionCount, info.MaxRwSessionCount = s.max, 0
	return info, err
}

func TestSessionsStayBelowWhatTheTokenAllows(t *testing.T) {
	for _, c := range []struct {
		max       uint
		ask, want int
	}{{0, 0, token.DefaultSessions}, {0, 20, 20}, {16, 20, 14}, {16, 2, 2}, {3, 8, 1}, {2, 8, 0}} {
		cfg := softhsmtest.Config(t)
		t.Run("", func(t *testing.T) {
			token.Intercept(t, cfg.Module, func(real token.Cryptoki) token.Cryptoki { return smallToken{real, c.max} })
			cfg.Sessions = c.ask
			tok, err := token.Open(t.Context(), cfg)
			if c.want == 0 {
				if err == nil {
					t.Errorf("Open() on a token of %d sessions err = nil, want an error", c.max)
				}
				return
			}
			if err != nil {
				t.Fatalf("Open() err = %v, want nil", err)
			}
			defer tok.Close()
			if got := tok.Sessions(); got != c.want {
				t.Errorf("Sessions() = %d of %d allowed and %d asked for, want %d", got, c.max, c.ask, c.want)
			}
		})
	}
}

func TestCloseWaitsForOperations(t *testing.T) {
	tok := softhsmtest.Open(t)
	release, err := tok.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		tok.Close()
	}()
	select {
	case <-closed:
		t.Fatal("Close() came back while an operation ran")
	case <-time.After(50 * time.Millisecond):
	}
	if err := tok.Random(t.Context(), make([]byte, 8)); !errors.Is(err, token.ErrClosed) {
		t.Errorf("Random() while closing err = %v, want ErrClosed", err)
	}
	release()
	<-closed
}

func TestWaitingForASessionEndsWithTheContext(t *testing.T) {
	cfg := softhsmtest.Config(t)
	cfg.Sessions = 1
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	release, err := tok.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := tok.Random(ctx, make([]byte, 8)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Random() err = %v, want context.DeadlineExceeded", err)
	}
}

// SoftHSM crashes a process that exits while it is initialized: this runs a process that opens,
// signs and closes, and looks at how it ended.
func TestProcessEndsInOrderAfterClose(t *testing.T) {
	if os.Getenv("TOKEN_TEST_CHILD") == "1" {
		tok := softhsmtest.Open(t)
		k, err := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256})
		if err != nil {
			t.Fatalf("GenerateKeyPair() err = %v, want nil", err)
		}
		mustSign(t, k)
		return
	}
	if _, err := softhsm.FindModule(); err != nil {
		softhsmtest.Open(t) // skips or fails as the rest does
	}
	for range 3 {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProcessEndsInOrderAfterClose$")
		child.Env = append(os.Environ(), "TOKEN_TEST_CHILD=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Fatalf("child err = %v, want nil; it said:\n%s", err, out)
		}
	}
}
