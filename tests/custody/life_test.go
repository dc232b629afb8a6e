package custody

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/needle"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// witness knows the secrets of an installation, and searches for them.
type witness struct {
	*program.Installation
	t       *testing.T
	custody string
	suite   *ciphersuite.Suite
	out     string // the folder for key packages
	safe    string // the folder for the test's own files with secrets
	pin     []byte
	printed bytes.Buffer // output of all commands that must not print a secret
	needles []needle.Needle
	made    map[string]*keypackage.KeyPackage // the key packages for which a Welcome was made
}

// byRSA is custody `wrapped`, sealed to an RSA key of the token.
const byRSA = "wrapped by RSA-OAEP"

func newWitness(t *testing.T, custody string) *witness {
	t.Helper()
	suite, ok := ciphersuite.Lookup(2)
	if !ok {
		t.Fatal("Lookup(2) found nothing")
	}
	w := &witness{Installation: program.Install(t), t: t, custody: custody, suite: suite, out: filepath.Join(t.TempDir(), "out"), safe: t.TempDir(), made: make(map[string]*keypackage.KeyPackage)}
	switch custody {
	case "token":
		w.Edit("custody: wrapped", "custody: token")
		w.do("init") // the wrapping key for it
	case byRSA:
		w.do("wrap-key", "rotate", "--mechanism", "rsa-oaep")
	}
	pin, err := os.ReadFile(filepath.Join(w.Dir, "pin"))
	if err != nil {
		t.Fatal(err)
	}
	w.pin = bytes.TrimSpace(pin)
	w.holdWAL()
	return w
}

// holdWAL keeps the store open, so that no process folds the write-ahead log into the file and
// removes it.
func (w *witness) holdWAL() {
	w.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(w.Dir, "hsm-kp.db")+"?mode=rw")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { db.Close() })
	conn, err := db.Conn(context.Background())
	if err == nil {
		err = conn.QueryRowContext(context.Background(), "SELECT count(*) FROM key_packages").Scan(new(int))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// do runs a command that must not print a secret, and returns what it printed.
func (w *witness) do(args ...string) []byte {
	w.t.Helper()
	out := w.Run(args...)
	w.printed.Write(out)
	return out
}

// refused runs a command that must fail and say why.
func (w *witness) refused(why string, args ...string) {
	w.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := w.Command(args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), why) || stdout.Len() > 0 {
		w.t.Errorf("hsm-kp %s: %v, printed %q and %q, want nothing and %q", strings.Join(args, " "), err, stdout.Bytes(), stderr.Bytes(), why)
	}
	w.Log.Write(stderr.Bytes())
}

// learn remembers a secret.
func (w *witness) learn(what string, secret []byte) {
	w.t.Helper()
	w.needles = append(w.needles, needle.Of(w.t, what, secret)...)
}

func (w *witness) learnHex(what, secret string) {
	w.t.Helper()
	w.needles = append(w.needles, needle.OfHex(w.t, what, secret)...)
}

// learnKeys remembers the private keys of a key package, or checks that none are shown.
func (w *witness) learnKeys(refs ...string) {
	w.t.Helper()
	for _, ref := range refs {
		if w.custody == "token" {
			w.refused("nothing to show", "unwrap", ref)
			continue
		}
		u := w.Unwrap(ref)
		w.learnHex("init key of "+ref, u.InitKey)
		w.learnHex("encryption key of "+ref, u.EncryptionKey)
	}
}

// look searches everything, and examines the objects in the token.
func (w *witness) look(after string) {
	w.t.Helper()
	for _, name := range []string{"hsm-kp.db-wal", "hsm-kp.db-shm"} {
		if info, err := os.Stat(filepath.Join(w.Dir, name)); err != nil || info.Size() == 0 {
			w.t.Errorf("after %s: %s is not there to be searched (%v)", after, name, err)
		}
	}
	needle.Search(w.t, "the log", w.Log.Bytes(), w.needles)
	needle.Search(w.t, "what was printed", w.printed.Bytes(), w.needles)
	// Another process makes the copy: closing a file drops the process's locks on it, and this
	// process has the store open.
	copied := filepath.Join(w.t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-a", w.Dir, copied).CombinedOutput(); err != nil {
		w.t.Fatalf("copy: %v: %s", err, out)
	}
	searchFolders(w.t, w.needles, w.pin, copied, w.out)
	w.CheckRest(w.t)
	if w.t.Failed() {
		w.t.Fatalf("after %s", after)
	}
}

