package crash

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/welcome/welcometest"
)

// record is the output of `show --json` for a key package.
type record struct {
	State string `json:"state"`
}

// A process that is killed while it opens a Welcome leaves a key package that either
// was consumed, after everything was printed, or opens the same Welcome again. None is
// lost, and none is partly erased.
func TestKilledWhileOpening(t *testing.T) {
	i := program.Install(t)
	i.Run("identity", "create", "alice")
	suite, ok := ciphersuite.Lookup(2)
	if !ok {
		t.Fatal("Lookup(2) found nothing")
	}
	group := welcometest.NewGroup(t, suite)
	const rounds = 40
	var consumed, reserved int
	for round, ref := range i.Generate("alice", "40") {
		path := writeWelcome(t, i, group, ref)
		cmd := i.Command("welcome", "open", "--consume", "--json", path)
		var stdout bytes.Buffer
		cmd.Stdout = &stdout
		if round%2 == 0 { // held between the reservation and the end: it cannot print
			cmd.Stdout = fullPipe(t)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitWhile(t, i, ref, "published")
		time.Sleep(rand.N(4 * time.Millisecond))
		if err := cmd.Process.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
		err := cmd.Wait()
		if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.Exited()) {
			t.Fatalf("welcome open: %v", err)
		}
		var left record
		if err := json.Unmarshal(i.Run("show", "--json", ref), &left); err != nil {
			t.Fatal(err)
		}
		switch left.State {
		case "consumed":
			consumed++
			if !json.Valid(stdout.Bytes()) {
				t.Errorf("%s is consumed, and what was printed is %q", ref, stdout.Bytes())
			}
			wantRefused(t, i, path)
			continue
		case "reserved":
			reserved++
		default:
			t.Errorf("%s is %s", ref, left.State)
		}
		if out := i.Run("welcome", "open", "--consume", "--json", path); !strings.Contains(string(out), ref) {
			t.Errorf("welcome open printed %s, want the key package %s", out, ref)
		}
		wantRefused(t, i, path)
	}
	t.Logf("of %d that were killed, %d had consumed and %d had reserved", rounds, consumed, reserved)
	if consumed+reserved != rounds || reserved < rounds/2 {
		t.Errorf("%d were consumed and %d reserved, want %d in all, and half of them reserved", consumed, reserved, rounds)
	}
}

// fullPipe returns the write end of a pipe that is full.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	raw, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var full error // os.Pipe does not block
	err = raw.Write(func(fd uintptr) bool {
		for full == nil {
			_, full = syscall.Write(int(fd), make([]byte, 1<<12))
		}
		return true
	})
	if err != nil || !errors.Is(full, syscall.EAGAIN) {
		t.Fatalf("fill a pipe: %v, %v, want that it is full", err, full)
	}
	return w
}

// waitWhile waits for a key package to leave a state. SoftHSM's login comes first, which these
// tests do not cover: a process that is killed during it may lose its token (see
// docs/THREAT-MODEL.md).
func waitWhile(t *testing.T, i *program.Installation, ref, state string) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(i.Dir, "hsm-kp.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	raw, err := hex.DecodeString(ref)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(program.Patience); time.Now().Before(deadline); {
		var now string
		if err := db.QueryRow("SELECT state FROM key_packages WHERE ref = ?", raw).Scan(&now); err != nil {
			t.Fatal(err)
		}
		if now != state {
			return
		}
	}
	t.Fatalf("%s is still %s after %v", ref, state, program.Patience)
}

func writeWelcome(t *testing.T, i *program.Installation, group *welcometest.Group, ref string) string {
	t.Helper()
	kp, err := keypackage.Parse(i.Public(ref))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "welcome.mls")
	if err := os.WriteFile(path, group.Welcome(kp).Message(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wantRefused opens a Welcome whose key package is consumed.
func wantRefused(t *testing.T, i *program.Installation, path string) {
	t.Helper()
	out, err := i.Command("welcome", "open", path).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "consumed by a Welcome") {
		t.Errorf("welcome open of a consumed key package: %v, %s", err, out)
	}
}
