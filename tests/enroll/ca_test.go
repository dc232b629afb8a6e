// Package enroll provisions devices with certificates of a real certification authority:
// smallstep's step-ca, with smallstep's step as the enrollment command of the config.
package enroll

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// ca is a step-ca with a root, an intermediate and one JWK provisioner.
type ca struct {
	t       *testing.T
	bin     string // the folder of step and step-ca
	path    string // STEPPATH
	secret  string // the file of the password of all its keys
	address string
	stop    func()
}

// provisioner is the name of the provisioner that issues to devices.
const provisioner = "fleet"

// build compiles step-ca and step from the module beside this file, which is separate because of
// its dependencies. Without cgo they lack only the support of YubiKeys.
func build(t *testing.T) string {
	t.Helper()
	bin := t.TempDir()
	cmd := exec.Command("go", "build", "-o", bin, "github.com/smallstep/certificates/cmd/step-ca", "github.com/smallstep/cli/cmd/step")
	cmd.Dir = "stepca"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build step-ca: %v\n%s", err, out)
	}
	return bin
}

func newCA(t *testing.T) *ca {
	t.Helper()
	c := &ca{t: t, bin: build(t), path: filepath.Join(t.TempDir(), "step"), address: program.FreeAddress(t)}
	c.secret = filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(c.secret, []byte("of the CA's keys"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.step("ca", "init", "--deployment-type", "standalone", "--name", "Example", "--dns", "127.0.0.1", "--address", c.address,
		"--provisioner", provisioner, "--password-file", c.secret, "--provisioner-password-file", c.secret)
	c.step("ca", "provisioner", "update", provisioner, "--x509-default-dur", "720h", "--x509-max-dur", "720h", "--ca-config", c.config())
	c.deny("*.example.org")
	return c
}

// deny forbids the CA to issue for a DNS name. Its admin API needs a terminal, so the policy is
// written to its config.
func (c *ca) deny(name string) {
	c.t.Helper()
	text, err := os.ReadFile(c.config())
	if err != nil {
		c.t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		c.t.Fatal(err)
	}
	config["authority"].(map[string]any)["policy"] = map[string]any{"x509": map[string]any{"deny": map[string]any{"dns": []string{name}}}}
	if text, err = json.Marshal(config); err != nil {
		c.t.Fatal(err)
	}
	if err := os.WriteFile(c.config(), text, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *ca) config() string { return filepath.Join(c.path, "config", "ca.json") }

func (c *ca) root() string { return filepath.Join(c.path, "certs", "root_ca.crt") }

// enrolCommand returns the enrollment command for the config.
func (c *ca) enrolCommand() []string {
	return []string{
		filepath.Join(c.bin, "step"), "ca", "sign", "--ca-url", "https://" + c.address, "--root", c.root(),
		"--provisioner", provisioner, "--provisioner-password-file", c.secret, "--force", "/dev/stdin", "/dev/stdout",
	}
}

func (c *ca) environment() []string { return append(os.Environ(), "STEPPATH="+c.path) }

// step runs the command line of the CA.
func (c *ca) step(args ...string) {
	c.t.Helper()
	cmd := exec.Command(filepath.Join(c.bin, "step"), args...)
	cmd.Env = c.environment()
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("step %v: %v\n%s", args, err, out)
	}
}

// serve starts the CA and waits until it answers.
func (c *ca) serve() {
	c.t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(c.bin, "step-ca"), c.config(), "--password-file", c.secret)
	cmd.Env, cmd.Stdout, cmd.Stderr = c.environment(), &log, &log
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if c.t.Failed() {
			for line := range strings.Lines(log.String()) {
				if !strings.Contains(line, "level=info") {
					c.t.Logf("step-ca: %.400s", line)
				}
			}
		}
	})
	c.t.Cleanup(c.stop)
	for deadline := time.Now().Add(program.Patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if conn, err := net.Dial("tcp", c.address); err == nil {
			_ = conn.Close()
			return
		}
	}
	c.t.Fatal("step-ca does not listen")
}
