// Package custody looks for private keys where none may be: in the store's
// files, the token's folder, the output and the logs.
package custody

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// needle is a secret in one of the forms in which it might have got out.
type needle struct {
	what  string
	bytes []byte
}

func needlesOf(t *testing.T, what, hexKey string) []needle {
	t.Helper()
	raw, err := hex.DecodeString(hexKey)
	if err != nil || len(raw) < 32 {
		t.Fatalf("%s is %q, not a private key", what, hexKey)
	}
	std := base64.RawStdEncoding.EncodeToString(raw)
	// The middle of the base64 text stands for all alignments of its end.
	return []needle{{what + " raw", raw[:16]}, {what + " raw, second half", raw[16:32]},
		{what + " in hexadecimal", []byte(hexKey[:32])}, {what + " in base64", []byte(std[:20])}}
}

func TestNoPrivateByteIsOnDiskOrInLogs(t *testing.T) {
	i := program.Install(t)
	out := filepath.Join(t.TempDir(), "out")
	var needles []needle
	for _, suite := range []string{"1", "2", "3", "4", "5", "6", "7"} {
		name := "suite" + suite
		i.Run("identity", "create", name, "--suite", suite)
		for _, ref := range i.Generate(name, "10", "--out", out) {
			u := i.Unwrap(ref)
			needles = append(needles, needlesOf(t, "init key of "+ref, u.InitKey)...)
			needles = append(needles, needlesOf(t, "encryption key of "+ref, u.EncryptionKey)...)
		}
	}
	if len(needles) != 7*10*2*4 {
		t.Fatalf("%d needles, want 560", len(needles))
	}

	pin, err := os.ReadFile(filepath.Join(i.Dir, "pin"))
	if err != nil {
		t.Fatal(err)
	}
	pin = bytes.TrimSpace(pin)

	log := i.Log.Bytes()
	search(t, "the log", log, needles)
	if bytes.Contains(log, pin) {
		t.Error("the log has the PIN")
	}
	files := 0
	for _, dir := range []string{i.Dir, out} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files++
			search(t, path, data, needles)
			if filepath.Base(path) != "pin" && bytes.Contains(data, pin) {
				t.Errorf("%s has the PIN", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 75 {
		t.Errorf("searched %d files, want the store, the token and 70 key packages", files)
	}
}

func search(t *testing.T, where string, data []byte, needles []needle) {
	t.Helper()
	for _, n := range needles {
		if bytes.Contains(data, n.bytes) {
			t.Errorf("%s has the %s", where, n.what)
		}
	}
}

// The search finds what it looks for: without this, the test above could pass
// by looking wrongly.
func TestTheSearchFindsAKey(t *testing.T) {
	i := program.Install(t)
	i.Run("identity", "create", "alice")
	u := i.Unwrap(i.Generate("alice", "1")[0])
	raw, err := hex.DecodeString(u.InitKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, hay := range [][]byte{raw, []byte(u.InitKey), []byte(base64.StdEncoding.EncodeToString(raw))} {
		found := false
		for _, n := range needlesOf(t, "init key", u.InitKey) {
			found = found || bytes.Contains(append([]byte("..."), hay...), n.bytes)
		}
		if !found {
			t.Errorf("no needle is in %q", hay)
		}
	}
}
