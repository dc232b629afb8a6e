package directory

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/directory/directorytest"
)

func newHTTP(t *testing.T, o Options) *HTTP {
	t.Helper()
	h, err := NewHTTP(o)
	if err != nil {
		t.Fatalf("NewHTTP() err = %v, want nil", err)
	}
	return h
}

func TestEachKeyPackageIsPostedOnce(t *testing.T) {
	s, items := serve(t), itemsOf(t, 10)
	o := quick(s.URL + "/key-packages")
	o.Headers = map[string]string{"X-Tenant": "7"}
	o.Bearer = func(context.Context) (string, error) { return "secret", nil }
	publish(t, newHTTP(t, o), items)
	wantPosted(t, s, items, 1)
	for _, r := range s.Requests() {
		for name, want := range map[string]string{"User-Agent": "hsm-kp/test", "Authorization": "Bearer secret", "X-Tenant": "7", "Content-Type": "message/mls"} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
	}
	publish(t, newHTTP(t, o), items) // the answer is 409
}

func TestWhatPassesIsTriedAgain(t *testing.T) {
	for name, faults := range map[string][]directorytest.Fault{
		"500, then 503":            {directorytest.Status(500), directorytest.Status(503)},
		"429 with Retry-After":     {directorytest.Status(429, "Retry-After: 1")},
		"408":                      {directorytest.Status(408)},
		"reset in the answer":      {directorytest.Reset(false)},
		"reset after the work":     {directorytest.Reset(true)},
		"no answer within timeout": {directorytest.Slow(time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			s, items := serve(t), itemsOf(t, 1)
			s.Fail(faults...)
			o := quick(s.URL + "/key-packages")
			if name == "no answer within timeout" {
				o.Timeout = 500 * time.Millisecond
			}
			start := time.Now()
			publish(t, newHTTP(t, o), items)
			if len(s.Posted()) != 1 {
				t.Errorf("%d key packages arrived, want 1", len(s.Posted()))
			}
			if took := time.Since(start); strings.Contains(name, "Retry-After") && took < time.Second {
				t.Errorf("it took %v, want the second that the directory asked for", took)
			}
		})
	}
}

func TestWhatLastsIsToldAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		fault directorytest.Fault
		want  error
	}{
		"400":             {directorytest.Status(400), ErrRefused},
		"413":             {directorytest.Status(413), ErrRefused},
		"415":             {directorytest.Status(415), ErrRefused},
		"401":             {directorytest.Status(401), ErrUnauthorized},
		"403":             {directorytest.Status(403), ErrUnauthorized},
		"a long answer":   {directorytest.Body(strings.Repeat("x", 1<<20+1)), ErrAnswer},
		"303 as GET":      {directorytest.Status(303, "Location: /key-packages"), ErrAnswer},
		"302 as GET":      {directorytest.Status(302, "Location: /key-packages"), ErrAnswer},
		"another host":    {directorytest.Status(307, "Location: http://localhost:1/"), ErrAnswer},
		"another scheme":  {directorytest.Status(308, "Location: https://127.0.0.1/"), ErrAnswer},
		"307 to itself":   {directorytest.Status(307, "Location: /key-packages"), nil},
		"307 to nowhere":  {directorytest.Status(307, "Location: /none"), ErrRefused},
		"not implemented": {directorytest.Status(501), &StatusError{501}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			s.Fail(c.fault)
			o := quick(s.URL + "/key-packages")
			o.Bearer = func(context.Context) (string, error) { return "s3cr3t", nil }
			err := newHTTP(t, o).Publish(t.Context(), itemsOf(t, 1))[0]
			if status := (*StatusError)(nil); errors.As(c.want, &status) {
				if got := (*StatusError)(nil); !errors.As(err, &got) || got.Status != status.Status {
					t.Errorf("Publish() err = %v, want %v", err, c.want)
				}
			} else if !errors.Is(err, c.want) {
				t.Errorf("Publish() err = %v, want %v", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("Publish() err = %v has the token", err)
			}
			want := 1
			if strings.HasPrefix(name, "307") {
				want = 2 // where it was sent to, too
			}
			if got := len(s.Requests()); got != want {
				t.Errorf("%d requests, want %d and no second attempt", got, want)
			}
		})
	}
}

