package enroll

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// result is the part of a line of `hsm-kp provision --json` that a test reads.
type result struct {
	Name        string
	Status      string
	Error       string
	Made        int
	ValidUntil  time.Time `json:"certificates_valid_until"`
	KeyPackages []struct {
		Ref      string    `json:"key_package_ref"`
		NotAfter time.Time `json:"not_after"`
		File     string
	} `json:"key_packages"`
}

// suites of the devices: step-ca certifies P-256, P-384, P-521 and Ed25519 keys.
var suites = []int{2, 1, 7, 5}

func device(i int) string {
	return fmt.Sprintf(`{"name":"gateway-%[1]d","suite":%[2]d,"credential":"x509","dns_names":["gateway-%[1]d.example.com"],"uris":["spiffe://fleet.example.com/gateway-%[1]d"],"count":2}`,
		i, suites[i%len(suites)])
}

func TestABatchIsCertifiedByStepCA(t *testing.T) {
	on := program.Install(t)
	authority := newCA(t)
	authority.serve()
	configure(t, on, authority)
	var lines []string
	for i := range 12 {
		lines = append(lines, device(i))
	}

	// The CA's policy refuses a foreign name; the other devices are not affected.
	foreign := `{"name":"stray","credential":"x509","dns_names":["www.example.org"]}`
	results, status := provision(t, on, slices.Insert(slices.Clone(lines), 3, foreign))
	if status != 1 || results["stray"].Status != "failed" || !strings.Contains(results["stray"].Error, "authority") {
		t.Errorf("exit status %d, stray is %+v, want it refused by the CA", status, results["stray"])
	}
	for i := range lines {
		r := results[fmt.Sprintf("gateway-%d", i)]
		if r.Status != "ready" || r.Made != 2 || len(r.KeyPackages) != 2 {
			t.Errorf("%+v, want it ready, with two key packages", r)
			continue
		}
		for _, k := range r.KeyPackages {
			checkKeyPackage(t, authority, r, i, k.File)
			if k.NotAfter.After(r.ValidUntil) {
				t.Errorf("%s: a key package until %v, certificates until %v", r.Name, k.NotAfter, r.ValidUntil)
			}
		}
	}
	on.Run(append([]string{"verify", "--policy", "strict", "--roots", authority.root()}, files(t, on)...)...)

	// Certified devices no longer need the CA; the others wait for it.
	authority.stop()
	lines = append(lines, device(12))
	results, status = provision(t, on, lines)
	if status != 1 || results["gateway-0"].Status != "ready" || results["gateway-0"].Made != 0 || results["gateway-12"].Status != "failed" {
		t.Errorf("without the CA: exit status %d, %+v, %+v", status, results["gateway-0"], results["gateway-12"])
	}
	authority.serve()
	results, status = provision(t, on, lines)
	if status != 0 || results["gateway-12"].Status != "ready" || results["gateway-12"].Made != 2 {
		t.Errorf("with the CA again: exit status %d, %+v, want it ready", status, results["gateway-12"])
	}
}

// configure sets the CA as the installation's enrollment command.
func configure(t *testing.T, on *program.Installation, authority *ca) {
	t.Helper()
	command, err := json.Marshal(authority.enrolCommand())
	if err != nil {
		t.Fatal(err)
	}
	on.Append(fmt.Sprintf("x509:\n  roots: %q\n  enroll: {command: %s, timeout: 5m}", authority.root(), command))
}

// provision runs a manifest, and returns its results by name and its exit status.
func provision(t *testing.T, on *program.Installation, lines []string) (map[string]result, int) {
	t.Helper()
	cmd := on.Command("provision", "--manifest", "-", "--json", "--out", filepath.Join(on.Dir, "spool"))
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	results := make(map[string]result)
	for line := range bytes.Lines(out) {
		var r result
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		results[r.Name] = r
	}
	if len(results) != len(lines) {
		t.Fatalf("%d results of %d lines\n%s", len(results), len(lines), stderr.String())
	}
	return results, cmd.ProcessState.ExitCode()
}

// checkKeyPackage compares the credential of a key package with the request.
func checkKeyPackage(t *testing.T, authority *ca, r result, i int, file string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := keypackage.ParseMessage(data)
	if err != nil || m.KeyPackage == nil {
		t.Fatalf("ParseMessage() = %v, %v", m, err)
	}
	chain := m.KeyPackage.LeafNode.Credential.Certificates
	if int(m.KeyPackage.CipherSuite) != suites[i%len(suites)] || len(chain) != 2 {
		t.Fatalf("%s: suite %v and %d certificates, want the leaf and the intermediate", r.Name, m.KeyPackage.CipherSuite, len(chain))
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	intermediate, err := x509.ParseCertificate(chain[1])
	if err != nil {
		t.Fatal(err)
	}
	roots, between := pool(t, authority.root()), x509.NewCertPool()
	between.AddCert(intermediate)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: r.Name + ".example.com"}); err != nil {
		t.Errorf("%s: %v", r.Name, err)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://fleet.example.com/"+r.Name {
		t.Errorf("%s: URIs %v", r.Name, leaf.URIs)
	}
}

func pool(t *testing.T, file string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	out := x509.NewCertPool()
	out.AddCert(root)
	return out
}

func files(t *testing.T, on *program.Installation) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(on.Dir, "spool", "*.mls"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%d files, %v", len(names), err)
	}
	return names
}
