// Package status examines `hsm-kp serve` as operators do: its metrics, as Prometheus scrapes them,
// and its page, in a browser.
package status

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// service is a running `hsm-kp serve` that is observed.
type service struct {
	*program.Installation
	t    *testing.T
	addr string // of server.observe.listen
	dir  string
}

// fleet lists identities by suite, with the number of key packages and the days after which they
// end. Those with a star are in a directory.
var fleet = []struct{ name, suite, packages string }{
	{"alice@example.com", "2", "24:60 18:40*"},
	{"bob@example.com", "2", "2:84 4:35 4:41 4:47 4:53 4:59 4:66 4:72"},
	{"gateway-fra-1", "7", "12:6 5:80"},
	{"gateway-fra-2", "7", "40:50*"},
	{"kiosk-0042", "2", ""},
	{"relay-eu-1", "1", "25:30 10:10 3:36* 3:43* 3:48* 3:57* 3:61* 3:67*"},
	{"relay-eu-2", "1", "6:70"},
	{"relay-us-1", "5", "28:77* 9:20"},
}

// install makes an installation without identities.
func install(t *testing.T) *service {
	t.Helper()
	return &service{Installation: program.Install(t), t: t, addr: program.FreeAddress(t), dir: t.TempDir()}
}

// populate makes an installation with the fleet, and a gateway with a certificate.
func populate(t *testing.T) *service {
	t.Helper()
	s := install(t)
	for _, f := range fleet {
		s.Run("identity", "create", f.name, "--suite", f.suite)
		for _, part := range strings.Fields(f.packages) {
			part, published := strings.CutSuffix(part, "*")
			n, days, _ := strings.Cut(part, ":")
			args := []string{"generate", "--identity", f.name, "--count", n, "--lifetime", days + "d"}
			if published {
				args = append(args, "--out", filepath.Join(s.dir, "spool"))
			}
			s.Run(args...)
		}
	}
	s.certify("gateway-cdg-1", 17)
	s.Run("generate", "--identity", "gateway-cdg-1", "--count", "22")
	return s
}

// certify makes an identity with a certificate that ends after the given number of days.
func (s *service) certify(name string, days int) {
	s.t.Helper()
	ca := certificatetest.NewRoot(s.t)
	s.write("roots.pem", ca.Certificate.Raw)
	s.Append("x509:\n  roots: " + filepath.Join(s.dir, "roots.pem"))
	s.Run("identity", "create", name, "--x509")
	block, _ := pem.Decode(s.Run("identity", "csr", name))
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		s.t.Fatal(err)
	}
	end := func(c *x509.Certificate) {
		c.NotAfter = time.Now().Add(time.Duration(days)*24*time.Hour + 12*time.Hour)
	}
	s.write("chain.pem", ca.Issue(s.t, request.PublicKey, end).Raw)
	s.Run("identity", "import-cert", name, filepath.Join(s.dir, "chain.pem"))
}

func (s *service) write(name string, der []byte) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// serve runs the service until the test ends.
func (s *service) serve() {
	s.t.Helper()
	path := filepath.Join(s.Dir, "hsm-kp.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	text = fmt.Appendf(text, `
server:
  listen: ["unix:%s"]
  callers:
    local: {uids: [%d], identities: ["*"], operations: [generate, list, claim, sign_with_label]}
  observe: {listen: ["tcp:%s", "unix:%s"], interval: 1s}
`, s.socket("api"), os.Getuid(), s.addr, s.socket("observe"))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		s.t.Fatal(err)
	}
	cmd := s.Command("serve")
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || s.t.Failed() {
			s.t.Errorf("serve ended with %v:\n%s", err, log.String())
		}
	}))
	for deadline := time.Now().Add(program.Patience); ; time.Sleep(20 * time.Millisecond) {
		if r, err := http.Get("http://" + s.addr + "/readyz"); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("not ready after %v", program.Patience)
		}
	}
}

func (s *service) socket(name string) string { return filepath.Join(s.dir, name+".sock") }

// over returns a client over one of the Unix sockets.
func (s *service) over(socket string) *http.Client { return program.Local(s.socket(socket)) }

// call calls the API and returns the status.
func (s *service) call(method, body string) int {
	s.t.Helper()
	r, err := s.over("api").Post("http://local/hsmkp.v1.KeyPackageService/"+method, "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	return r.StatusCode
}

// get returns a page of the local listener.
func (s *service) get(path string) (status int, text string) {
	s.t.Helper()
	r, err := http.Get("http://" + s.addr + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	data, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.StatusCode, string(data)
}

// scrape returns all metrics, keyed by name and labels as written.
func (s *service) scrape() map[string]float64 {
	s.t.Helper()
	_, text := s.get("/metrics")
	out := make(map[string]float64)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
		if err != nil {
			s.t.Fatalf("metric %q: %v", line, err)
		}
		out[line[:i]] = v
	}
	return out
}

// tool finds a program that CI must have, but a laptop may lack.
func tool(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed, and CI must have it", names[0])
	}
	t.Skipf("%s is not installed", names[0])
	return ""
}
