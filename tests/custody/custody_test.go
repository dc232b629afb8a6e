// Package custody looks for private keys in places where none may be: the store's files, the
// token's folder, the output and the logs.
package custody

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/needle"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

func TestNoPrivateByteIsOnDiskOrInLogs(t *testing.T) {
	i := program.Install(t)
	out := filepath.Join(t.TempDir(), "out")
	var needles []needle.Needle
	for _, suite := range []string{"1", "2", "3", "4", "5", "6", "7"} {
		name := "suite" + suite
		i.Run("identity", "create", name, "--suite", suite)
		for _, ref := range i.Generate(name, "10", "--out", out) {
			u := i.Unwrap(ref)
			needles = append(needles, needle.OfHex(t, "init key of "+ref, u.InitKey)...)
			needles = append(needles, needle.OfHex(t, "encryption key of "+ref, u.EncryptionKey)...)
		}
	}
	if len(needles) != 7*10*2*10 {
		t.Fatalf("%d needles, want 1400", len(needles))
	}

	pin, err := os.ReadFile(filepath.Join(i.Dir, "pin"))
	if err != nil {
		t.Fatal(err)
	}
	pin = bytes.TrimSpace(pin)

	needle.Search(t, "the log", i.Log.Bytes(), needles)
	if bytes.Contains(i.Log.Bytes(), pin) {
		t.Error("the log has the PIN")
	}
	if files := searchFolders(t, needles, pin, i.Dir, out); files < 75 {
		t.Errorf("searched %d files, want the store, the token and 70 key packages", files)
	}
	i.CheckRest(t)
}

// searchFolders searches all files in folders and returns their number.
func searchFolders(t *testing.T, needles []needle.Needle, pin []byte, folders ...string) (files int) {
	t.Helper()
	for _, dir := range folders {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files++
			needle.Search(t, path, data, needles)
			if filepath.Base(path) != "pin" && bytes.Contains(data, pin) {
				t.Errorf("%s has the PIN", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// The search finds what it looks for: otherwise, the test above could pass because of a faulty
// search.
func TestTheSearchFindsAKey(t *testing.T) {
	i := program.Install(t)
	i.Run("identity", "create", "alice")
	u := i.Unwrap(i.Generate("alice", "1")[0])
	raw, err := hex.DecodeString(u.InitKey)
	if err != nil {
		t.Fatal(err)
	}
	hays := [][]byte{raw, []byte(u.InitKey), []byte(strings.ToUpper(u.InitKey))}
	for shift := range 3 {
		longer := append(make([]byte, shift), raw...)
		hays = append(hays, []byte(base64.StdEncoding.EncodeToString(longer)), []byte(base64.URLEncoding.EncodeToString(longer)))
	}
	for _, hay := range hays {
		if !needle.Found(append([]byte("..."), hay...), needle.OfHex(t, "init key", u.InitKey)) {
			t.Errorf("no needle is in %q", hay)
		}
	}
}
