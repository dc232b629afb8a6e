// Package crash kills hsm-kp while it generates, again and again, and checks
// the state that is left.
package crash

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/mattn/go-sqlite3"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// ledger compares what a test knows about an installation with what the
// installation has.
type ledger struct {
	t       *testing.T
	i       *program.Installation
	out     string          // where generate writes
	printed map[string]bool // refs that were printed, in all rounds
	files   map[string]bool // refs of files that were found valid
	token   []byte          // SoftHSM's complete token.object
	begin   time.Duration   // from the start of a run to its first file, as last measured
}

func newLedger(t *testing.T) *ledger {
	t.Helper()
	l := &ledger{t: t, i: program.Install(t), out: filepath.Join(t.TempDir(), "out"), printed: make(map[string]bool), files: make(map[string]bool)}
	l.i.Edit("batch: 500", "batch: 10") // so that a round has many commits
	l.i.Run("identity", "create", "alice", "--suite", "1")
	start := time.Now()
	l.i.Run("identity", "create", "bob", "--suite", "2")
	l.begin = time.Since(start) // including the login
	var err error
	if l.token, err = os.ReadFile(tokenObject(t, l.i)); err != nil {
		t.Fatal(err)
	}
	return l
}

// generate starts a run that would take minutes, waits, sends it a signal, and
// returns the refs that it had printed by its end.
func (l *ledger) generate(name string, wait func(), signal os.Signal, args ...string) (refs []string, state *os.ProcessState) {
	l.t.Helper()
	cmd := l.i.Command(append([]string{"generate", "--identity", name, "--count", "100000", "--json"}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	wait()
	if err := cmd.Process.Signal(signal); err != nil {
		l.t.Fatalf("signal: %v\n%s", err, stderr.Bytes())
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) {
		l.t.Fatalf("generate err = %v, want that it was stopped\n%s", err, stderr.Bytes())
	}
	for line := range bytes.Lines(stdout.Bytes()) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // cut off by the signal: not a complete ref
		}
		var made program.Unwrapped
		if err := json.Unmarshal(line, &made); err != nil {
			l.t.Fatalf("generate --json printed %q: %v", line, err)
		}
		if l.printed[made.Ref] {
			l.t.Errorf("%s was printed twice", made.Ref)
		}
		l.printed[made.Ref] = true
		refs = append(refs, made.Ref)
	}
	return refs, cmd.ProcessState
}

// sleep waits for a random time, up to a quarter of a second after the first file is due.
func (l *ledger) sleep() { time.Sleep(rand.N(l.begin + 250*time.Millisecond)) }

// sleepFromFirstFile waits for the first file of a run, then for a random time
// up to most: on a busy machine, a run may take long to begin.
func (l *ledger) sleepFromFirstFile(most time.Duration) {
	l.t.Helper()
	before, start := len(l.names()), time.Now()
	for len(l.names()) <= before {
		if time.Since(start) > program.Patience {
			l.t.Fatalf("no file after %v", program.Patience)
		}
		time.Sleep(time.Millisecond)
	}
	l.begin = time.Since(start)
	time.Sleep(rand.N(most))
}

// list returns the refs in the store.
func (l *ledger) list(args ...string) map[string]bool {
	l.t.Helper()
	refs := make(map[string]bool)
	for ref := range strings.Lines(string(l.i.Run(append([]string{"list", "--refs"}, args...)...))) {
		refs[strings.TrimSpace(ref)] = true
	}
	return refs
}