func TestADeadlineEndsAllAttempts(t *testing.T) {
	s := serve(t)
	s.Close()
	o := quick(s.URL + "/key-packages")
	o.Deadline = time.Second
	start := time.Now()
	for _, err := range newHTTP(t, o).Publish(t.Context(), itemsOf(t, 3)) {
		if !errors.Is(err, ErrUnreachable) {
			t.Errorf("Publish() err = %v, want ErrUnreachable", err)
		}
	}
	if took := time.Since(start); took > 20*time.Second { // by the other options it would be a minute
		t.Errorf("it took %v, want a second", took)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newHTTP(t, quick(s.URL)).Publish(ended, itemsOf(t, 1))[0]; err == nil {
		t.Error("Publish() with a context that ended err = nil")
	}
}

func TestARetryAfterBeyondTheDeadlineIsNotWaitedFor(t *testing.T) {
	s := serve(t)
	s.Fail(directorytest.Status(503, "Retry-After: 3600"))
	start := time.Now()
	err := newHTTP(t, quick(s.URL+"/key-packages")).Publish(t.Context(), itemsOf(t, 1))[0]
	if !errors.Is(err, ErrUnreachable) || time.Since(start) > 20*time.Second { // the deadline is a minute
		t.Errorf("Publish() err = %v after %v, want ErrUnreachable at once", err, time.Since(start))
	}
}

func TestNoMoreRequestsThanAllowed(t *testing.T) {
	var under, most atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		now := under.Add(1)
		for was := most.Load(); now > was && !most.CompareAndSwap(was, now); was = most.Load() {
		}
		time.Sleep(20 * time.Millisecond)
		under.Add(-1)
	}))
	t.Cleanup(s.Close)
	o := quick(s.URL)
	o.Concurrency, o.Rate, o.Burst = 3, 20, 5
	start := time.Now()
	publish(t, newHTTP(t, o), itemsOf(t, 15))
	if took := time.Since(start); took < 450*time.Millisecond { // ten, after a burst of five
		t.Errorf("15 requests took %v, want half a second at 20 a second", took)
	}
	if most.Load() > 3 {
		t.Errorf("%d requests at once, want at most 3", most.Load())
	}
}

// pemFile writes blocks of PEM to a file.
func pemFile(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAServerMustLeadToTheCA(t *testing.T) {
	s := directorytest.NewUnstarted(directorytest.Ours)
	s.StartTLS()
	t.Cleanup(s.Close)
	o := quick(s.URL + "/key-packages")
	if err := newHTTP(t, o).Publish(t.Context(), itemsOf(t, 1))[0]; !errors.Is(err, ErrUnauthorized) {
		t.Errorf("Publish() to an unknown server err = %v, want ErrUnauthorized", err)
	}
	o.CA = pemFile(t, filepath.Join(t.TempDir(), "ca.pem"), "CERTIFICATE", s.Certificate().Raw)
	publish(t, newHTTP(t, o), itemsOf(t, 1))
	o.CA = filepath.Join(t.TempDir(), "none")
	if _, err := NewHTTP(o); err == nil {
		t.Error("NewHTTP() without the CA's file err = nil")
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	s := directorytest.NewUnstarted(directorytest.Ours)
	s.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
	s.StartTLS()
	t.Cleanup(s.Close)
	o := quick(s.URL + "/key-packages")
	o.Deadline = 500 * time.Millisecond
	o.CA = pemFile(t, filepath.Join(t.TempDir(), "ca.pem"), "CERTIFICATE", s.Certificate().Raw)
	if err := newHTTP(t, o).Publish(t.Context(), itemsOf(t, 1))[0]; err == nil {
		t.Error("Publish() over TLS 1.1 err = nil")
	}
}

func TestAClientCertificateIsReadAnew(t *testing.T) {
	var seen atomic.Pointer[string]
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		name := r.TLS.PeerCertificates[0].Subject.CommonName
		seen.Store(&name)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	dir := t.TempDir()
	o := quick(s.URL)
	o.CA = pemFile(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", s.Certificate().Raw)
	o.Certificate, o.Key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, o.Certificate, o.Key, "first")
	h := newHTTP(t, o)
	for _, name := range []string{"first", "second"} {
		writePair(t, o.Certificate, o.Key, name)
		publish(t, h, itemsOf(t, 1))
		if got := seen.Load(); got == nil || *got != name {
			t.Errorf("the certificate is of %v, want %s", got, name)
		}
		h.http.CloseIdleConnections()
	}
	if err := os.Remove(o.Key); err != nil {
		t.Fatal(err)
	}
	if _, err := NewHTTP(o); err == nil {
		t.Error("NewHTTP() without the key's file err = nil")
	}
}
