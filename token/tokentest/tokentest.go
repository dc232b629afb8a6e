// Package tokentest has a PKCS#11 module for tests that stands before a real one and does what
// real ones do on bad days: it is slow, fails the k-th call of a function, drops sessions, is
// gone for a while, has few sessions, lacks a mechanism, or returns a wrong signature. It counts
// calls. It is built with the system's C compiler.
package tokentest

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/hsm-kp/hsm-kp/token"
)

//go:embed testdata/faults.c
var source []byte

// functions are those that can fail and are counted, in the order of faults.c.
var functions = []string{
	"C_Initialize", "C_Finalize", "C_GetInfo", "C_GetSlotList", "C_GetTokenInfo", "C_GetMechanismInfo", "C_OpenSession", "C_CloseSession",
	"C_GetSessionInfo", "C_Login", "C_Logout", "C_CopyObject", "C_DestroyObject", "C_GetAttributeValue", "C_FindObjectsInit", "C_FindObjects",
	"C_FindObjectsFinal", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_SignInit", "C_Sign", "C_GenerateKey",
	"C_GenerateKeyPair", "C_WrapKey", "C_UnwrapKey", "C_DeriveKey", "C_GenerateRandom",
}

// Functions returns the names of the functions that can fail and are counted.
func Functions() []string { return slices.Clone(functions) }

// Words of the control file, each 8 bytes, as struct control in testdata/faults.c has them.
const (
	wordLatency = iota
	wordDrop
	wordDown
	wordSessions
	wordMechanism
	wordSpoil
	wordSwap
	wordNonces
	wordOpen
	wordCalls
)

const (
	rules     = 16
	ruleWords = 5
)

// Module is a module before a real one. Its settings take effect at once, also in other processes
// that have loaded it. Its methods are safe for concurrent use.
type Module struct {
	// Path is the path of the library, for token.Config.
	Path  string
	words []atomic.Int64
	rules int
}

// New builds a module before the real one at path real. A missing C compiler skips the
// test, and fails it in CI.
func New(tb testing.TB, real string) *Module {
	tb.Helper()
	m := &Module{Path: filepath.Join(tb.TempDir(), "faults.so")}
	size := 8 * (wordCalls + len(functions) + rules*ruleWords)
	build(tb, m.Path)
	for name, content := range map[string][]byte{".real": []byte(real), ".control": make([]byte, size)} {
		if err := os.WriteFile(m.Path+name, content, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	m.attach(tb, size)
	return m
}

// attach maps the control file.
func (m *Module) attach(tb testing.TB, size int) {
	tb.Helper()
	f, err := os.OpenFile(m.Path+".control", os.O_RDWR, 0)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	b, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		tb.Fatalf("map %s.control: %v", m.Path, err)
	}
	tb.Cleanup(func() { syscall.Munmap(b) })
	m.words = unsafe.Slice((*atomic.Int64)(unsafe.Pointer(unsafe.SliceData(b))), size/8)
}

// build compiles the module against the headers of miekg/pkcs11.
func build(tb testing.TB, out string) {
	tb.Helper()
	cc := os.Getenv("CC")
	if cc == "" {
		cc = "cc"
	}
	if _, err := exec.LookPath(cc); err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatalf("no C compiler: %v", err)
		}
		tb.Skipf("no C compiler: %v", err)
	}
	headers, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").Output()
	if err != nil {
		tb.Fatalf("find the headers of PKCS#11: %v", err)
	}
	code := filepath.Join(filepath.Dir(out), "faults.c")
	if err := os.WriteFile(code, source, 0o600); err != nil {
		tb.Fatal(err)
	}
	if text, err := exec.Command(cc, "-Wall", "-O1", "-shared", "-fPIC", "-I", strings.TrimSpace(string(headers)), "-o", out, code, "-ldl", "-lpthread").CombinedOutput(); err != nil {
		tb.Fatalf("build the module: %v\n%s", err, text)
	}
}

