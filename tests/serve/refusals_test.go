package serve

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/tests/program"
)

// revoke writes the revocation list of the service's CA.
func (s *service) revoke(until time.Time, revoked ...tls.Certificate) {
	s.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-48 * time.Hour), NextUpdate: until}
	for _, r := range revoked {
		c, err := x509.ParseCertificate(r.Certificate[0])
		if err != nil {
			s.t.Fatal(err)
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, s.ca.Certificate, s.ca.Key)
	if err != nil {
		s.t.Fatal(err)
	}
	program.WritePEM(s.t, filepath.Join(s.dir, "ca.crl"), "X509 CRL", der)
}

func withCRL(s *service, with *settings) {
	s.revoke(time.Now().Add(time.Hour))
	with.tls = ", crl: " + strconv.Quote(filepath.Join(s.dir, "ca.crl"))
}

func list(t *testing.T, s *service, c ...tls.Certificate) error {
	t.Helper()
	_, err := s.api(s.remote(c...)).List(t.Context(), connect.NewRequest(&hsmkpv1.ListRequest{Identity: "alice"}))
	return err
}

// unconnected reports whether a request failed before it got an answer.
func unconnected(err error) bool { return err != nil && !connect.IsWireError(err) }

func TestWhoHasNoGoodCertificateIsRefused(t *testing.T) {
	s := start(t, withCRL)
	for what, c := range map[string][]tls.Certificate{
		"no certificate":                                 nil,
		"a certificate of an unknown CA":                 {s.issue(certificatetest.NewRoot(t), withURI(app))},
		"a certificate that is expired or not yet valid": {s.issue(s.ca, withURI(app), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })},
	} {
		if err := list(t, s, c...); !unconnected(err) {
			t.Errorf("%s: err = %v, want no connection", what, err)
		}
		s.checkTrail("nobody", "refused", "connect: "+what)
	}
	early := s.issue(s.ca, withURI(app), func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })
	if err := list(t, s, early); !unconnected(err) {
		t.Errorf("not yet valid: err = %v, want no connection", err)
	}
}

// A new revocation list applies from the next connection after SIGHUP.
func TestARevokedCertificateIsRefused(t *testing.T) {
	s := start(t, withCRL)
	good, bad := s.issue(s.ca, withURI(app)), s.issue(s.ca, withURI(app))
	if err := errors.Join(list(t, s, good), list(t, s, bad)); err != nil {
		t.Fatal(err)
	}
	reload := func(until time.Time) {
		t.Helper()
		s.revoke(until, bad)
		if err := s.process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	reload(time.Now().Add(time.Hour))
	s.until("a revoked certificate is refused", func() bool { return unconnected(list(t, s, bad)) })
	s.until("the log says that they were read", func() bool { return strings.Contains(s.log.String(), `"msg":"certificates reloaded"`) })
	if err := list(t, s, good); err != nil {
		t.Errorf("another certificate of the CA: %v", err)
	}
	s.checkTrail("nobody", "refused", "connect: a revoked certificate")
	reload(time.Now().Add(-time.Hour))
	s.until("a stale list refuses all", func() bool { return unconnected(list(t, s, good)) })
	s.checkTrail("nobody", "refused", "connect: the revocation list is out of date")
}

// until waits until a condition is true.
func (s *service) until(what string, f func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(program.Patience); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("not in %v: %s", program.Patience, what)
		}
	}
}

