package vendortest

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
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

	"github.com/hsm-kp/hsm-kp/token"
)

// p11KitClients is where systems put the client module of a p11-kit server.
var p11KitClients = []string{
	"/usr/lib/*/pkcs11/p11-kit-client.so", // Debian, Ubuntu
	"/usr/lib64/pkcs11/p11-kit-client.so", // Fedora, RHEL
	"/usr/lib/pkcs11/p11-kit-client.so",   // Alpine, Arch
	"/usr/local/lib/pkcs11/p11-kit-client.so",
}

// serverAddress is the variable in which the client finds the server.
const serverAddress = "P11_KIT_SERVER_ADDRESS"

// deadline is how long the server may take for what takes some milliseconds.
const deadline = time.Minute

// Server is a p11-kit server before a token: the module runs in a process of the server, one for
// each client that initializes p11-kit-client.so.
type Server struct {
	// Module is the path of p11-kit-client.so.
	Module string
	// Address is the value of the environment variable P11_KIT_SERVER_ADDRESS, which is set in
	// this process until the test ends.
	Address string

	tb      testing.TB
	command func() *exec.Cmd
	socket  string
	real    token.Config
	running *exec.Cmd // nil: none
}

// socket is the path of the socket of every server of this process: the client reads the variable
// once, when it is loaded, and a loaded module stays. It is short, because the path of a socket
// has to be.
var socket = sync.OnceValue(func() string {
	return filepath.Join(os.TempDir(), "p11kit-"+rand.Text()[:10], "socket")
})

// P11Kit starts a p11-kit server before the token of real, which must have a label or a serial
// number. The server reads the environment of this process, and stops when the test ends. There
// may be one at a time in a process.
func P11Kit(tb testing.TB, real token.Config) *Server {
	tb.Helper()
	program := requireProgram(tb, "p11-kit")
	s := &Server{Module: requireModule(tb, p11KitClients...), tb: tb, socket: socket(), real: real}
	s.Address = "unix:path=" + s.socket
	dir := filepath.Dir(s.socket)
	if err := os.Mkdir(dir, 0o700); err != nil {
		tb.Fatalf("a process has one p11-kit server at a time: %v", err)
	}
	name := token.URI{Token: real.Label, Serial: real.Serial}.String()
	s.command = func() *exec.Cmd {
		return exec.Command(program, "server", "--foreground", "--name", s.socket, "--provider", real.Module, name)
	}
	tb.Cleanup(func() {
		s.Stop()
		os.RemoveAll(dir)
	})
	setenv(tb, serverAddress, s.Address)
	s.Start()
	return s
}

// OpenP11Kit opens the token of real behind a p11-kit server, until the test ends.
func OpenP11Kit(tb testing.TB, real token.Config) *token.Token {
	tb.Helper()
	cfg := P11Kit(tb, real).Config()
	cfg.Quirks.OneAtATime = true
	return open(tb, cfg)
}

// Config is for the token behind the server.
func (s *Server) Config() token.Config {
	cfg := s.real
	cfg.Module = s.Module
	cfg.Quirks.OneAtATime = true
	return cfg
}

// Start starts the server, if it does not run, and waits until it listens.
func (s *Server) Start() {
	s.tb.Helper()
	if s.running != nil {
		return
	}
	cmd := s.command()
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.tb.Fatalf("start p11-kit server: %v", err)
	}
	s.running = cmd
	listens := make(chan error, 1)
	go func() {
		_, err := bufio.NewReader(out).ReadString('\n') // it prints where it listens once it does
		listens <- err
		_, _ = io.Copy(io.Discard, out)
	}()
	select {
	case err = <-listens:
	case <-time.After(deadline):
		err = fmt.Errorf("it does not listen after %v", deadline)
	}
	if err != nil {
		s.Stop()
		s.tb.Fatalf("start p11-kit server: %v", err)
	}
}

// Stop kills the server and every process of it that runs the module. The socket is removed, as
// when the machine restarts.
func (s *Server) Stop() {
	s.tb.Helper()
	if s.running == nil {
		return
	}
	// The server goes first, so that it starts nothing; its processes would outlive it.
	modules := s.modules()
	s.kill(s.running.Process.Pid)
	for _, pid := range modules {
		s.kill(pid)
	}
	_ = s.running.Wait() // it was killed
	s.running = nil
	if err := os.Remove(s.socket); err != nil && !os.IsNotExist(err) {
		s.tb.Errorf("remove the socket of the p11-kit server: %v", err)
	}
}

// KillModules kills every process of the server that runs the module, as a crash of the module
// does, waits until they are gone, and returns how many there were. The server goes on: a client
// that initializes its module again gets a new process.
func (s *Server) KillModules() int {
	s.tb.Helper()
	pids := s.modules()
	for _, pid := range pids {
		s.kill(pid)
	}
	for end := time.Now().Add(deadline); slices.ContainsFunc(s.modules(), func(pid int) bool { return slices.Contains(pids, pid) }); {
		if time.Now().After(end) {
			s.tb.Fatalf("processes %v do not go", pids)
		}
		time.Sleep(time.Millisecond)
	}
	return len(pids)
}

func (s *Server) kill(pid int) {
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && err != syscall.ESRCH {
		s.tb.Errorf("kill process %d: %v", pid, err)
	}
}

// modules returns the processes of the server that run the module: its children.
func (s *Server) modules() (pids []int) {
	if s.running == nil {
		return nil
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && parent(path) == s.running.Process.Pid {
			pids = append(pids, pid)
		}
	}
	return pids
}

// parent reads the parent of a process, 0 if the process is gone, from its stat file: "PID (NAME)
// STATE PARENT ...", and the name may contain anything.
func parent(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	pid, _ := strconv.Atoi(fields[1])
	return pid
}