// SetLatency makes every call take d longer.
func (m *Module) SetLatency(d time.Duration) { m.words[wordLatency].Store(d.Microseconds()) }

// DropSessions closes all sessions at the next call that takes one, which ends the login.
func (m *Module) DropSessions() { m.words[wordDrop].Store(1) }

// While it is set, SetDown makes every call that takes a session fail with CKR_DEVICE_ERROR.
func (m *Module) SetDown(down bool) {
	m.words[wordDown].Store(truth(down))
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// SetSessions allows so many open sessions; 0 is as many as the token has.
func (m *Module) SetSessions(n int) { m.words[wordSessions].Store(int64(n)) }

// HideMechanism removes a mechanism (CKM_…) from the module; 0 ends that.
func (m *Module) HideMechanism(mechanism uint) { m.words[wordMechanism].Store(int64(mechanism)) }

// SpoilSignature spoils the k-th signature from now on, 1 being the next one.
func (m *Module) SpoilSignature(k int) { m.words[wordSpoil].Store(int64(k)) }

// SwapKey makes the k-th signature from now on, 1 being the next one, with another key of the
// token on the same curve, if there is one.
func (m *Module) SwapKey(k int) { m.words[wordSwap].Store(int64(k)) }

// SetOwnNonces has the module make the nonces of AES-GCM, and refuse any but zeros.
func (m *Module) SetOwnNonces(own bool) { m.words[wordNonces].Store(truth(own)) }

// Sessions returns how many sessions are open.
func (m *Module) Sessions() int { return int(m.words[wordOpen].Load()) }

// Calls returns how often a function was called, including calls that only asked for a length.
func (m *Module) Calls(function string) int {
	return int(m.words[wordCalls+index(function)].Load())
}

// AllCalls returns how often each function was called, without those that were not.
func (m *Module) AllCalls() map[string]int {
	calls := make(map[string]int)
	for i, f := range functions {
		if n := m.words[wordCalls+i].Load(); n > 0 {
			calls[f] = int(n)
		}
	}
	return calls
}

// Any stands for every function that takes a session, in Fail.
const Any = "any"

// Fail makes the k-th call of a function from now on, 1 being the next one, fail with rv, and so
// many calls in all. seen returns how many calls there were since.
func (m *Module) Fail(tb testing.TB, function string, k, calls int, rv token.RV) (seen func() int) {
	tb.Helper()
	if m.rules == rules {
		tb.Fatalf("more than %d rules: see Reset", rules)
	}
	r := m.words[wordCalls+len(functions)+m.rules*ruleWords:][:ruleWords]
	m.rules++
	f := int64(-1)
	if function != Any {
		f = int64(index(function))
	}
	r[0].Store(f)
	r[2].Store(int64(calls))
	r[3].Store(int64(rv))
	r[4].Store(0)
	r[1].Store(int64(k)) // last: it sets the rule
	return func() int { return int(r[4].Load()) }
}

// Reset ends all that was set, and counts from zero. Sessions stay open.
func (m *Module) Reset() {
	for i := range m.words {
		if i != wordOpen {
			m.words[i].Store(0)
		}
	}
	m.rules = 0
}

func index(function string) int {
	i := slices.Index(functions, function)
	if i < 0 {
		panic(fmt.Sprintf("%s is none of %v", function, functions))
	}
	return i
}

// Config returns cfg with this module instead of its own.
func (m *Module) Config(cfg token.Config) token.Config {
	cfg.Module = m.Path
	return cfg
}

// Open opens the token of cfg through the module, until the test ends.
func (m *Module) Open(tb testing.TB, cfg token.Config) *token.Token {
	tb.Helper()
	t, err := token.Open(context.WithoutCancel(tb.Context()), m.Config(cfg))
	if err != nil {
		tb.Fatalf("Open() err = %v, want nil", err)
	}
	tb.Cleanup(func() { t.Close() })
	return t
}