func TestWhoIsNotGrantedIsRefused(t *testing.T) {
	s := start(t)
	stranger := s.api(s.remote(s.issue(s.ca, withURI("spiffe://example.com/other"))))
	_, err := stranger.List(t.Context(), connect.NewRequest(&hsmkpv1.ListRequest{Identity: "alice"}))
	wantReason(t, "a stranger", err, connect.CodePermissionDenied, hsmkpv1.Reason_REASON_NOT_GRANTED)
	s.checkTrail("uri:spiffe://example.com/other", "refused", "list: this is not granted to the caller")

	api := s.asApp()
	for _, name := range []string{"bob", "nobody", "", strings.Repeat("x", 60000)} {
		_, err := api.Claim(t.Context(), connect.NewRequest(&hsmkpv1.ClaimRequest{Identity: name}))
		wantReason(t, "another identity", err, connect.CodePermissionDenied, hsmkpv1.Reason_REASON_NOT_GRANTED)
	}
	s.checkTrail("uri:"+app, "refused", "claim: this is not granted to the caller")
	_, err = api.Get(t.Context(), connect.NewRequest(&hsmkpv1.GetRequest{Ref: make([]byte, 32)}))
	wantReason(t, "a ref that is not there", err, connect.CodePermissionDenied, hsmkpv1.Reason_REASON_NOT_GRANTED)
	if log := s.log.String(); strings.Contains(log, "xxxxxxxx") {
		t.Error("the log has the name that a caller gave")
	}
}

func TestALongRequestIsRefused(t *testing.T) {
	s := start(t)
	body := `{"identity":"alice","welcome":"` + strings.Repeat("A", 70000) + `"}`
	client := s.remote(s.issue(s.ca, withURI(app)))
	status, answer := s.post(client, "https://"+s.addr, "OpenWelcome", body)
	if status != http.StatusTooManyRequests || answer["code"] != "resource_exhausted" {
		t.Errorf("in JSON: %d %v, want resource_exhausted", status, answer)
	}
	s.checkTrail("uri:"+app, "refused", "open_welcome: the request is too long")
	_, err := s.asApp().SignWithLabel(t.Context(), connect.NewRequest(&hsmkpv1.SignWithLabelRequest{Identity: "alice", Content: make([]byte, 70000)}))
	if connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("by gRPC: err = %v, want %v", err, connect.CodeResourceExhausted)
	}
	s.checkTrail("uri:"+app, "refused", "sign_with_label: the request is too long")
}

func TestTooManyRequestsASecondAreRefused(t *testing.T) {
	const hasty = "spiffe://example.com/hasty"
	s := start(t, func(_ *service, with *settings) {
		with.callers = "    hasty: {uris: [" + hasty + "], identities: [alice], operations: [list], per_second: 1, burst: 2}\n"
		with.limits += ", per_second: 5, burst: 40"
	})
	client := s.remote(s.issue(s.ca, withURI(hasty)))
	// However slow the machine is, no more come through than the burst, and what the time that
	// went by allows. If each request takes longer than the next one has to wait, none is refused.
	refused := func(c *http.Client, base string, perSecond, burst float64) *http.Response {
		t.Helper()
		begun, through := time.Now(), 0.0
		for ; through <= burst+perSecond*time.Since(begun).Seconds() && time.Since(begun) < program.Patience; through++ {
			r, err := c.Post(base+"/hsmkp.v1.KeyPackageService/List", "application/json", strings.NewReader(`{"identity":"alice"}`))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(r.Body)
			r.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != http.StatusOK {
				if !strings.Contains(string(body), "resource_exhausted") || !strings.Contains(string(body), "too many requests a second") {
					t.Errorf("refused with %s", body)
				}
				return r
			}
		}
		t.Fatalf("%v requests in %v were let through, want %v and %v a second at most", through, time.Since(begun), burst, perSecond)
		return nil
	}
	if r := refused(client, "https://"+s.addr, 1, 2); r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") != "1" {
		t.Errorf("refused with %d, Retry-After %q, want 429 and 1", r.StatusCode, r.Header.Get("Retry-After"))
	}
	s.checkTrail("uri:"+hasty, "refused", "list: too many requests a second")
	if err := list(t, s, s.issue(s.ca, withURI(app))); err != nil {
		t.Errorf("another caller meanwhile: %v", err)
	}
	stranger := s.issue(s.ca, withURI("spiffe://example.com/other"))
	for range 60 { // which uses up nothing of granted callers
		_ = list(t, s, stranger)
	}
	if err := list(t, s, s.issue(s.ca, withURI(app))); err != nil {
		t.Errorf("a caller after many who are not granted: %v", err)
	}
	refused(s.local(), "http://local", 5, 40)
	s.checkTrail("uid:"+strconv.Itoa(os.Getuid()), "refused", "list: too many requests a second")
}

