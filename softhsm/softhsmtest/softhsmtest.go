// Package softhsmtest gives tests a SoftHSM token of their own.
//
// The tokens of one process share one SoftHSM folder, because SoftHSM has one
// configuration a process. So a test may open several tokens, and tests may run in
// parallel. The folder is removed with the last token. A test that makes a folder of its
// own with softhsm.Create cannot run at the same time as these.
package softhsmtest

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/token"
)

// Open makes a token and opens it. The token is closed and removed when the test ends.
// Without SoftHSM, Open skips the test, or fails it if CI=true.
func Open(tb testing.TB) *token.Token {
	tb.Helper()
	t, err := token.Open(tb.Context(), Config(tb))
	if err != nil {
		tb.Fatalf("open SoftHSM token: %v", err)
	}
	tb.Cleanup(func() {
		if err := t.Close(); err != nil {
			tb.Errorf("close SoftHSM token: %v", err)
		}
	})
	return t
}

// Config makes a token and returns the config with which token.Open opens it, once or
// several times. The test closes what it opened before it ends. Without SoftHSM, Config
// skips or fails the test as Open does.
func Config(tb testing.TB) token.Config {
	tb.Helper()
	module, err := softhsm.FindModule()
	if err != nil {
		missing(tb, err)
	}
	cfg, err := shared.newToken(tb.Context(), module)
	if err != nil {
		tb.Fatalf("make SoftHSM token: %v", err)
	}
	tb.Cleanup(func() {
		if err := shared.release(); err != nil {
			tb.Errorf("remove SoftHSM folder: %v", err)
		}
	})
	return cfg
}

// missing skips a test that cannot run, and fails it if CI=true.
func missing(tb testing.TB, err error) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatal(err)
	}
	tb.Skip(err)
}

var shared folder

// folder is the SoftHSM folder of this process while a test uses it.
type folder struct {
	mu      sync.Mutex
	users   int
	dir     string
	restore func()
}

// newToken makes a token in the folder, and the folder if there is none.
func (f *folder) newToken(ctx context.Context, module string) (token.Config, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users == 0 {
		return f.create(ctx, module)
	}
	pin, soPIN := token.NewPIN([]byte(rand.Text())), token.NewPIN([]byte(rand.Text()))
	info, err := token.InitToken(ctx, module, label(), soPIN, pin)
	if err != nil {
		return token.Config{}, err
	}
	f.users++
	return token.Config{Module: module, Serial: info.Serial, PIN: token.Static(pin)}, nil
}

// create makes the folder with its first token and sets SoftHSM's environment.
func (f *folder) create(ctx context.Context, module string) (token.Config, error) {
	dir, err := os.MkdirTemp("", "softhsmtest-")
	if err != nil {
		return token.Config{}, err
	}
	i, err := softhsm.Create(ctx, dir, softhsm.Options{Module: module, Label: label()})
	if err != nil {
		return token.Config{}, errors.Join(err, os.RemoveAll(dir))
	}
	f.restore = keepEnv("SOFTHSM2_CONF")
	f.dir, f.users = dir, 1
	return i.Config(), i.Setenv()
}

// release gives up a token. With the last one it removes the folder.
func (f *folder) release() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users > 0 {
		return nil
	}
	f.restore()
	return os.RemoveAll(f.dir)
}

// label is a token label that no other test has.
func label() string { return "test " + rand.Text()[:10] }

// keepEnv returns a function that restores a variable.
func keepEnv(name string) (restore func()) {
	before, was := os.LookupEnv(name)
	return func() {
		if was {
			os.Setenv(name, before)
		} else {
			os.Unsetenv(name)
		}
	}
}