func random(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func must(t *testing.T, b []byte, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// welcome makes the Welcome of a new group with a path secret and a pre-shared key, both
// random, and returns the arguments that open it.
func (w *witness) welcome(ref string) []string {
	w.t.Helper()
	kp, err := keypackage.Parse(w.Public(ref))
	if err != nil {
		w.t.Fatal(err)
	}
	w.made[ref] = kp
	g := welcometest.NewGroup(w.t, w.suite)
	path, psk := random(w.t, w.suite.Nh), random(w.t, 32)
	g.Path = append([]byte{1}, wire.AppendVector(nil, path)...)
	// PreSharedKeyID and psk_secret: RFC 9420, Section 8.4.
	g.PSKs = wire.AppendVector([]byte{1}, []byte("token"))
	g.PSKs = wire.AppendVector(g.PSKs, random(w.t, w.suite.Nh))
	label := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(bytes.Clone(g.PSKs), 0), 1)
	extracted, err := w.suite.Extract(make([]byte, w.suite.Nh), psk)
	input, err2 := w.suite.ExpandWithLabel(must(w.t, extracted, err), "derived psk", label, w.suite.Nh)
	secret, err := w.suite.Extract(must(w.t, input, err2), make([]byte, w.suite.Nh))
	g.PSKSecret = must(w.t, secret, err)

	member, err := w.suite.Extract(g.Joiner, g.PSKSecret)
	welcomeSecret, err2 := w.suite.DeriveSecret(must(w.t, member, err), "welcome")
	epoch, err := w.suite.ExpandWithLabel(member, "epoch", g.Info.GroupContext.Bytes(), w.suite.Nh)
	for what, s := range map[string][]byte{
		"joiner secret": g.Joiner, "path secret": path, "pre-shared key": psk, "psk_secret": g.PSKSecret,
		"welcome_secret": must(w.t, welcomeSecret, err2), "epoch_secret": must(w.t, epoch, err),
	} {
		w.learn(what+" of the Welcome for "+ref, s)
	}
	pskFile, file := filepath.Join(w.safe, ref+".psk"), filepath.Join(w.safe, ref)
	for name, data := range map[string][]byte{pskFile: psk, file: g.Welcome(kp).Message()} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return []string{"welcome", "open", "--json", "--psk", hex.EncodeToString([]byte("token")) + "=" + pskFile, file}
}

// openWelcome opens a Welcome and remembers what it prints.
func (w *witness) openWelcome(args ...string) {
	w.t.Helper()
	var opened struct {
		Joiner        string `json:"joiner_secret"`
		Path          string `json:"path_secret"`
		EncryptionKey string `json:"encryption_private_key"`
	}
	if err := json.Unmarshal(w.Run(args...), &opened); err != nil {
		w.t.Fatal(err)
	}
	w.learnHex("joiner secret, as printed", opened.Joiner)
	w.learnHex("path secret, as printed", opened.Path)
	if opened.EncryptionKey != "" {
		w.learnHex("leaf key, as printed", opened.EncryptionKey)
	}
}

// decrypt lets hsm-kp decrypt a path secret with the key of a leaf.
func (w *witness) decrypt(ref string) {
	w.t.Helper()
	secret, groupContext := random(w.t, w.suite.Nh), random(w.t, 100)
	w.learn("path secret that was decrypted", secret)
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(w.suite, w.made[ref].LeafNode.EncryptionKey, "UpdatePathNode", groupContext, secret)
	if err != nil {
		w.t.Fatal(err)
	}
	contextFile, file := filepath.Join(w.safe, "context"), filepath.Join(w.safe, "ciphertext")
	for name, data := range map[string][]byte{contextFile: groupContext, file: wire.AppendVector(wire.AppendVector(nil, kemOutput), ciphertext)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	if out := w.Run("decrypt", ref, "--context", contextFile, file); !strings.Contains(string(out), hex.EncodeToString(secret)) {
		w.t.Errorf("decrypt printed %q, want %x", out, secret)
	}
}

// A key package lives its whole life, with its wrapping key and its identity. After each part, no
// secret is anywhere: not in the store, its write-ahead log, the token's folder, the files of key
// packages, the output, and the log.
func TestNoSecretIsAnywhereAllLifeLong(t *testing.T) {
	for _, custody := range []string{"wrapped", byRSA, "token"} {
		t.Run(custody, func(t *testing.T) {
			w := newWitness(t, custody)
			w.do("identity", "create", "alice", "--suite", "2")
			refs := w.Generate("alice", "4", "--out", w.out)
			more := w.Generate("alice", "4")
			refs = append(refs, more...)
			w.learnKeys(refs...)
			w.look("generate")

			w.do("export", "--out", w.out, more[0])
			w.do("claim", "-i", "alice", "-n", "2", "--json")
			for _, args := range [][]string{{"list"}, {"show", refs[0]}, {"inspect", filepath.Join(w.out, refs[0]+".mls")}} {
				w.do(args...)
			}
			w.look("export and claim")

			w.openWelcome(w.welcome(refs[0])...)
			w.look("welcome open")
			w.do("welcome", "confirm", refs[0])
			w.look("welcome confirm")

			w.Edit("allow: true", "allow: false") // the leaf's key is kept
			w.openWelcome(append(w.welcome(refs[1]), "--consume")...)
			w.decrypt(refs[1])
			w.refused("unwrap.allow is false", "unwrap", refs[2])
			w.Edit("allow: false", "allow: true")
			w.look("welcome open --consume, and decrypt")
			w.openWelcome(w.welcome(refs[2])...)
			w.do("welcome", "release", refs[2])

			w.rotateAndDestroy()
			w.look("rotation of the wrapping key")
			w.decrypt(refs[1])
			w.do("welcome", "confirm", "--leaf", refs[1])
			w.learnKeys(refs[2:]...)
			w.look("welcome confirm --leaf")

			w.do("identity", "rotate", "alice", "--out", w.out)
			for ref := range strings.FieldsSeq(string(w.do("list", "--refs", "--state", "published"))) {
				w.learnKeys(ref)
			}
			w.do("identity", "destroy-key", "alice", "--version", "1", "--force")
			w.look("rotation of the identity")
			w.do("wrap-key", "rotate")
			w.do("audit", "checkpoint")
			w.do("audit", "show")
			w.do("audit", "show", "--json")
			w.do("audit", "verify")
			w.do("sweep", "--unfinished", "0s")
			w.look("audit")
			t.Logf("searched for %d forms of secrets", len(w.needles))
		})
	}
}

// rotateAndDestroy moves everything to a new wrapping key and destroys the previous one.
func (w *witness) rotateAndDestroy() {
	w.t.Helper()
	purpose := map[string]string{"wrapped": "seal", byRSA: "seal", "token": "wrap"}[w.custody]
	var old string
	for line := range bytes.Lines(w.do("wrap-key", "list", "--json")) {
		var k struct {
			ID      string `json:"wrapping_key_id"`
			Purpose string `json:"purpose"`
			State   string `json:"state"`
		}
		if err := json.Unmarshal(line, &k); err != nil {
			w.t.Fatal(err)
		}
		if k.Purpose == purpose && k.State == "current" {
			old = k.ID
		}
	}
	w.do("wrap-key", "rotate", "--purpose", purpose)
	w.do("wrap-key", "rewrap")
	w.do("wrap-key", "destroy", old)
}

// After the wrapping key is destroyed, an earlier copy of the store opens nothing with the same
// token, and the current store opens everything.
func TestAnOldCopyOpensNothingOnceItsKeyIsDestroyed(t *testing.T) {
	for _, custody := range []string{"wrapped", byRSA, "token"} {
		t.Run(custody, func(t *testing.T) {
			w := newWitness(t, custody)
			w.do("identity", "create", "alice", "--suite", "2")
			refs := w.Generate("alice", "5", "--out", w.out)
			last := w.Generate("alice", "1", "--last-resort", "--out", w.out)
			refs = append(refs, last...)
			welcomes := make(map[string][]string)
			for _, ref := range refs {
				welcomes[ref] = w.welcome(ref)
			}
			// This includes a reserved one, and one whose leaf key is kept.
			w.openWelcome(welcomes[refs[0]]...)
			w.Edit("allow: true", "allow: false")
			w.openWelcome(append(welcomes[refs[1]], "--consume")...)
			w.Edit("allow: false", "allow: true")

			copied := filepath.Join(t.TempDir(), "old")
			w.CopyTo(t, copied)
			old := "sqlite:" + filepath.Join(copied, "hsm-kp.db")
			if info, err := os.Stat(filepath.Join(copied, "hsm-kp.db-wal")); err != nil || info.Size() == 0 {
				t.Fatalf("the copy has no write-ahead log (%v)", err)
			}
			if custody == "wrapped" { // the copy is good as long as the key exists
				w.Run("--store", old, "unwrap", refs[2])
			}
			w.rotateAndDestroy()
			for _, ref := range refs {
				why := "no such key in the token"
				if ref == refs[1] {
					why = "consumed by a Welcome"
				}
				w.refused(why, append([]string{"--store", old}, welcomes[ref]...)...)
				w.refused(why, "--store", old, "unwrap", ref)
			}
			contextFile, file := filepath.Join(w.safe, "context"), filepath.Join(w.safe, "ciphertext")
			w.decrypt(refs[1])
			w.refused("no such key in the token", "--store", old, "decrypt", refs[1], "--context", contextFile, file)
			for _, ref := range refs {
				if ref == refs[1] {
					continue
				}
				w.openWelcome(welcomes[ref]...)
				w.learnKeys(ref)
			}
			w.look("the destruction of the key")
		})
	}
}
