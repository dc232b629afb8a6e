// Package vectors tests the code with the official MLS test vectors. They come from the module
// cache, in the module of mls-go.
package vectors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

// vectorModule is the module that carries the official vectors. This package needs it for nothing
// else; see peers for its code.
const vectorModule = "github.com/thomas-vilte/mls-go"

// vectorDir downloads the module into the module cache if it is missing: no code of it is imported
// here.
var vectorDir = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "mod", "download", "-json", vectorModule).Output()
	if err != nil {
		return "", err
	}
	var module struct{ Dir string }
	err = json.Unmarshal(out, &module)
	return filepath.Join(module.Dir, "testdata", "mls-interop-testvectors", "test-vectors"), err
})

// load reads one file of vectors.
func load[T any](t *testing.T, name string) []T {
	t.Helper()
	dir, err := vectorDir()
	if err != nil {
		t.Fatalf("go mod download %s: %v", vectorModule, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []T
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatalf("read %s: %v", name, err)
	}
	if len(vectors) == 0 {
		t.Fatalf("%s has no vectors", name)
	}
	return vectors
}

// octets are bytes that the vectors write in hexadecimal.
type octets []byte

func (o *octets) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	raw, err := hex.DecodeString(text)
	*o = raw
	return err
}

// served returns the suite of a vector, or false if it is unknown.
func served(id uint16) (*ciphersuite.Suite, bool) {
	s, ok := ciphersuite.Lookup(ciphersuite.ID(id))
	return s, ok
}

// tally counts the vectors that a test really examined and compares the number with the required
// minimum: a test of nothing is not a test.
type tally struct{ looked, passedOver int }

func (c *tally) want(t *testing.T, looked int) {
	t.Helper()
	if c.looked != looked {
		t.Errorf("looked at %d, want %d", c.looked, looked)
	}
	t.Logf("looked at %d, passed over %d of suites that are not served", c.looked, c.passedOver)
}

func wantEqual(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s = %x, want %x", what, got, want)
	}
}
