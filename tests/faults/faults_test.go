// Package faults runs hsm-kp on a token whose module fails: the device is gone for a while or
// permanently, or does not answer.
package faults

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
)

// installation has a token behind a module that fails on purpose.
type installation struct {
	*program.Installation
	*tokentest.Module
}

func install(t *testing.T) installation {
	t.Helper()
	i := program.Install(t)
	i.Run("identity", "create", "alice")
	path, err := softhsm.FindModule()
	if err != nil {
		t.Fatal(err)
	}
	m := tokentest.New(t, path)
	i.Edit(fmt.Sprintf("module: %q", path), fmt.Sprintf("module: %q", m.Path))
	return installation{i, m}
}

// ended describes how a command ended.
type ended struct {
	stderr string
	status int
	took   time.Duration
}

// started is a running command.
type started struct {
	*exec.Cmd
	err    error // why it did not start
	stderr program.Log
}

func (i installation) start(args ...string) *started {
	s := &started{Cmd: i.Command(args...)}
	s.Stderr = &s.stderr
	s.err = s.Start()
	return s
}

// end waits for the end of the command. took counts from this call.
func (s *started) end(t *testing.T) ended {
	t.Helper()
	start, err := time.Now(), s.err
	if err == nil {
		err = s.Wait()
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	t.Logf("%s\n%s", strings.Join(s.Args, " "), s.stderr.String())
	return ended{s.stderr.String(), s.ProcessState.ExitCode(), time.Since(start)}
}

// until waits for something to become true.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(program.Patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not after %v: %s", program.Patience, what)
		}
	}
}

// during waits until the module has signed, so that a batch has begun.
func (i installation) during(t *testing.T) {
	t.Helper()
	until(t, "many signatures", func() bool { return i.Calls("C_Sign") >= 200 })
}

func (i installation) files(t *testing.T, dir string) int {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*.mls"))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// check checks that published key packages have their private keys, and that the token has what
// the store expects.
func (i installation) check(t *testing.T, dir string, count int) {
	t.Helper()
	i.Reset()
	if n := i.files(t, dir); n != count {
		t.Errorf("%d key packages in the folder, want %d", n, count)
	}
	for _, path := range i.sample(t, dir) {
		i.Unwrap(strings.TrimSuffix(filepath.Base(path), ".mls"))
	}
	if counts := string(i.Run("list", "--count")); !regexp.MustCompile(`(?m)^pending +0$`).MatchString(counts) {
		t.Errorf("key packages are pending:\n%s", counts)
	}
	if n := i.Sessions(); n != 0 {
		t.Errorf("%d sessions are open after the end, want none", n)
	}
}

// sample returns every hundredth file.
func (i installation) sample(t *testing.T, dir string) (paths []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*.mls"))
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(all); n += 100 {
		paths = append(paths, all[n])
	}
	return paths
}

func TestAnOutageInTheMiddleOfABatch(t *testing.T) {
	i := install(t)
	dir := filepath.Join(t.TempDir(), "out")
	run := i.start("generate", "--identity", "alice", "--count", "2000", "--out", dir)
	i.during(t)
	i.SetDown(true)
	until(t, "the last step of a recovery", func() bool { return strings.Contains(run.stderr.String(), "initializing the module again") })
	time.Sleep(time.Second) // while the command retries
	i.SetDown(false)
	e := run.end(t)
	if e.status != 0 {
		t.Errorf("status %d, want 0", e.status)
	}
	for _, text := range []string{"CKR_DEVICE_ERROR: logging in again", "initializing the module again", "the token is back after"} {
		if !strings.Contains(e.stderr, text) {
			t.Errorf("standard error lacks %q", text)
		}
	}
	if n := strings.Count(e.stderr, "\n"); n > 12 {
		t.Errorf("%d lines for one outage", n)
	}
	i.check(t, dir, 2000)
}

func TestSessionsAreDroppedAgainAndAgain(t *testing.T) {
	i := install(t)
	dir := filepath.Join(t.TempDir(), "out")
	run := i.start("generate", "--identity", "alice", "--count", "1000", "--out", dir)
	i.during(t)
	for range 5 {
		time.Sleep(20 * time.Millisecond)
		i.DropSessions()
	}
	if e := run.end(t); e.status != 0 {
		t.Errorf("status %d, want 0", e.status)
	}
	i.check(t, dir, 1000)
}

func TestAnOutageThatDoesNotEnd(t *testing.T) {
	i := install(t)
	i.Edit("recovery: 1m", "recovery: 2s")
	dir := filepath.Join(t.TempDir(), "out")
	run := i.start("generate", "--identity", "alice", "--count", "3000", "--out", dir)
	i.during(t)
	i.SetDown(true)
	e := run.end(t)
	if e.status != 3 || e.took > 40*time.Second { // by default it would be a minute
		t.Errorf("status %d after %v, want 3 after some 2 s", e.status, e.took)
	}
	if !strings.Contains(e.stderr, "CKR_DEVICE_ERROR (tried ") || !strings.Contains(e.stderr, "hint: check the device") {
		t.Error("the error does not say what and how often, or has no hint")
	}
	i.Reset()
	i.Run("export", "--pending", "--out", dir)
	first := i.files(t, dir)
	rest := fmt.Sprint(3000 - first)
	if e := i.start("generate", "--identity", "alice", "--count", rest, "--out", dir).end(t); e.status != 0 {
		t.Errorf("a later run: status %d, want 0", e.status)
	}
	i.check(t, dir, 3000)
}

func TestAModuleThatDoesNotAnswer(t *testing.T) {
	i := install(t)
	const answer = 10 * time.Minute // after which the module would answer
	i.Edit("timeout: 30s", "timeout: 1s")
	for name, run := range map[string]func() *started{
		"from the start": func() *started {
			i.SetLatency(answer)
			return i.start("generate", "--identity", "alice", "--count", "10")
		},
		"in the middle": func() *started {
			i.Reset()
			s := i.start("generate", "--identity", "alice", "--count", "5000")
			i.during(t)
			i.SetLatency(answer)
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := run().end(t)
			if e.status != 3 || !strings.Contains(e.stderr, "the PKCS#11 module does not answer within 1s") || !strings.Contains(e.stderr, "hint: check the device") {
				t.Errorf("status %d, %q, want 3 and a sentence", e.status, e.stderr)
			}
			if e.took > 20*time.Second { // by default it would be half a minute
				t.Errorf("it took %v, want little more than 1 s", e.took)
			}
		})
	}
	i.Reset()
	if e := i.start("generate", "--identity", "alice", "--count", "10").end(t); e.status != 0 {
		t.Errorf("once it answers: status %d, want 0", e.status)
	}
}

