package directories

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hsm-kp/hsm-kp/config"
)

func TestABearerTokenIsReadAnew(t *testing.T) {
	if bearer(config.Secret{}) != nil {
		t.Error("bearer() of no source, want none")
	}
	file := filepath.Join(t.TempDir(), "token")
	read := bearer(config.Secret{File: file})
	for _, want := range []string{"first", "second"} {
		if err := os.WriteFile(file, []byte(want+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := read(t.Context()); err != nil || got != want {
			t.Errorf("bearer() = %q, %v, want %q", got, err, want)
		}
	}
}
