package serve

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// manager acts as systemd: it owns the socket, receives the service's notifications, and passes the
// PIN.
type manager struct {
	env    []string
	socket *os.File

	mu   sync.Mutex
	said []string
}

// manage lets the service be started as systemd does: sd_listen_fds(3), sd_notify(3) and
// LoadCredential of systemd.exec(5).
func manage(s *service) *manager {
	s.t.Helper()
	l, err := net.Listen("unix", s.socket())
	if err != nil {
		s.t.Fatal(err)
	}
	m := new(manager)
	if m.socket, err = l.(*net.UnixListener).File(); err != nil {
		s.t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // the file stays
	s.t.Cleanup(func() { m.socket.Close() })

	notify := filepath.Join(s.dir, "notify")
	c, err := net.ListenPacket("unixgram", notify)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, _, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.said = append(m.said, strings.Split(string(b[:n]), "\n")...)
			m.mu.Unlock()
		}
	}()

	credentials := s.t.TempDir()
	pin, err := os.ReadFile(filepath.Join(s.on.Dir, "pin"))
	if err == nil {
		err = os.WriteFile(filepath.Join(credentials, "hsm-kp-pin"), pin, 0o400)
	}
	if err == nil {
		err = os.Remove(filepath.Join(s.on.Dir, "pin"))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	m.env = []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=local", "NOTIFY_SOCKET=" + notify, "CREDENTIALS_DIRECTORY=" + credentials, "WATCHDOG_USEC=400000"}
	return m
}

// heard reports whether the service sent a notification.
func (m *manager) heard(what string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.said, what)
}

// by adds systemd's variables to the command, with the process's own id.
func (m *manager) by(cmd *exec.Cmd) *exec.Cmd {
	args := append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh"}, cmd.Args...)
	shell := exec.Command("/bin/sh", args...)
	shell.Env = append(cmd.Environ(), append(m.env, "LISTEN_PID=")...)
	shell.Dir = cmd.Dir
	shell.ExtraFiles = []*os.File{m.socket}
	return shell
}

func TestSystemdHandsOverTheSocketAndThePIN(t *testing.T) {
	s := prepare(t, func(s *service, _ *settings) {
		s.on.Edit("    file: "+strconv.Quote(filepath.Join(s.on.Dir, "pin")), "    systemd: hsm-kp-pin")
	})
	s.on.Edit(fmt.Sprintf("%q", "unix:"+s.socket()), `"systemd:local"`)
	m := manage(s)
	early := make(chan error, 1) // a caller that connects before the service starts
	go func() {
		r, err := s.local().Get("http://local/healthz")
		if err == nil {
			r.Body.Close()
		}
		early <- err
	}()
	time.Sleep(100 * time.Millisecond)
	s.runAs(m.by(s.on.Command("serve")))
	if err := <-early; err != nil {
		t.Errorf("a caller from before it was started: %v", err)
	}
	s.until("READY=1", func() bool { return m.heard("READY=1") })
	if status, _ := s.post(s.local(), "http://local", "Generate", `{"identity":"alice"}`); status != http.StatusOK {
		t.Errorf("Generate = %d, want 200", status)
	}
	s.until("a sign of life", func() bool { return m.heard("WATCHDOG=1") })
	if m.heard("STOPPING=1") {
		t.Error("it says that it stops, but nobody stopped it")
	}
	if err := s.stop(); err != nil {
		t.Errorf("after SIGTERM: %v, want exit status 0", err)
	}
	s.until("STOPPING=1", func() bool { return m.heard("STOPPING=1") })
	if _, err := os.Stat(s.socket()); err != nil {
		t.Errorf("systemd's socket: %v", err)
	}
}

// underWay waits until more key packages are stored than before: their request is in progress.
func (s *service) underWay(were int) {
	s.t.Helper()
	s.until("key packages are stored", func() bool {
		return strings.Count(string(s.on.Run("list", "--refs", "--limit", strconv.Itoa(were+1))), "\n") > were
	})
}

// On SIGTERM, requests in progress are completed and answered; new callers are refused.
func TestItStopsWhenWhatIsUnderWayIsDone(t *testing.T) {
	s := start(t, func(s *service, with *settings) {
		s.on.Edit("batch: 500", "batch: 100") // a request in progress is seen early
		with.limits = "batch: 100000"
	})
	api := s.asApp()
	generate(t, api, 1)
	const many = 3000
	answered := make(chan error, 1)
	go func() {
		r, err := api.Generate(t.Context(), connect.NewRequest(&hsmkpv1.GenerateRequest{Identity: "alice", Count: many}))
		if err == nil && len(r.Msg.GetKeyPackages()) != many {
			err = fmt.Errorf("%d key packages, want %d", len(r.Msg.GetKeyPackages()), many)
		}
		answered <- err
	}()
	s.underWay(1)
	if err := s.process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.until("nobody new is let in", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case err := <-answered:
		t.Fatalf("it was done (%v) before nobody new was let in: want more", err)
	default:
	}
	if err := <-answered; err != nil {
		t.Errorf("Generate() err = %v, want nil", err)
	}
	if err := s.ended(); err != nil {
		t.Errorf("after SIGTERM: %v, want exit status 0", err)
	}
}

// Requests that do not end in time are cut off, and the exit status shows it. Nothing that was
// answered is lost.
func TestItDoesNotWaitForEver(t *testing.T) {
	s := start(t, func(_ *service, with *settings) {
		with.limits, with.more = "batch: 100000", "  grace: 1s"
	})
	api := s.asApp()
	generate(t, api, 1)
	failed := make(chan error, 1)
	go func() {
		_, err := api.Generate(t.Context(), connect.NewRequest(&hsmkpv1.GenerateRequest{Identity: "alice", Count: 50000}))
		failed <- err
	}()
	s.underWay(1)
	begun := time.Now()
	if err := s.stop(); err == nil {
		t.Error("exit status 0, want another")
	}
	if took := time.Since(begun); took > 20*time.Second { // by default it would be half a minute
		t.Errorf("it ended after %v, want about 1 s", took)
	}
	if err := <-failed; err == nil {
		t.Error("Generate() err = nil, want that it was cut off")
	}
	if log := s.log.String(); strings.Contains(log, "panic") || strings.Contains(log, "goroutine ") {
		t.Error("it ended in a panic")
	}
	s.on.Run("audit", "verify")
}

func TestTheUnitsAreGood(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("systemd-analyze is not installed; scripts/install-deps test does that")
		}
		t.Skip("systemd-analyze is not installed")
	}
	dir := t.TempDir()
	units, err := filepath.Glob(filepath.Join(program.Root(), "deploy", "systemd", "*"))
	if err != nil || len(units) != 2 {
		t.Fatalf("Glob() = %v, %v, want two units", units, err)
	}
	args := []string{"verify", "--man=no", "--recursive-errors=no"}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		copied := filepath.Join(dir, filepath.Base(unit))
		text = []byte(strings.ReplaceAll(string(text), "/usr/bin/hsm-kp", filepath.Join(program.Build(t), "hsm-kp")))
		if err := os.WriteFile(copied, text, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, copied)
	}
	if out, err := exec.Command("systemd-analyze", args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