// If a service manager restarts the program over and over, a wrong PIN is sent once.
func TestAWrongPINIsSentOnceInManyStarts(t *testing.T) {
	i := install(t)
	i.Edit(fmt.Sprintf("file: %q", filepath.Join(i.Dir, "pin")), "env: WRONG")
	t.Setenv("WRONG", "not the PIN")
	i.Reset()
	for range 6 {
		if e := i.start("generate", "--identity", "alice", "--count", "1").end(t); e.status != 3 || strings.Contains(e.stderr, "not the PIN") {
			t.Errorf("status %d, %q, want 3", e.status, e.stderr)
		}
	}
	if n := i.Calls("C_Login"); n != 1 {
		t.Errorf("%d PINs were sent, want 1", n)
	}
}

// hsm-kp does not sign with a key that another machine of a cluster has under the same CKA_ID.
func TestAnotherKeyAfterAFailOver(t *testing.T) {
	i := install(t)
	run := i.start("generate", "--identity", "alice", "--count", "20000", "--out", filepath.Join(t.TempDir(), "out"))
	i.during(t)
	i.SetDown(true) // the other machine already has the other key
	swapKey(t, i)
	i.DropSessions()
	i.SetDown(false)
	e := run.end(t)
	if e.status != 3 || !strings.Contains(e.stderr, token.ErrKeyChanged.Error()) {
		t.Errorf("status %d, want 3 and %q", e.status, token.ErrKeyChanged)
	}
}

// swapKey replaces alice's key by another one under the same CKA_ID.
func swapKey(t *testing.T, i installation) {
	t.Helper()
	err := i.Installation.Open(func(o *program.Opened) {
		pairs, err := o.Token.KeyPairs(t.Context())
		if err != nil || len(pairs) != 1 {
			t.Fatalf("KeyPairs() = %d, %v, want 1", len(pairs), err)
		}
		id := pairs[0].ID
		if _, err := o.Token.DestroyByID(t.Context(), id, token.ClassPrivateKey, token.ClassPublicKey); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Token.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256, ID: id}); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