// check compares everything that was ever printed or written with the store, and
// returns the refs in it.
func (l *ledger) check() map[string]bool {
	l.t.Helper()
	stored, published, pending := l.list(), l.list("--state", "published"), l.list("--state", "pending")
	for ref := range l.printed {
		if !stored[ref] {
			l.t.Errorf("%s was printed and is not in the store", ref)
		}
	}
	var fresh []string
	for _, name := range l.names() {
		ref, ok := strings.CutSuffix(name, ".mls")
		if !ok {
			// A kill may leave a temporary file. Its name shows that it is not a
			// key package.
			if !strings.HasPrefix(name, ".hsm-kp-") {
				l.t.Errorf("%s is in the folder, want key packages", name)
			}
			continue
		}
		if !published[ref] && !pending[ref] {
			l.t.Errorf("%s is in a file and neither published nor pending in the store", ref)
		}
		if !l.files[ref] {
			l.files[ref] = true
			fresh = append(fresh, filepath.Join(l.out, name))
		}
	}
	for ref := range published {
		if !l.files[ref] {
			l.t.Errorf("%s is published in the store and in no file", ref)
		}
	}
	if len(fresh) > 0 {
		l.i.Run(append([]string{"verify", "--quiet"}, fresh...)...)
	}
	return stored
}

// names returns the names in the folder, which does not exist if a run was killed
// early.
func (l *ledger) names() []string {
	l.t.Helper()
	entries, err := os.ReadDir(l.out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// keyPackages reads every file in the folder: names by KeyPackageRef.
func (l *ledger) keyPackages() map[string]*keypackage.KeyPackage {
	l.t.Helper()
	all := make(map[string]*keypackage.KeyPackage)
	for _, name := range l.names() {
		ref, ok := strings.CutSuffix(name, ".mls")
		if !ok {
			continue
		}
		data, err := os.ReadFile(filepath.Join(l.out, name))
		if err != nil {
			l.t.Fatal(err)
		}
		message, err := keypackage.ParseMessage(data)
		if err != nil || message.KeyPackage == nil {
			l.t.Fatalf("ParseMessage(%s) err = %v, want a key package", name, err)
		}
		if got, err := message.KeyPackage.Ref(); err != nil || got.String() != ref {
			l.t.Errorf("%s holds the key package %v (%v)", name, got, err)
		}
		all[ref] = message.KeyPackage
	}
	return all
}

// checkPrivateKeys unwraps a key package and compares its private keys with the
// public ones.
func (l *ledger) checkPrivateKeys(ref string, kp *keypackage.KeyPackage) {
	l.t.Helper()
	suite, ok := ciphersuite.Lookup(kp.CipherSuite)
	if !ok {
		l.t.Fatalf("%s is of the unknown suite %v", ref, kp.CipherSuite)
	}
	u := l.i.Unwrap(ref)
	for what, pair := range map[string]struct {
		private string
		public  []byte
	}{"init": {u.InitKey, kp.InitKey}, "encryption": {u.EncryptionKey, kp.LeafNode.EncryptionKey}} {
		raw, err := hex.DecodeString(pair.private)
		if err != nil {
			l.t.Fatal(err)
		}
		key, err := hpke.ParsePrivateKey(suite, raw)
		if err != nil {
			l.t.Errorf("the %s private key of %s: %v", what, ref, err)
			continue
		}
		if !bytes.Equal(key.PublicKey(), pair.public) {
			l.t.Errorf("the %s private key of %s is of another public key than the key package has", what, ref)
		}
	}
}

// checkFile lets SQLite check its file, and counts the uses of the wrapping key:
// exactly one for each key package, because every nonce must be counted.
func (l *ledger) checkFile(keyPackages int) {
	l.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(l.i.Dir, "hsm-kp.db")+"?mode=rw")
	if err != nil {
		l.t.Fatal(err)
	}
	defer db.Close()
	var verdict string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		l.t.Errorf("integrity_check = %q, %v, want ok", verdict, err)
	}
	var orphan any
	if err := db.QueryRow("PRAGMA foreign_key_check").Scan(&orphan); !errors.Is(err, sql.ErrNoRows) {
		l.t.Errorf("foreign_key_check found %v (%v), want nothing", orphan, err)
	}
	var uses int
	if err := db.QueryRow("SELECT sum(uses) FROM wrapping_keys").Scan(&uses); err != nil || uses != keyPackages {
		l.t.Errorf("uses = %d, %v, want %d", uses, err, keyPackages)
	}
}