// A client that sends nothing, or sends slowly, is cut off, and others are served.
func TestASlowClientIsCutOff(t *testing.T) {
	s := start(t, func(_ *service, with *settings) { with.limits += ", read: 2s" })
	certificate := s.issue(s.ca, withURI(app))
	dial := func(protocol string) net.Conn {
		t.Helper()
		c := s.remote(certificate).Transport.(*http.Transport).TLSClientConfig.Clone()
		c.NextProtos = []string{protocol}
		conn, err := (&tls.Dialer{Config: c}).DialContext(context.Background(), "tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	silent, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	header, body := dial("http/1.1"), dial("http/1.1")
	for c, text := range map[net.Conn]string{
		header: "POST /hsmkp.v1.KeyPackageService/List HTTP/1.1\r\nHost: a\r\n",
		body:   "POST /hsmkp.v1.KeyPackageService/List HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
	} {
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := list(t, s, certificate); err != nil {
		t.Errorf("another request meanwhile: %v", err)
	}
	begun := time.Now()
	half, rest := io.Pipe() // over HTTP/2
	go rest.Write([]byte("{"))
	client := s.remote(certificate)
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+s.addr+"/hsmkp.v1.KeyPackageService/Claim", half)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Content-Type", "application/json")
	if r, err := client.Do(q); err == nil {
		if r.Body.Close(); r.StatusCode == http.StatusOK || r.ProtoMajor != 2 {
			t.Errorf("half a body over HTTP/2: %s %s, want no success", r.Proto, r.Status)
		}
	}
	if took := time.Since(begun); took > 20*time.Second { // by default it would be half a minute
		t.Errorf("half a body over HTTP/2: cut off after %v, want about 2 s", took)
	}
	for what, c := range map[string]net.Conn{"no handshake": silent, "half a header": header, "half a body": body} {
		if err := c.SetReadDeadline(begun.Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err := io.Copy(io.Discard, c)
		if took := time.Since(begun); errors.Is(err, os.ErrDeadlineExceeded) || took > 20*time.Second {
			t.Errorf("%s: cut off after %v (%v), want about 5 s", what, took, err)
		}
	}
	s.checkTrail("nobody", "refused", "connect: no handshake in time")
	s.checkTrail("uri:"+app, "refused", "connect: the request did not arrive in time")
	s.checkTrail("uri:"+app, "refused", "list: the request did not arrive in time")
	s.checkTrail("uri:"+app, "refused", "claim: the request did not arrive in time")
}

// Connections beyond the limit wait until others end, and use no file descriptor meanwhile.
func TestConnectionsAreLimited(t *testing.T) {
	s := start(t, func(_ *service, with *settings) { with.limits += ", connections: 8" })
	files := func() int {
		entries, err := os.ReadDir("/proc/" + strconv.Itoa(s.process.Pid) + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := files()
	for range 50 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	s.until("the log says that others wait", func() bool { return strings.Contains(s.log.String(), "connections: others wait") })
	if got := files(); got > before+8+4 {
		t.Errorf("%d files were opened for 50 connections that say nothing, want 8", got-before)
	}
	begun := time.Now()
	status, _ := s.post(s.local(), "http://local", "List", `{"identity":"alice"}`)
	if took := time.Since(begun); status != http.StatusOK || took > 4*time.Second {
		t.Errorf("over the Unix socket meanwhile: %d after %v, want 200 at once", status, took)
	}
}
