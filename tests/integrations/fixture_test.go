// Package integrations tests the adapters of integrations/ as a whole, each with a real `hsm-kp
// serve` and a real token: key packages are published, another member takes them, the member that
// the adapter makes opens the Welcome, and both talk. It asserts that no private key of a key
// package leaves the service.
package integrations

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// Callers of the service.
const (
	memberURI = "spiffe://example.com/member" // signs and opens, gets no key packages
	adderURI  = "spiffe://example.com/adder"  // claims, and can do nothing else
)

// service is a running service with an identity for each suite, whose key packages are published.
type service struct {
	on        *program.Installation
	url       string // over mutual TLS
	socket    string // of the service
	recorded  string // a Unix socket that leads to socket through record
	record    *recorder
	dir       string // certificates
	out       string // the files of adapters, for inspection
	directory *directorytest.Server
	suites    []string
	needles   []needle // the private keys of all key packages
	public    [][]byte // the key packages, bare
}

// nameOf returns the name of the identity for a suite.
func nameOf(suite string) string { return "alice-" + suite }

// start makes an installation, publishes key packages of each suite, and serves it. For each suite,
// the directory has three, the last of which it does not hand out, and the service can hand out
// two.
func start(t *testing.T, suites ...string) *service {
	t.Helper()
	s := &service{on: program.Install(t), dir: t.TempDir(), out: t.TempDir(), suites: suites, directory: directorytest.New(directorytest.Ours)}
	t.Cleanup(s.directory.Close)
	s.socket, s.recorded = filepath.Join(s.dir, "s.sock"), filepath.Join(s.dir, "r.sock")
	ca := certificatetest.NewRoot(t)
	program.WritePEM(t, s.path("ca.pem"), "CERTIFICATE", ca.Certificate.Raw)
	program.WriteTLS(t, s.path("server"), program.IssueTLS(t, ca, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }))
	program.WriteTLS(t, s.path("member"), program.IssueTLS(t, ca, withURI(t, memberURI)))
	program.WriteTLS(t, s.path("adder"), program.IssueTLS(t, ca, withURI(t, adderURI)))
	address := program.FreeAddress(t)
	s.url = "https://" + address
	s.configure(t, address)
	for _, suite := range suites {
		s.on.Run("identity", "create", nameOf(suite), "--suite", suite)
		s.makeKnown(t, s.on.Generate(nameOf(suite), "5"))
		s.on.Run("publish", "--identity", nameOf(suite), "--count", "3")
	}
	s.on.Serve(s.socket)
	s.record = newRecorder(t, s.recorded, s.socket)
	return s
}

func (s *service) path(name string) string { return filepath.Join(s.dir, name) }

