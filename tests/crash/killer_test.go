package crash

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// killer is the compiled testdata/killer.c.
type killer struct{ library string }

func buildKiller(t *testing.T) killer {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("testdata/killer.c is for Linux")
	}
	cc, err := exec.LookPath("cc")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v, and CI must have a C compiler", err)
		}
		t.Skip(err)
	}
	k := killer{filepath.Join(t.TempDir(), "killer.so")}
	if out, err := exec.Command(cc, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", k.library, filepath.Join("testdata", "killer.c")).CombinedOutput(); err != nil {
		t.Fatalf("compile killer.c: %v\n%s", err, out)
	}
	return k
}

// run runs a command and kills it before its call number at, or not at all if that is 0. It returns
// the calls up to and including that one, and whether the command was killed.
func (k killer) run(t *testing.T, cmd *exec.Cmd, at int) (calls []string, killed bool) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "calls")
	cmd.Env = append(os.Environ(), "LD_PRELOAD="+k.library, "KILLER_LOG="+log, "KILLER_AT="+strconv.Itoa(at))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status, _ := exit.Sys().(syscall.WaitStatus)
		killed = status.Signaled() && status.Signal() == syscall.SIGKILL
	}
	if err != nil && !killed {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	text, err := os.ReadFile(log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		calls = append(calls, strings.TrimSpace(line))
	}
	return calls, killed
}
