package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/api/hsmkp/v1/hsmkpv1connect"
	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/client"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/keypackage/keypackagetest"
)

var _ hpke.PrivateKey = (*client.PrivateKey)(nil)

// faulty is a service on a Unix socket that answers its first requests with an error, and the
// others with an empty message. tests/integrations calls the real service.
type faulty struct {
	hsmkpv1connect.UnimplementedKeyPackageServiceHandler
	asked  atomic.Int32
	faults int32 // how many requests fail
	fault  func() error
}

func answer[In, Out any](f *faulty, _ *connect.Request[In]) (*connect.Response[Out], error) {
	if f.asked.Add(1) <= f.faults {
		return nil, f.fault()
	}
	return connect.NewResponse(new(Out)), nil
}

func (f *faulty) Generate(_ context.Context, r *connect.Request[hsmkpv1.GenerateRequest]) (*connect.Response[hsmkpv1.GenerateResponse], error) {
	return answer[hsmkpv1.GenerateRequest, hsmkpv1.GenerateResponse](f, r)
}

func (f *faulty) List(_ context.Context, r *connect.Request[hsmkpv1.ListRequest]) (*connect.Response[hsmkpv1.ListResponse], error) {
	return answer[hsmkpv1.ListRequest, hsmkpv1.ListResponse](f, r)
}

func (f *faulty) Get(_ context.Context, r *connect.Request[hsmkpv1.GetRequest]) (*connect.Response[hsmkpv1.GetResponse], error) {
	return answer[hsmkpv1.GetRequest, hsmkpv1.GetResponse](f, r)
}

func (f *faulty) Claim(_ context.Context, r *connect.Request[hsmkpv1.ClaimRequest]) (*connect.Response[hsmkpv1.ClaimResponse], error) {
	return answer[hsmkpv1.ClaimRequest, hsmkpv1.ClaimResponse](f, r)
}

func (f *faulty) OpenWelcome(_ context.Context, r *connect.Request[hsmkpv1.OpenWelcomeRequest]) (*connect.Response[hsmkpv1.OpenWelcomeResponse], error) {
	return answer[hsmkpv1.OpenWelcomeRequest, hsmkpv1.OpenWelcomeResponse](f, r)
}

func (f *faulty) ConfirmWelcome(_ context.Context, r *connect.Request[hsmkpv1.ConfirmWelcomeRequest]) (*connect.Response[hsmkpv1.ConfirmWelcomeResponse], error) {
	return answer[hsmkpv1.ConfirmWelcomeRequest, hsmkpv1.ConfirmWelcomeResponse](f, r)
}

func (f *faulty) ReleaseWelcome(_ context.Context, r *connect.Request[hsmkpv1.ReleaseWelcomeRequest]) (*connect.Response[hsmkpv1.ReleaseWelcomeResponse], error) {
	return answer[hsmkpv1.ReleaseWelcomeRequest, hsmkpv1.ReleaseWelcomeResponse](f, r)
}

func (f *faulty) SignWithLabel(_ context.Context, r *connect.Request[hsmkpv1.SignWithLabelRequest]) (*connect.Response[hsmkpv1.SignWithLabelResponse], error) {
	return answer[hsmkpv1.SignWithLabelRequest, hsmkpv1.SignWithLabelResponse](f, r)
}

func (f *faulty) DecryptWithLabel(_ context.Context, r *connect.Request[hsmkpv1.DecryptWithLabelRequest]) (*connect.Response[hsmkpv1.DecryptWithLabelResponse], error) {
	return answer[hsmkpv1.DecryptWithLabelRequest, hsmkpv1.DecryptWithLabelResponse](f, r)
}

// serve serves f at a Unix socket, and returns a client.
func (f *faulty) serve(t *testing.T, change func(*client.Options)) *client.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "hsm-kp") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s.sock"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(hsmkpv1connect.NewKeyPackageServiceHandler(f))
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	o := client.Options{URL: "unix:" + l.Addr().String()}
	change(&o)
	return open(t, o)
}

