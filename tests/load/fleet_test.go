// Package load tests hsm-kp under load, as processes: several `hsm-kp serve` over one PostgreSQL
// and one token, and clients over mutual TLS. It prints a table of requirements and measurements,
// kills one process of three, and stops the database, in the middle of everything.
package load

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/api/hsmkp/v1/hsmkpv1connect"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// fleet is several services over one installation, and their clients.
type fleet struct {
	t        testing.TB
	on       *program.Installation
	ca       *certificatetest.CA
	dir      string
	services []*service
	clients  []*client
	prober   *http.Client
}

// service is a `hsm-kp serve` that may be killed and restarted.
type service struct {
	t    testing.TB
	on   *program.Installation
	addr string
	log  string
	cmd  *exec.Cmd
	// ended receives the process's error when it has ended.
	ended chan error
	// watchdog kills the service when this process ends, in whatever way.
	watchdog *exec.Cmd
}

// client is a caller with a certificate and connections of its own.
type client struct {
	uri  string
	http *http.Client
	apis []hsmkpv1connect.KeyPackageServiceClient // by service
	refs []ref                                    // the key packages that it claimed
	// unanswered counts requests with an unknown outcome.
	unanswered int
}

// onPostgres moves a fresh installation's store into a database.
func onPostgres(on *program.Installation, url string) {
	on.Run("store", "migrate", "--to", url)
	on.Edit(`url: "sqlite:hsm-kp.db"`, fmt.Sprintf("url: %q", url))
}

// newFleet starts services over an installation, each ready and with a config of its own, and makes
// clients that may do everything.
func newFleet(t testing.TB, on *program.Installation, services, clients int) *fleet {
	t.Helper()
	f := &fleet{t: t, on: on, ca: certificatetest.NewRoot(t), dir: t.TempDir()}
	server := f.issue(func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
	key, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	f.writePEM("server.pem", "CERTIFICATE", server.Certificate[0])
	f.writePEM("server.key", "PRIVATE KEY", key)
	f.writePEM("ca.pem", "CERTIFICATE", f.ca.Certificate.Raw)
	for i := range clients {
		f.clients = append(f.clients, f.newClient(fmt.Sprintf("spiffe://example.com/client/%d", i)))
	}
	f.prober = f.newClient("spiffe://example.com/prober").http
	t.Cleanup(f.end)
	for i := range services {
		s := &service{t: t, on: on.By(fmt.Sprintf("serve-%d.yaml", i)), addr: program.FreeAddress(t), log: filepath.Join(f.dir, fmt.Sprintf("serve-%d.log", i))}
		f.configure(s)
		f.services = append(f.services, s)
		for _, c := range f.clients {
			c.apis = append(c.apis, hsmkpv1connect.NewKeyPackageServiceClient(c.http, "https://"+s.addr))
		}
		f.start(s)
	}
	return f
}

// configure writes the config of a service: that of the installation, and its grants.
func (f *fleet) configure(s *service) {
	f.t.Helper()
	text, err := os.ReadFile(f.on.ConfigPath())
	if err != nil {
		f.t.Fatal(err)
	}
	var uris []string
	for _, c := range f.clients {
		uris = append(uris, c.uri)
	}
	text = fmt.Appendf(text, `
server:
  listen: ["tcp:%s"]
  tls: {certificate: %q, key: %q, client_ca: %q}
  callers:
    clients:
      uris: [%s]
      identities: ["*"]
      operations: [generate, list, get, claim, open_welcome, confirm_welcome, release_welcome, sign_with_label]
`, s.addr, filepath.Join(f.dir, "server.pem"), filepath.Join(f.dir, "server.key"), filepath.Join(f.dir, "ca.pem"), strings.Join(uris, ", "))
	if err := os.WriteFile(s.on.ConfigPath(), text, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) writePEM(name, kind string, der []byte) {
	f.t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) issue(change certificatetest.Change) tls.Certificate {
	f.t.Helper()
	key := certificatetest.NewKey(f.t)
	c := f.ca.Issue(f.t, key.Public(), func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		c.KeyUsage = x509.KeyUsageDigitalSignature
	}, change)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}
}

func (f *fleet) newClient(uri string) *client {
	f.t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		f.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(f.ca.Certificate)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(*version == 1)
	protocols.SetHTTP2(*version == 2)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{
		RootCAs: roots, Certificates: []tls.Certificate{f.issue(func(c *x509.Certificate) { c.URIs = []*url.URL{u} })},
	}}
	f.t.Cleanup(transport.CloseIdleConnections)
	return &client{uri: uri, http: &http.Client{Transport: transport, Timeout: patience}}
}

