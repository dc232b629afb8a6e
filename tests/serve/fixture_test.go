// Package serve tests `hsm-kp serve` with callers: a real process with a real token, over mutual
// TLS and a Unix socket, through gRPC and JSON over HTTP.
package serve

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/api/hsmkp/v1/hsmkpv1connect"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// service is a running `hsm-kp serve`.
type service struct {
	t    *testing.T
	on   *program.Installation
	ca   *certificatetest.CA
	dir  string
	addr string
	log  *program.Log
	stop func() error // sends SIGTERM and returns the process's error

	ended func() error // waits for the process and returns its error

	process *os.Process
}

// app is the caller with the most grants.
const app = "spiffe://example.com/app"

// settings are what a test changes in the config.
type settings struct {
	limits  string // of server.limits, in YAML
	callers string // more of server.callers, a line each
	tls     string // more of server.tls
	more    string // more of server
}

// start makes an installation with the identities alice and bob, and serves it.
func start(t *testing.T, changes ...func(*service, *settings)) *service {
	t.Helper()
	s := prepare(t, changes...)
	s.run()
	return s
}

// prepare makes the installation that start serves.
func prepare(t *testing.T, changes ...func(*service, *settings)) *service {
	t.Helper()
	program.RequireSoftHSM(t)
	s := &service{t: t, on: program.Install(t), ca: certificatetest.NewRoot(t), dir: t.TempDir()}
	s.on.Run("identity", "create", "alice")
	s.on.Run("identity", "create", "bob")
	server := s.issue(s.ca, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
	program.WriteTLS(t, filepath.Join(s.dir, "server"), server)
	program.WritePEM(t, filepath.Join(s.dir, "ca.pem"), "CERTIFICATE", s.ca.Certificate.Raw)
	s.addr = program.FreeAddress(t)
	with := settings{limits: "message_bytes: 65536, batch: 50"}
	for _, change := range changes {
		change(s, &with)
	}
	s.configure(with)
	return s
}

// allOperations is a list of all operations, in YAML.
const allOperations = "[generate, list, get, claim, publish, open_welcome, confirm_welcome, release_welcome, sign_with_label, decrypt_with_label]"

// configure writes the service's config.
func (s *service) configure(with settings) {
	s.t.Helper()
	path := filepath.Join(s.on.Dir, "hsm-kp.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	text = fmt.Appendf(text, `
server:
  listen: ["tcp:%s", "unix:%s"]
  tls: {certificate: %[3]q, key: %[4]q, client_ca: %[5]q%[9]s}
  callers:
    app: {uris: [%[6]q], identities: [ali*], operations: %[7]s}
    few: {dns_names: [few.example.com], identities: [alice], operations: [claim, list, publish], quota: 2, period: 1h}
    watch: {uris: ["spiffe://example.com/prometheus"], identities: ["*"], operations: [metrics, status]}
    local: {uids: [%[8]d], identities: ["*"], operations: %[7]s}
%[10]s
  limits: {%[11]s}
%[12]s
`, s.addr, s.socket(), filepath.Join(s.dir, "server.pem"), filepath.Join(s.dir, "server.key"), filepath.Join(s.dir, "ca.pem"),
		app, allOperations, os.Getuid(), with.tls, with.callers, with.limits, with.more)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) socket() string { return filepath.Join(s.dir, "s.sock") }

// run starts the process, and waits until it is ready.
func (s *service) run() {
	s.t.Helper()
	s.runAs(s.on.Command("serve"))
}

// runAs starts the process with a command, and waits until it is ready.
func (s *service) runAs(cmd *exec.Cmd) {
	s.t.Helper()
	r := program.Serve(s.t, cmd, s.socket())
	s.log, s.stop, s.ended, s.process = &r.Log, r.Stop, r.Ended, r.Process
}

func (s *service) issue(ca *certificatetest.CA, changes ...certificatetest.Change) tls.Certificate {
	s.t.Helper()
	return program.IssueTLS(s.t, ca, changes...)
}

// withURI names a certificate.
func withURI(uri string) certificatetest.Change {
	return func(c *x509.Certificate) {
		if u, err := url.Parse(uri); err == nil {
			c.URIs = []*url.URL{u}
		}
	}
}

// local returns a client over the Unix socket.
func (s *service) local() *http.Client { return program.Local(s.socket()) }

// remote returns a client over TLS, with or without a certificate.
func (s *service) remote(certificates ...tls.Certificate) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(s.ca.Certificate)
	t := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certificates}}
	s.t.Cleanup(t.CloseIdleConnections)
	return &http.Client{Timeout: program.Patience, Transport: t}
}

// api returns the API for a client, through gRPC.
func (s *service) api(c *http.Client) hsmkpv1connect.KeyPackageServiceClient {
	return hsmkpv1connect.NewKeyPackageServiceClient(c, "https://"+s.addr, connect.WithGRPC())
}

// asApp returns the API for the caller with the most grants.
func (s *service) asApp() hsmkpv1connect.KeyPackageServiceClient {
	return s.api(s.remote(s.issue(s.ca, withURI(app))))
}

// post sends a request in JSON, and returns the status and the answer.
func (s *service) post(c *http.Client, base, method, body string) (int, map[string]any) {
	s.t.Helper()
	r, err := c.Post(base+"/hsmkp.v1.KeyPackageService/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatalf("POST %s: %v", method, err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(data, &answer); err != nil {
		s.t.Fatalf("POST %s: %d %q: %v", method, r.StatusCode, data, err)
	}
	return r.StatusCode, answer
}

// wantReason checks how a request was refused.
func wantReason(t *testing.T, what string, err error, code connect.Code, reason hsmkpv1.Reason) {
	t.Helper()
	e := new(connect.Error)
	if got := connect.CodeOf(err); err == nil || got != code {
		t.Errorf("%s: err = %v, want code %v", what, err, code)
		return
	}
	if !asError(err, &e) || len(e.Details()) != 1 {
		t.Errorf("%s: err = %v, want one detail", what, err)
		return
	}
	d, err := e.Details()[0].Value()
	if err != nil {
		t.Fatal(err)
	}
	if got := d.(*hsmkpv1.ErrorDetail).GetReason(); got != reason {
		t.Errorf("%s: reason = %v, want %v", what, got, reason)
	}
}

func randomBytes(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}