func open(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Open(o)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func refusal(code connect.Code, reason hsmkpv1.Reason) func() error {
	return func() error {
		e := connect.NewError(code, errors.New("for a reason"))
		if d, err := connect.NewErrorDetail(&hsmkpv1.ErrorDetail{Reason: reason}); err == nil {
			e.AddDetail(d)
		}
		return e
	}
}

// made is a key package in software.
func made(t *testing.T) *keypackage.KeyPackage {
	t.Helper()
	suite, _ := ciphersuite.Lookup(1)
	kp, _ := keypackagetest.Build(t, keypackagetest.Template(suite, "alice", keypackage.Lifetime{NotAfter: 1 << 40}), keypackagetest.NewSigner(t, suite))
	return kp
}

// operation is one of the service's.
type operation struct {
	repeated bool // a repetition changes nothing
	call     func(*client.Client) error
}

func operations(t *testing.T) map[string]operation {
	kp := &hsmkpv1.KeyPackage{Ref: make([]byte, 32), MlsMessage: made(t).Message()}
	return map[string]operation{
		"generate": {false, func(c *client.Client) error {
			_, err := c.Generate(t.Context(), &hsmkpv1.GenerateRequest{})
			return err
		}},
		"claim": {false, func(c *client.Client) error {
			_, err := c.Claim(t.Context(), "alice", 1)
			return err
		}},
		"confirm Welcome": {true, func(c *client.Client) error { return c.Confirm(t.Context(), client.Reservation{}) }},
		"release Welcome": {false, func(c *client.Client) error { return c.Release(t.Context(), client.Reservation{}) }},
		"list": {true, func(c *client.Client) error {
			_, _, err := c.List(t.Context(), &hsmkpv1.ListRequest{})
			return err
		}},
		"get": {true, func(c *client.Client) error {
			_, err := c.Get(t.Context(), make([]byte, 32))
			return err
		}},
		"open Welcome": {true, func(c *client.Client) error {
			_, _, err := c.OpenWelcome(t.Context(), &hsmkpv1.OpenWelcomeRequest{})
			return err
		}},
		"sign": {true, func(c *client.Client) error {
			_, err := c.Signer("alice").SignWithLabel(t.Context(), "LeafNodeTBS", nil)
			return err
		}},
		"decrypt": {true, func(c *client.Client) error {
			k, err := c.Keys(t.Context(), kp)
			if err == nil {
				_, err = k.Leaf.DecryptWithLabel(t.Context(), "UpdatePathNode", nil, nil, nil)
			}
			return err
		}},
	}
}

func TestOnlyWhatChangesNothingIsRepeated(t *testing.T) {
	for name, op := range operations(t) {
		f := &faulty{faults: 2, fault: refusal(connect.CodeUnavailable, hsmkpv1.Reason_REASON_TOKEN)}
		c := f.serve(t, func(*client.Options) {})
		err := op.call(c)
		want := int32(1)
		if op.repeated {
			want = 3
		}
		if got := f.asked.Load(); got != want || (err == nil) != op.repeated {
			t.Errorf("%s: asked %d times, err = %v, want %d times", name, got, err, want)
		}
		if !op.repeated && !errors.Is(err, client.ErrToken) {
			t.Errorf("%s: err = %v, want %v", name, err, client.ErrToken)
		}
	}
}

func TestRefusalsAreNotRepeated(t *testing.T) {
	for name, op := range operations(t) {
		f := &faulty{faults: 1, fault: refusal(connect.CodePermissionDenied, hsmkpv1.Reason_REASON_NOT_GRANTED)}
		err := op.call(f.serve(t, func(*client.Options) {}))
		if got := f.asked.Load(); got != 1 || !errors.Is(err, client.ErrNotGranted) {
			t.Errorf("%s: asked %d times, err = %v, want once, %v", name, got, err, client.ErrNotGranted)
		}
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Operation != name || e.Code != connect.CodePermissionDenied {
			t.Errorf("%s: err = %#v", name, err)
		}
	}
}

func TestRepetitionsEnd(t *testing.T) {
	f := &faulty{faults: 1 << 30, fault: refusal(connect.CodeUnavailable, hsmkpv1.Reason_REASON_STORE)}
	c := f.serve(t, func(o *client.Options) { o.Attempts = 2 })
	if _, err := c.Get(t.Context(), nil); !errors.Is(err, client.ErrStore) || f.asked.Load() != 2 {
		t.Errorf("Get() err = %v after %d times, want %v after two", err, f.asked.Load(), client.ErrStore)
	}
	c = f.serve(t, func(o *client.Options) { o.Attempts = 1 << 30; o.Timeout = 300 * time.Millisecond })
	begun := time.Now()
	_, err := c.Get(t.Context(), nil)
	if took := time.Since(begun); took > 20*time.Second || !errors.Is(err, client.ErrStore) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Get() err = %v after %v, want an end after 300 ms", err, took)
	}
}