// start starts a service and waits until it is ready. If it ends because SoftHSM was busy with
// another login, start starts it again, as a service manager does.
func (f *fleet) start(s *service) {
	f.t.Helper()
	s.start()
	for deadline := time.Now().Add(patience); !f.ready(s); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("a service is not ready:\n%s", s.complaints())
		}
		select {
		case err := <-s.ended:
			s.unwatch()
			if last := s.complaints(); !strings.Contains(last, busyToken) {
				f.t.Fatalf("serve err = %v:\n%s", err, last)
			}
			s.start()
		default:
		}
	}
}

// busyToken is the error of SoftHSM while another process logs in.
const busyToken = "C_GetTokenInfo: CKR_GENERAL_ERROR"

func (s *service) start() {
	s.t.Helper()
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd = s.on.Command("serve")
	s.cmd.Stderr = log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.ended = make(chan error, 1)
	go func() { s.ended <- s.cmd.Wait() }()
	s.watch()
}

// watch starts the watchdog.
func (s *service) watch() {
	s.watchdog = exec.Command("/bin/sh", "-c", `cat >/dev/null; kill -KILL "$1"`, "sh", strconv.Itoa(s.cmd.Process.Pid))
	s.watchdog.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	_, err := s.watchdog.StdinPipe() // the pipe closes when this process ends
	if err == nil {
		err = s.watchdog.Start()
	}
	if err != nil {
		s.cmd.Process.Kill()
		s.t.Fatal(err)
	}
}

func (s *service) unwatch() {
	s.watchdog.Process.Kill()
	s.watchdog.Wait() // the status is that of the kill
	s.watchdog = nil
}

// stop sends a signal to a service and returns how it ended.
func (s *service) stop(signal syscall.Signal) error {
	if s.watchdog == nil {
		return nil // it ended before it was ready, which was reported
	}
	if err := s.cmd.Process.Signal(signal); err != nil {
		s.t.Errorf("signal a service: %v", err)
	}
	err := <-s.ended
	s.unwatch()
	return err
}

// end stops all services as a service manager does.
func (f *fleet) end() {
	for _, s := range f.services {
		if err := s.stop(syscall.SIGTERM); err != nil {
			f.t.Errorf("serve err = %v, want nil", err)
		}
		if f.t.Failed() {
			f.t.Logf("%s complains:\n%s", s.addr, s.complaints())
		}
	}
	f.services = nil
}

// warnings returns the lines of a service's log above INFO.
func (s *service) warnings() (lines []string) {
	text, err := os.ReadFile(s.log)
	if err != nil {
		s.t.Error(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, `"level":"INFO"`) {
			lines = append(lines, line)
		}
	}
	return lines
}

// complaints returns the last warnings.
func (s *service) complaints() string {
	lines := s.warnings()
	return strings.Join(lines[max(0, len(lines)-5):], "")
}

// ready queries /readyz.
func (f *fleet) ready(s *service) bool {
	r, err := f.prober.Get("https://" + s.addr + "/readyz")
	if err != nil {
		return false
	}
	r.Body.Close()
	return r.StatusCode == http.StatusOK
}

// The answers of grpc.health.v1 in protobuf: field 1, ServingStatus.
var (
	serving    = []byte{0x08, 1}
	notServing = []byte{0x08, 2}
)

// health queries grpc.health.v1 about the whole service.
func (f *fleet) health(s *service) []byte {
	r, err := f.prober.Post("https://"+s.addr+"/grpc.health.v1.Health/Check", "application/proto", http.NoBody)
	if err != nil {
		return nil
	}
	defer r.Body.Close()
	answer, _ := io.ReadAll(r.Body) // a truncated answer matches none of them
	return answer
}

// connect makes every client's connections, so that they are not part of the measurement.
func (f *fleet) connect() {
	f.t.Helper()
	for _, c := range f.clients {
		for _, s := range f.services {
			r, err := c.http.Get("https://" + s.addr + "/healthz")
			if err != nil {
				f.t.Fatal(err)
			}
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
			if r.ProtoMajor != *version {
				f.t.Fatalf("a client speaks %s, want HTTP/%d", r.Proto, *version)
			}
		}
	}
}

// answered returns which client got which key package. It fails if two got the same.
func (f *fleet) answered() map[ref]*client {
	f.t.Helper()
	all := make(map[ref]*client, len(f.clients)*1000)
	for _, c := range f.clients {
		for _, r := range c.refs {
			if before := all[r]; before != nil {
				f.t.Errorf("key package %x was handed out twice, to %s and to %s", r, before.uri, c.uri)
			}
			all[r] = c
		}
	}
	return all
}

// actor returns the client's name in the trail.
func (c *client) actor() string { return "uri:" + c.uri }

// pids returns the services' process ids.
func (f *fleet) pids() (pids []int) {
	for _, s := range f.services {
		pids = append(pids, s.cmd.Process.Pid)
	}
	return slices.Clip(pids)
}
