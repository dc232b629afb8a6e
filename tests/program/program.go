// Package program builds hsm-kp and runs it as a process, for tests of its outside.
package program

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/softhsm"
)

// Patience is how long a test waits for what takes moments. It only ends a test that hangs: it is
// long enough for a machine that has other work, and no measure of the product.
const Patience = 2 * time.Minute

// Root returns the folder of the product's module.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// RequireSoftHSM skips the test if SoftHSM is not installed, and fails it under CI=true.
func RequireSoftHSM(t testing.TB) {
	t.Helper()
	_, err := softhsm.FindModule()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("FindModule() err = %v, and CI must have SoftHSM", err)
	default:
		t.Skip("SoftHSM is not installed")
	}
}

// Build compiles hsm-kp into a new folder and returns the folder.
func Build(t testing.TB) string {
	t.Helper()
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-o", filepath.Join(bin, "hsm-kp"), "./cmd/hsm-kp")
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build hsm-kp: %v\n%s", err, out)
	}
	return bin
}

// Installation is a private SoftHSM token with a store and a config, made by
// `hsm-kp init`.
type Installation struct {
	t      testing.TB
	bin    string
	config string // the config's name in Dir
	// Dir holds everything that the installation keeps.
	Dir string
	// Log holds everything that the program has written to standard error so far.
	Log bytes.Buffer
}

// theConfig is the name of the config that init makes.
const theConfig = "hsm-kp.yaml"

// Install builds hsm-kp and makes an installation that allows unwrap.
func Install(t testing.TB) *Installation {
	t.Helper()
	RequireSoftHSM(t)
	return InstallAt(t, Build(t), filepath.Join(t.TempDir(), "kp"))
}

// InstallAt makes the installation in a folder that is kept, with what Build returned. It reuses an
// installation that is there already.
func InstallAt(t testing.TB, bin, dir string) *Installation {
	t.Helper()
	RequireSoftHSM(t)
	i := &Installation{t: t, bin: filepath.Join(bin, "hsm-kp"), config: theConfig, Dir: dir}
	if _, err := os.Stat(i.ConfigPath()); err == nil {
		return i
	}
	i.run("init", "--softhsm", i.Dir)
	i.Edit("allow: false", "allow: true")
	return i
}

// By returns the installation with another of the configs in its folder.
func (i *Installation) By(config string) *Installation {
	return &Installation{t: i.t, bin: i.bin, config: config, Dir: i.Dir}
}

// ConfigPath returns the path of the config.
func (i *Installation) ConfigPath() string { return filepath.Join(i.Dir, i.config) }

// Run runs a command on the installation and returns its standard output. It fails the test if the
// command fails.
func (i *Installation) Run(args ...string) []byte {
	i.t.Helper()
	return i.run(append([]string{"--config", i.ConfigPath()}, args...)...)
}

// Command returns a command on the installation that is not started, for tests that influence how
// it ends.
func (i *Installation) Command(args ...string) *exec.Cmd {
	return i.command(append([]string{"--config", i.ConfigPath()}, args...)...)
}

// command returns a command of the program. It does not inherit what Open set for a token in this
// process.
func (i *Installation) command(args ...string) *exec.Cmd {
	cmd := exec.Command(i.bin, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "SOFTHSM2_CONF=") })
	return cmd
}

func (i *Installation) run(args ...string) []byte {
	i.t.Helper()
	cmd := i.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	i.Log.Write(stderr.Bytes())
	if err != nil {
		i.t.Fatalf("hsm-kp %s: %v\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

// Unwrapped has the private keys of a key package in hexadecimal, as `hsm-kp unwrap --json` prints
// them.
type Unwrapped struct {
	Ref               string `json:"key_package_ref"`
	InitKey           string `json:"init_private_key"`
	EncryptionKey     string `json:"encryption_private_key"`
	EncodedKeyPackage string `json:"encoded_key_package"`
}

// Generate makes count key packages of an identity and returns their refs.
func (i *Installation) Generate(identity string, count string, args ...string) []string {
	i.t.Helper()
	out := i.Run(append([]string{"generate", "--identity", identity, "--count", count, "--json"}, args...)...)
	var refs []string
	for line := range bytes.Lines(out) {
		var made Unwrapped
		if err := json.Unmarshal(line, &made); err != nil {
			i.t.Fatalf("generate --json printed %q: %v", line, err)
		}
		refs = append(refs, made.Ref)
	}
	return refs
}

// Unwrap returns the private keys of a key package.
func (i *Installation) Unwrap(ref string) Unwrapped {
	i.t.Helper()
	var u Unwrapped
	if err := json.Unmarshal(i.Run("unwrap", "--json", ref), &u); err != nil {
		i.t.Fatalf("unwrap --json: %v", err)
	}
	return u
}

// Public returns a bare key package.
func (i *Installation) Public(ref string) []byte {
	i.t.Helper()
	dir := i.t.TempDir()
	i.Run("export", "--again", "--out", dir, ref)
	message, err := os.ReadFile(filepath.Join(dir, ref+".mls"))
	if err != nil {
		i.t.Fatal(err)
	}
	return message[4:] // after the header of the MLSMessage
}
