package program

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
)

// Service is a running `hsm-kp serve`.
type Service struct {
	// Log holds what the process wrote to standard error.
	Log     Log
	Process *os.Process
	// Ended waits for the process to end and returns its error. Stop sends SIGTERM first.
	Ended, Stop func() error
}

// Log is a log that a process writes and the test reads.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Serve starts `hsm-kp serve` with the config, and waits until it is ready at a Unix socket that
// the config names.
func (i *Installation) Serve(socket string) *Service {
	i.t.Helper()
	return Serve(i.t, i.Command("serve"), socket)
}

// Serve starts a command that serves, and waits until it is ready at a Unix socket.
func Serve(t testing.TB, cmd *exec.Cmd, socket string) *Service {
	t.Helper()
	s := new(Service)
	cmd.Stderr = &s.Log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.Process = cmd.Process
	ended := make(chan struct{})
	var status error
	go func() { status = cmd.Wait(); close(ended) }()
	s.Ended = func() error { <-ended; return status }
	s.Stop = sync.OnceValue(func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return s.Ended()
	})
	t.Cleanup(func() {
		_ = s.Stop()
		if t.Failed() {
			t.Logf("log:\n%s", s.Log.String())
		}
	})
	client := Local(socket)
	defer client.CloseIdleConnections()
	for deadline := time.Now().Add(Patience); ; {
		r, err := client.Get("http://local/readyz")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return s
			}
		}
		select {
		case <-ended:
			t.Fatalf("it ended: %v", status)
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %v", err)
		}
	}
}

// Local returns a client over a Unix socket.
func Local(socket string) *http.Client {
	return &http.Client{Timeout: Patience, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// FreeAddress returns an address of this machine on which no process listens. Its port is not
// ephemeral, so that no connection takes it before the service starts, or while the service is
// down.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(15000)))
		if err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no address is free")
	return ""
}

// IssueTLS lets a CA certify a new key for TLS, as a client or a server.
func IssueTLS(t testing.TB, ca *certificatetest.CA, changes ...certificatetest.Change) tls.Certificate {
	t.Helper()
	key := certificatetest.NewKey(t)
	c := ca.Issue(t, key.Public(), append([]certificatetest.Change{func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		c.KeyUsage = x509.KeyUsageDigitalSignature
	}}, changes...)...)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}
}

// WriteTLS writes a certificate and its key in PEM to base.pem and base.key, and returns these
// paths.
func WriteTLS(t testing.TB, base string, c tls.Certificate) (certificate, key string) {
	t.Helper()
	private, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	WritePEM(t, base+".pem", "CERTIFICATE", c.Certificate[0])
	WritePEM(t, base+".key", "PRIVATE KEY", private)
	return base + ".pem", base + ".key"
}

// WritePEM writes one block of PEM.
func WritePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	block := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		t.Fatal(err)
	}
}