// configure adds the service and the directory to the config.
func (s *service) configure(t *testing.T, address string) {
	t.Helper()
	path := filepath.Join(s.on.Dir, "hsm-kp.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	member := "[get, open_welcome, confirm_welcome, release_welcome, sign_with_label, decrypt_with_label]"
	text = fmt.Appendf(text, `
directories:
  - {name: main, type: openmls, url: %[9]q}
server:
  listen: ["tcp:%[1]s", "unix:%s"]
  tls: {certificate: %q, key: %q, client_ca: %q}
  callers:
    member: {uris: [%q], identities: ["alice-*"], operations: %s}
    adder: {uris: [%q], identities: ["alice-*"], operations: [claim]}
    local: {uids: [%[10]d], identities: ["alice-*"], operations: %[7]s}
    local-adder: {uids: [%[10]d], identities: ["alice-*"], operations: [claim]}
`, address, s.socket, s.path("server.pem"), s.path("server.key"), s.path("ca.pem"), memberURI, member, adderURI, s.directory.URL, os.Getuid())
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func withURI(t *testing.T, uri string) certificatetest.Change {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) { c.URIs = []*url.URL{u} }
}

// needle is a private key that must not be found anywhere.
type needle struct {
	what  string
	bytes []byte
}

// makeKnown unwraps the private keys of key packages, so that they can be searched for.
func (s *service) makeKnown(t *testing.T, refs []string) {
	t.Helper()
	for _, ref := range refs {
		u := s.on.Unwrap(ref)
		public, err := hex.DecodeString(u.EncodedKeyPackage)
		if err != nil {
			t.Fatal(err)
		}
		s.public = append(s.public, public)
		for what, text := range map[string]string{"init key": u.InitKey, "leaf's key": u.EncryptionKey} {
			b, err := hex.DecodeString(text)
			if err != nil || len(b) < 32 {
				t.Fatalf("the %s of %s is %q, no private key", what, ref, text)
			}
			s.needles = append(s.needles, needle{what + " of " + ref, b})
		}
	}
}

// checkNoKeys looks for private keys in the service's answers at the recorded socket and in the
// adapter's files, of which there must be at least one for each suite.
func (s *service) checkNoKeys(t *testing.T) {
	t.Helper()
	answers := s.record.answers()
	if found := s.found(answers); found < len(s.suites) {
		t.Errorf("%d key packages went over the recorded socket, want one a suite: keys would not be found either", found)
	}
	s.search(t, "an answer of the service", answers)
	files, err := filepath.Glob(filepath.Join(s.out, "*"))
	if err != nil || len(files) < len(s.suites) {
		t.Errorf("the adapter left %d files (%v), want one a suite", len(files), err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s.search(t, filepath.Base(path), b)
	}
}

// found returns how many key packages are in what was recorded.
func (s *service) found(hay []byte) (n int) {
	all := forms(hay)
	for _, public := range s.public {
		if slices.ContainsFunc(all, func(form []byte) bool { return bytes.Contains(form, public) }) {
			n++
		}
	}
	return n
}

func (s *service) search(t *testing.T, where string, hay []byte) {
	t.Helper()
	for _, form := range forms(hay) {
		for _, n := range s.needles {
			if bytes.Contains(form, n.bytes) {
				t.Errorf("%s has the %s", where, n.what)
			}
		}
	}
}

// entry is an entry of `hsm-kp audit show --json`.
type entry struct {
	Actor, Act, Identity, Detail string
	Ref                          string `json:"key_package_ref"`
}

func (s *service) trail(t *testing.T) []entry {
	t.Helper()
	var all []entry
	for line := range bytes.Lines(s.on.Run("audit", "show", "--json")) {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

// checkTrail checks that the service did what the member of each suite needs: it opened two
// Welcomes and consumed their key packages, over TLS and over the socket, decrypted with the leaf's
// key, and signed under each of labels.
func (s *service) checkTrail(t *testing.T, labels ...string) {
	t.Helper()
	trail := s.trail(t)
	for _, suite := range s.suites {
		count := make(map[string]int)
		for _, e := range trail {
			if e.Identity != nameOf(suite) {
				continue
			}
			if e.Act == "refused" {
				t.Errorf("suite %s: refused: %+v", suite, e)
			}
			count[e.Act]++
			count[e.Act+" "+e.Detail]++
			count[e.Act+" by "+e.Actor]++
		}
		if count["opened"] < 2 || count["consumed"] < 2 || count["decrypted"] < 2 {
			t.Errorf("suite %s: opened %d, consumed %d, decrypted %d times, want 2, 2 and 2 at least",
				suite, count["opened"], count["consumed"], count["decrypted"])
		}
		if count["consumed by uri:"+memberURI] != 1 || count["claimed by uri:"+memberURI] != 0 {
			t.Errorf("suite %s: the member over TLS consumed %d and claimed %d, want 1 and 0", suite, count["consumed by uri:"+memberURI], count["claimed by uri:"+memberURI])
		}
		for _, label := range labels {
			if count["signed "+label] < 2 {
				t.Errorf("suite %s: signed %d times with %s, want 2 at least", suite, count["signed "+label], label)
			}
		}
	}
}

// environment returns the variables for an adapter's own test: see integrations/README.md.
func (s *service) environment() []string {
	return append(os.Environ(),
		"HSM_KP_TEST_URL="+s.url, "HSM_KP_TEST_SOCKET="+s.recorded, "HSM_KP_TEST_CA="+s.path("ca.pem"),
		"HSM_KP_TEST_MEMBER_CERTIFICATE="+s.path("member.pem"), "HSM_KP_TEST_MEMBER_KEY="+s.path("member.key"),
		"HSM_KP_TEST_ADDER_CERTIFICATE="+s.path("adder.pem"), "HSM_KP_TEST_ADDER_KEY="+s.path("adder.key"),
		"HSM_KP_TEST_DIRECTORY="+s.directory.URL, "HSM_KP_TEST_SUITES="+strings.Join(s.suites, " "), "HSM_KP_TEST_OUT="+s.out,
	)
}

// runIn runs commands in the folder of an adapter. If the tool is missing, it skips the test, or
// fails it under CI=true.
func runIn(t *testing.T, adapter string, environment []string, commands ...[]string) {
	t.Helper()
	if _, err := exec.LookPath(commands[0][0]); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s: %v, and CI must have it", adapter, err)
		}
		t.Skipf("%s: %v", adapter, err)
	}
	for _, args := range commands {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir, cmd.Env = filepath.Join(program.Root(), "integrations", adapter), slices.Clip(environment)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %s: %v\n%s", adapter, strings.Join(args, " "), err, out)
		}
		t.Logf("%s: %s\n%s", adapter, strings.Join(args, " "), out)
	}
}
