package vendortest

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hsm-kp/hsm-kp/token"
)

// nssModules is where systems put NSS softoken.
var nssModules = []string{
	"/usr/lib/*/libsoftokn3.so", "/usr/lib/*/nss/libsoftokn3.so", // Debian, Ubuntu
	"/usr/lib64/libsoftokn3.so",                                               // Fedora, RHEL
	"/usr/lib/libsoftokn3.so",                                                 // Alpine, Arch
	"/opt/homebrew/lib/libsoftokn3.dylib", "/usr/local/lib/libsoftokn3.dylib", // Homebrew
}

// Database is an NSS database of its own, with a random PIN.
type Database struct {
	Module   string // path of NSS softoken
	Dir      string // of the database
	Label    string // of its token
	PINPath  string // file with the PIN, for its owner only
	InitArgs string // of C_Initialize
}

// NewDatabase makes an NSS database in a folder of the test. NSS finds the token of a database by
// the arguments of C_Initialize, so a process may have one of them open at a time.
func NewDatabase(tb testing.TB) *Database {
	tb.Helper()
	certutil := requireProgram(tb, "certutil")
	d := &Database{Module: requireModule(tb, nssModules...), Dir: tb.TempDir(), Label: "hsm-kp"}
	d.PINPath = filepath.Join(d.Dir, "pin")
	d.InitArgs = fmt.Sprintf("configdir='sql:%s' certPrefix='' keyPrefix='' secmod='secmod.db' flags= dbTokenDescription='%s'", d.Dir, d.Label)
	if err := os.WriteFile(d.PINPath, []byte(rand.Text()+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.Command(certutil, "-N", "-d", "sql:"+d.Dir, "-f", d.PINPath).CombinedOutput(); err != nil {
		tb.Fatalf("make NSS database: %v\n%s", err, out)
	}
	return d
}

// Config is what token.Open needs.
func (d *Database) Config() token.Config {
	return token.Config{
		Module: d.Module, Label: d.Label, PIN: token.File(d.PINPath),
		Quirks: token.Quirks{InitArgs: d.InitArgs, UnwrapPoint: true, LocalUntold: true},
	}
}

// NSS makes an NSS database, as NewDatabase does, and returns what token.Open needs.
func NSS(tb testing.TB) token.Config {
	tb.Helper()
	return NewDatabase(tb).Config()
}

// OpenNSS opens the token of a database of its own, until the test ends.
func OpenNSS(tb testing.TB) *token.Token {
	tb.Helper()
	t, err := token.Open(tb.Context(), NSS(tb))
	if err != nil {
		tb.Fatalf("open NSS database: %v", err)
	}
	tb.Cleanup(func() {
		if err := t.Close(); err != nil {
			tb.Errorf("close NSS database: %v", err)
		}
	})
	return t
}
