package vendortest_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
)

// tokens is how many tokens the server shows to its client.
func tokens(t *testing.T, s *vendortest.Server) int {
	t.Helper()
	infos, err := token.List(t.Context(), s.Module, token.Quirks{})
	if err != nil {
		t.Fatalf("List() err = %v, want nil", err)
	}
	return len(infos)
}

func TestTheServerShowsOneTokenAndStopsAndStarts(t *testing.T) {
	real := softhsmtest.Config(t)
	softhsmtest.Config(t) // another one, which is not shown
	s := vendortest.P11Kit(t, real)
	if n := tokens(t, s); n != 1 {
		t.Errorf("%d tokens behind the server, want 1", n)
	}
	s.Stop()
	if n := tokens(t, s); n != 0 {
		t.Errorf("%d tokens without the server, want 0", n)
	}
	s.Start()
	if n := tokens(t, s); n != 1 {
		t.Errorf("%d tokens behind the server that was started again, want 1", n)
	}
}

func TestNothingOfTheServerIsLeft(t *testing.T) {
	var address string
	t.Run("server", func(t *testing.T) {
		address = vendortest.P11Kit(t, softhsmtest.Config(t)).Address
	})
	path, ok := strings.CutPrefix(address, "unix:path=")
	if !ok {
		t.SkipNow() // as the test in it did
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Stat(%s) err = %v, want %v", path, err, fs.ErrNotExist)
	}
	if got, set := os.LookupEnv("P11_KIT_SERVER_ADDRESS"); set {
		t.Errorf("P11_KIT_SERVER_ADDRESS = %q, want none", got)
	}
}
