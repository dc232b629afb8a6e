package vendortest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/token"
)

// tpmModules is where systems put tpm2-pkcs11.
var tpmModules = []string{
	"/usr/lib/*/pkcs11/libtpm2_pkcs11.so", // Debian, Ubuntu
	"/usr/lib64/pkcs11/libtpm2_pkcs11.so", // Fedora, RHEL
	"/usr/lib/pkcs11/libtpm2_pkcs11.so",   // Alpine, Arch
}

// brokers is where systems put the library by which libtss2 reaches tpm2-abrmd.
var brokers = []string{"/usr/lib/*/libtss2-tcti-tabrmd.so.0", "/usr/lib64/libtss2-tcti-tabrmd.so.0", "/usr/lib/libtss2-tcti-tabrmd.so.0"}

// Device is a TPM in software with a token of tpm2-pkcs11 on it.
//
// A TPM has room for three keys at a time, and tpm2-pkcs11 drops those that it made or used only
// when it is finalized. Here tpm2-abrmd exchanges up to a hundred of them, over a D-Bus of its
// own.
type Device struct {
	Module  string            // path of tpm2-pkcs11
	Label   string            // of the token
	PINPath string            // file with the PIN, for its owner only
	Environ map[string]string // what the module needs; it is set in this process until the test ends

	pin token.PIN
}

// NewDevice makes a TPM in a process of its own, and a token on it. It ends with the test. The
// module reads the environment when it is initialized, so a process may have one of them open at
// a time.
func NewDevice(tb testing.TB) *Device {
	tb.Helper()
	// The path of a socket has 107 bytes at most, and those of tests are long.
	dir, err := os.MkdirTemp("", "tpm-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	d := &Device{Module: requireModule(tb, tpmModules...), Label: "tpm " + rand.Text()[:10], PINPath: filepath.Join(dir, "pin")}
	requireModule(tb, brokers...)
	d.start(tb, dir)
	if d.pin, err = writePIN(d.PINPath); err != nil {
		tb.Fatal(err)
	}
	for name, value := range d.Environ {
		setenv(tb, name, value)
	}
	ptool := exec.Command(requireProgram(tb, "tpm2_ptool"), "init", "--path", d.Environ["TPM2_PKCS11_STORE"])
	ptool.Env = append(os.Environ(), "TPM2TOOLS_TCTI="+d.Environ["TPM2_PKCS11_TCTI"])
	if out, err := ptool.CombinedOutput(); err != nil {
		tb.Fatalf("make the store of tpm2-pkcs11: %v\n%s", err, out)
	}
	if _, err := token.InitToken(context.WithoutCancel(tb.Context()), d.Module, d.Label, token.NewPIN([]byte(rand.Text())), d.pin); err != nil {
		tb.Fatalf("make a token in the TPM: %v", err)
	}
	return d
}

// Config is what token.Open needs.
func (d *Device) Config() token.Config {
	return token.Config{Module: d.Module, Label: d.Label, PIN: token.File(d.PINPath)}
}

// TPM makes a TPM with a token, as NewDevice does, and returns what token.Open needs.
func TPM(tb testing.TB) token.Config {
	tb.Helper()
	return NewDevice(tb).Config()
}

// OpenTPM opens the token of a TPM, until the test ends.
func OpenTPM(tb testing.TB) *token.Token {
	tb.Helper()
	return open(tb, TPM(tb))
}

func open(tb testing.TB, cfg token.Config) *token.Token {
	tb.Helper()
	t, err := token.Open(tb.Context(), cfg)
	if err != nil {
		tb.Fatalf("open token: %v", err)
	}
	tb.Cleanup(func() {
		if err := t.Close(); err != nil {
			tb.Errorf("close token: %v", err)
		}
	})
	return t
}

func writePIN(path string) (token.PIN, error) {
	pin := rand.Text()
	return token.NewPIN([]byte(pin)), os.WriteFile(path, []byte(pin+"\n"), 0o600)
}

// busConfig is for a D-Bus that takes anybody who reaches its socket, which nobody else can.
const busConfig = `<busconfig><type>session</type><listen>unix:path=%s</listen>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>
`

// start starts the TPM and what stands before it.
func (d *Device) start(tb testing.TB, dir string) {
	tb.Helper()
	swtpm, broker, daemon := requireProgram(tb, "swtpm"), requireProgram(tb, "tpm2-abrmd", "/usr/sbin/tpm2-abrmd"), requireProgram(tb, "dbus-daemon")
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, folder := range []string{"state", "store"} {
		if err := os.Mkdir(in(folder), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.WriteFile(in("bus.conf"), fmt.Appendf(nil, busConfig, in("bus")), 0o600); err != nil {
		tb.Fatal(err)
	}
	d.Environ = map[string]string{
		"TPM2_PKCS11_STORE":        in("store"),
		"TPM2_PKCS11_TCTI":         "tabrmd:bus_type=session",
		"TPM2_PKCS11_LOG_LEVEL":    "0",
		"TSS2_LOG":                 "all+none", // the library writes to standard error by itself
		"DBUS_SESSION_BUS_ADDRESS": "unix:path=" + in("bus"),
	}
	run(tb, in("bus"), nil, daemon, "--config-file="+in("bus.conf"), "--nofork", "--nopidfile")
	run(tb, in("tpm.ctrl"), nil, swtpm, "socket", "--tpm2", "--tpmstate", "dir="+in("state"),
		"--server", "type=unixio,path="+in("tpm"), "--ctrl", "type=unixio,path="+in("tpm.ctrl"), "--flags", "not-need-init,startup-clear")
	run(tb, "", []string{"DBUS_SESSION_BUS_ADDRESS=" + d.Environ["DBUS_SESSION_BUS_ADDRESS"]},
		broker, "--session", "--allow-root", "--max-transients=100", "--tcti=swtpm:path="+in("tpm"))
	d.await(tb)
}

// run runs a program until the test ends, and waits until it listens on a socket.
func run(tb testing.TB, socket string, environ []string, program string, args ...string) {
	tb.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), environ...)
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", program, err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // it was asked to end
	})
	if socket == "" {
		return
	}
	for end := time.Now().Add(deadline); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return
		} else if time.Now().After(end) {
			tb.Fatalf("%s does not listen: %v", program, err)
		}
	}
}

// await waits until the broker is on its bus.
func (d *Device) await(tb testing.TB) {
	tb.Helper()
	send := requireProgram(tb, "dbus-send")
	for end := time.Now().Add(deadline); ; time.Sleep(20 * time.Millisecond) {
		out, err := exec.Command(send, "--bus="+d.Environ["DBUS_SESSION_BUS_ADDRESS"], "--print-reply=literal", "--dest=org.freedesktop.DBus",
			"/", "org.freedesktop.DBus.GetNameOwner", "string:com.intel.tss2.Tabrmd").CombinedOutput()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			tb.Fatalf("tpm2-abrmd does not come up: %s", out)
		}
	}
}