func TestAServiceThatIsNotThereIsNoAnswer(t *testing.T) {
	c := open(t, client.Options{URL: "unix:" + filepath.Join(t.TempDir(), "none.sock"), Attempts: 1})
	if _, err := c.Claim(t.Context(), "alice", 1); !errors.Is(err, client.ErrNoAnswer) {
		t.Errorf("Claim() err = %v, want %v", err, client.ErrNoAnswer)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Get(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Get() err = %v, want %v", err, context.Canceled)
	}
}

// A reason of the API without an error here would print as a number.
func TestEachReasonHasAnError(t *testing.T) {
	all := []client.Reason{
		client.ErrNotGranted, client.ErrQuotaSpent, client.ErrBusy, client.ErrMalformed, client.ErrLabel, client.ErrForeignContent,
		client.ErrNotFound, client.ErrNoneLeft, client.ErrReserved, client.ErrConsumed, client.ErrErased, client.ErrState,
		client.ErrNotOpened, client.ErrToken, client.ErrStore, client.ErrIntegrity, client.ErrPolicy,
		client.ErrDirectory, client.ErrRefused,
	}
	if len(all) != len(hsmkpv1.Reason_name)-1 {
		t.Errorf("%d errors, and the API has %d reasons", len(all), len(hsmkpv1.Reason_name)-1)
	}
	for _, want := range all {
		f := &faulty{faults: 1, fault: refusal(connect.CodeInternal, hsmkpv1.Reason(want))}
		_, err := f.serve(t, func(*client.Options) {}).Get(t.Context(), nil)
		for _, reason := range all {
			if errors.Is(err, reason) != (reason == want) {
				t.Errorf("errors.Is(%v, %v) = %v", err, reason, reason != want)
			}
		}
	}
}

func TestKeysAreForTheirLabelsAlone(t *testing.T) {
	made := made(t)
	f := new(faulty)
	c := f.serve(t, func(*client.Options) {})
	k, err := c.Keys(t.Context(), &hsmkpv1.KeyPackage{Ref: make([]byte, 32), MlsMessage: made.Message()})
	if err != nil {
		t.Fatalf("Keys() err = %v, want nil", err)
	}
	if !bytes.Equal(k.Init.PublicKey(), made.InitKey) || !bytes.Equal(k.Leaf.PublicKey(), made.LeafNode.EncryptionKey) {
		t.Error("PublicKey() is not that of the key package")
	}
	info := func(label string) []byte {
		return wire.AppendVector(wire.AppendVector(nil, []byte("MLS 1.0 "+label)), nil)
	}
	for name, err := range map[string]error{
		"a path secret with the init key": second(k.Init.Open(info("UpdatePathNode"), nil, nil, nil)),
		"GroupSecrets with the leaf's":    second(k.Leaf.Open(info("Welcome"), nil, nil, nil)),
		"additional data":                 second(k.Init.Open(info("Welcome"), []byte{1}, nil, nil)),
		"no EncryptContext":               second(k.Init.Open([]byte("info"), nil, nil, nil)),
		"no SignContent":                  second(c.Signer("alice").SignContent(t.Context(), []byte("a hash"))),
	} {
		if err == nil {
			t.Errorf("%s: err = nil, want one", name)
		}
	}
	if n := f.asked.Load(); n != 0 {
		t.Errorf("the service was asked %d times, want never", n)
	}
	if err := second(k.Init.Open(info("Welcome"), nil, nil, nil)); err != nil || f.asked.Load() != 1 {
		t.Errorf("Open() err = %v, want nil", err)
	}
	for _, bad := range [][]byte{nil, {0, 1, 0, 5}, made.Bytes()} {
		if _, err := c.Keys(t.Context(), &hsmkpv1.KeyPackage{MlsMessage: bad}); err == nil {
			t.Errorf("Keys() of %x err = nil, want one", bad)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestCertificatesAreReadForEachConnection(t *testing.T) {
	ca := certificatetest.NewRoot(t)
	var seen atomic.Value
	mux := http.NewServeMux()
	path, handler := hsmkpv1connect.NewKeyPackageServiceHandler(new(faulty))
	mux.Handle(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.TLS.PeerCertificates[0].Subject.CommonName)
		if r.ProtoMajor != 2 {
			t.Errorf("%s, want HTTP/2", r.Proto)
		}
		handler.ServeHTTP(w, r)
	}))
	s := httptest.NewUnstartedServer(mux)
	s.EnableHTTP2 = true
	server := issue(t, ca, "server")
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}
	s.StartTLS()
	defer s.Close()

	dir := t.TempDir()
	o := client.Options{URL: s.URL, Certificate: filepath.Join(dir, "c.pem"), Key: filepath.Join(dir, "c.key"), CA: filepath.Join(dir, "ca.pem"), Attempts: 1}
	write(t, o.CA, "CERTIFICATE", ca.Certificate.Raw)
	become := func(name string) {
		c := issue(t, ca, name)
		key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		write(t, o.Certificate, "CERTIFICATE", c.Certificate[0])
		write(t, o.Key, "PRIVATE KEY", key)
	}
	become("first")
	c := open(t, o)
	become("second")
	ask := func(want string) {
		t.Helper()
		if _, err := c.Get(t.Context(), nil); err != nil || seen.Load() != want {
			t.Errorf("Get() err = %v as %v, want %s", err, seen.Load(), want)
		}
	}
	ask("second")
	become("third")
	ask("second") // on the connection that there is
	c.Close()
	ask("third")
	write(t, o.CA, "CERTIFICATE", certificatetest.NewRoot(t).Certificate.Raw)
	c.Close()
	if _, err := c.Get(t.Context(), nil); !errors.Is(err, client.ErrNoAnswer) {
		t.Errorf("Get() with another CA err = %v, want %v", err, client.ErrNoAnswer)
	}
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	for _, o := range []client.Options{
		{}, {URL: "unix:"}, {URL: "http://localhost:1"}, {URL: "localhost:8443"},
		{URL: "https://localhost:1"}, {URL: "https://localhost:1", Certificate: "none.pem", Key: "none.key", CA: "none.pem"},
	} {
		if _, err := client.Open(o); err == nil {
			t.Errorf("Open(%+v) err = nil, want one", o)
		}
	}
}

func issue(t *testing.T, ca *certificatetest.CA, name string) tls.Certificate {
	t.Helper()
	key := certificatetest.NewKey(t)
	c := ca.Issue(t, key.Public(), func(c *x509.Certificate) {
		c.Subject.CommonName = name
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		c.KeyUsage = x509.KeyUsageDigitalSignature
	})
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}
}

func write(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}