func TestAKilledRunLosesAndRepeatsNothing(t *testing.T) {
	rounds := 36
	if testing.Short() {
		rounds = 6
	}
	l := newLedger(t)
	var stored map[string]bool
	unseen := 0 // rounds that stored refs and were killed before they printed them
	round := 0
	for ; round < rounds || len(l.printed) < rounds; round++ {
		if round == 3*rounds {
			t.Fatalf("%d key packages were printed in %d rounds, want many: the kills come too early to tell anything", len(l.printed), round)
		}
		name := []string{"alice", "bob"}[round%2]
		wait := l.sleep
		if round%3 == 0 {
			wait = func() { l.sleepFromFirstFile(300 * time.Millisecond) }
		}
		before, printed := len(stored), len(l.printed)
		refs, state := l.generate(name, wait, os.Kill, "--out", l.out)
		mendToken(t, l.i, l.token)
		if state.Exited() {
			t.Fatalf("%v, want that it was killed", state)
		}
		stored = l.check()
		if len(stored)-before > len(l.printed)-printed {
			unseen++
		}
		if t.Failed() {
			t.Fatalf("round %d, killed with %d printed", round, len(refs))
		}
	}
	t.Logf("%d stored, %d printed, %d files after %d kills; %d came between commit and print",
		len(stored), len(l.printed), len(l.files), round, unseen)

	// What was committed and perhaps not written is known, and is written after
	// all.
	l.i.Run("export", "--pending", "--out", l.out)
	l.check()
	if pending := l.list("--state", "pending"); len(pending) != 0 {
		t.Errorf("%d key packages are pending after export --pending, want none", len(pending))
	}

	all := l.keyPackages()
	if len(all) != len(stored) {
		t.Errorf("%d key packages in files and %d in the store, want the same", len(all), len(stored))
	}
	owner := make(map[string]string)
	for ref, kp := range all {
		for _, key := range [][]byte{kp.InitKey, kp.LeafNode.EncryptionKey} {
			if other, twice := owner[string(key)]; twice {
				t.Errorf("%s and %s have the key %x", ref, other, key)
			}
			owner[string(key)] = ref
		}
	}
	// The refs are hashes: their order is chance, and the same whenever a
	// failure is looked into.
	sample := slices.Sorted(maps.Keys(all))
	for _, ref := range sample[:min(30, len(sample))] {
		l.checkPrivateKeys(ref, all[ref])
	}
	l.checkFile(len(stored))
}

// An interrupted run ends in order: everything that it stored was printed and is
// in a file, and it reports that.
func TestAnInterruptedRunLeavesNothingHalf(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	l := newLedger(t)
	stored := 0
	for round := range rounds {
		name := []string{"alice", "bob"}[round%2]
		signal := []os.Signal{os.Interrupt, syscall.SIGTERM}[round/2%2]
		wait := func() { l.sleepFromFirstFile(200 * time.Millisecond) }
		refs, state := l.generate(name, wait, signal, "--out", l.out)
		if state.ExitCode() != 1 {
			t.Errorf("exit status %v after %v, want 1", state, signal)
		}
		now := l.check()
		if len(now)-stored != len(refs) || len(now) != len(l.files) {
			t.Errorf("%d more are stored, %d were printed; %d stored in all and %d files: want the same after %v",
				len(now)-stored, len(refs), len(now), len(l.files), signal)
		}
		stored = len(now)
		for _, name := range l.names() {
			if !strings.HasSuffix(name, ".mls") {
				t.Errorf("%s was left behind after %v", name, signal)
			}
		}
	}
	if stored < rounds {
		t.Errorf("%d key packages were stored, want many: the signals come too early to tell anything", stored)
	}
	l.checkFile(stored)
}

// Without a folder, the key packages that were made and printed stay available.
func TestAKilledRunWithoutAFolder(t *testing.T) {
	l := newLedger(t)
	for range 6 {
		l.generate("alice", l.sleep, os.Kill)
		mendToken(t, l.i, l.token)
		available := l.list("--state", "available")
		for ref := range l.printed {
			if !available[ref] {
				t.Fatalf("%s was printed and is not available", ref)
			}
		}
	}
	l.checkFile(len(l.check()))
}
