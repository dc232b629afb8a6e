package token_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/token"
)

func TestPINPrintsAsRedacted(t *testing.T) {
	pin := token.NewPIN([]byte("secret42"))
	type holder struct {
		PIN    token.PIN
		hidden token.PIN
	}
	var printed bytes.Buffer
	for _, v := range []any{pin, &pin, holder{pin, pin}, &holder{pin, pin}, []token.PIN{pin}, token.Static(pin), token.Config{PIN: token.Static(pin)}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&printed, verb+"\n", v)
		}
		if err := json.NewEncoder(&printed).Encode(v); err != nil {
			t.Errorf("Encode() err = %v, want nil", err)
		}
		slog.New(slog.NewTextHandler(&printed, nil)).Info("message", "value", v)
		slog.New(slog.NewJSONHandler(&printed, nil)).Info("message", "value", v)
	}
	for _, secret := range []string{"secret42", fmt.Sprintf("%x", "secret42"), fmt.Sprint([]byte("secret42")), "115, 101", "0x73, 0x65"} {
		if strings.Contains(printed.String(), secret) {
			t.Errorf("the PIN is printed as %q in:\n%s", secret, printed.String())
		}
	}
	if got := fmt.Sprintf("%v %+v %#v %s", pin, pin, pin, pin); got != "REDACTED REDACTED REDACTED REDACTED" {
		t.Errorf("printed %q, want REDACTED for every verb", got)
	}
	if got, err := json.Marshal(pin); err != nil || string(got) != `"REDACTED"` {
		t.Errorf("Marshal() = %s, %v, want \"REDACTED\"", got, err)
	}
	if got := pin.LogValue().String(); got != "REDACTED" {
		t.Errorf("LogValue() = %q, want REDACTED", got)
	}
}

func TestClearedPINIsOverwritten(t *testing.T) {
	text := []byte("secret42")
	pin := token.NewPIN(text)
	view := pin.Reveal()
	copied := pin
	pin.Clear()
	if !bytes.Equal(view, make([]byte, 8)) || len(pin.Reveal()) != 0 || len(copied.Reveal()) != 0 {
		t.Errorf("after Clear(): bytes %q, Len() = %d, want zeros and 0", view, len(pin.Reveal()))
	}
	if string(text) != "secret42" {
		t.Errorf("Clear() changed the bytes given to NewPIN() to %q", text)
	}
	var zero token.PIN
	zero.Clear()
	if len(zero.Reveal()) != 0 || zero.Reveal() != nil {
		t.Errorf("zero PIN has %d bytes, want 0", len(zero.Reveal()))
	}
}

func readPIN(t *testing.T, s token.PINSource, want string) {
	t.Helper()
	pin, err := s.Read(t.Context())
	if err != nil {
		t.Errorf("Read() err = %v, want nil", err)
		return
	}
	if got := string(pin.Reveal()); got != want {
		t.Errorf("Read() = %q, want %q", got, want)
	}
}

func pinFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // the umask may have taken bits away
		t.Fatal(err)
	}
	return path
}

func TestOneNewlineIsNotPartOfThePIN(t *testing.T) {
	for content, want := range map[string]string{
		"1234": "1234", "1234\n": "1234", "1234\r\n": "1234", "1234\n\n": "1234\n", " 12 34 ": " 12 34 ", "\n": "", "": "",
	} {
		readPIN(t, token.File(pinFile(t, content, 0o600)), want)
		t.Setenv("TOKEN_TEST_PIN", content)
		readPIN(t, token.Env("TOKEN_TEST_PIN"), want)
	}
}

func TestPINFileThatOthersMayUseIsRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o604, 0o640, 0o660, 0o620, 0o601} {
		path := pinFile(t, "1234\n", mode)
		_, err := token.File(path).Read(t.Context())
		refused, ok := errors.AsType[*token.FileModeError](err)
		if !ok || refused.Mode != mode || refused.Path != path {
			t.Errorf("Read() of a file of mode %#o err = %v, want a *FileModeError", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o400, 0o600} {
		readPIN(t, token.File(pinFile(t, "1234\n", mode)), "1234")
	}
}

func TestFilesThatHoldNoPIN(t *testing.T) {
	for name, source := range map[string]token.PINSource{
		"missing file": token.File(filepath.Join(t.TempDir(), "missing")),
		"folder":       token.File(t.TempDir()),
		"long file":    token.File(pinFile(t, strings.Repeat("1", 20000), 0o600)),
		"variable":     token.Env("NO_SUCH_VARIABLE"),
		"descriptor":   token.FD(-1),
	} {
		if pin, err := source.Read(t.Context()); err == nil {
			t.Errorf("Read() of a %s = %d bytes, want an error", name, len(pin.Reveal()))
		}
	}
}

func TestFileDescriptorIsReadOnceToItsEnd(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		fmt.Fprint(w, "12")
		fmt.Fprintln(w, "34")
		w.Close()
	}()
	if _, err := token.FD(int(r.Fd())).Read(t.Context()); err == nil {
		t.Error("Read() of a descriptor that this process opened err = nil, want one")
	}
	source := token.FD(dup(t, r))
	readPIN(t, source, "1234")
	if _, err := source.Read(t.Context()); err == nil {
		t.Error("Read() again err = nil, want an error")
	}
}

func TestReadingAFileDescriptorEndsWithTheContext(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := token.FD(dup(t, r)).Read(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Read() err = %v, want context.DeadlineExceeded", err)
	}
}

func TestSystemdCredential(t *testing.T) {
	path := pinFile(t, "1234\n", 0o440)
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(path))
	readPIN(t, token.Systemd("pin"), "1234")
	for _, name := range []string{"", ".", "..", "../pin", "a/b", "/etc/passwd", "other"} {
		if _, err := token.Systemd(name).Read(t.Context()); err == nil {
			t.Errorf("Read() of credential %q err = nil, want an error", name)
		}
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	if _, err := token.Systemd("pin").Read(t.Context()); err == nil {
		t.Error("Read() without CREDENTIALS_DIRECTORY err = nil, want an error")
	}
}

func TestStaticPINIsACopy(t *testing.T) {
	pin := token.NewPIN([]byte("1234"))
	source := token.Static(pin)
	first, err := source.Read(t.Context())
	if err != nil {
		t.Fatalf("Read() err = %v, want nil", err)
	}
	first.Clear()
	readPIN(t, source, "1234")
}
