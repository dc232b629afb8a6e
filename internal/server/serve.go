package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"time"
)

// Timeouts of connections. A slower client has gone or means harm.
const (
	headerTimeout = 5 * time.Second // also of a TLS handshake
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
	// maxStreams is how many requests one HTTP/2 connection may have open.
	maxStreams = 250
)

// Listener is where the service listens.
type Listener struct {
	net.Listener
	// TLS is the config of a TCP listener. A listener without it is a Unix socket, whose callers
	// the kernel identifies.
	TLS *tls.Config
}

// errPlain reports a listener that could not identify its callers.
var errPlain = errors.New("a TCP listener without TLS would not know its callers")

// Serve serves on all listeners until ctx ends, and then closes them. Requests under way have grace
// to end; what is left after that is cut off, and Serve returns an error that says so.
func (s *Server) Serve(ctx context.Context, h http.Handler, grace time.Duration, listeners ...Listener) error {
	for _, l := range listeners {
		if _, local := l.Addr().(*net.UnixAddr); !local && l.TLS == nil {
			return errPlain
		}
	}
	server := s.httpServer(ctx, h)
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- serveOn(server, s.limitConnections(l), l) }()
	}
	var fault error
	select {
	case <-ctx.Done():
	case fault = <-failed:
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		return errors.Join(fault, err, server.Close())
	}
	return fault
}

func serveOn(server *http.Server, accepted net.Listener, l Listener) error {
	if l.TLS != nil {
		accepted = tls.NewListener(accepted, l.TLS)
	}
	if err := server.Serve(accepted); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) httpServer(ctx context.Context, h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC over a Unix socket
	return &http.Server{
		Handler:           h,
		Protocols:         protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       s.Limits.Read,
		WriteTimeout:      s.Limits.Request + s.Limits.Read,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       s.connected,
		ConnState:         s.disconnected(ctx),
		ErrorLog:          log.New(&handshakes{ctx: ctx, server: s}, "", 0),
	}
}

// handshakes receives net/http's log lines about connections: net/http reports failed handshakes in
// no other way.
type handshakes struct {
	ctx    context.Context
	server *Server
}

// Write implements io.Writer. Each call has one line.
func (h *handshakes) Write(line []byte) (int, error) {
	h.server.Log.Warn("connection", "error", string(bytes.TrimSpace(line)))
	if bytes.Contains(line, []byte("TLS handshake error")) {
		h.server.RefuseHandshake(h.ctx, handshakeFault(line))
	}
	return len(line), nil
}

// handshakeFaults maps what crypto/tls, crypto/x509 and TLS say of a client's certificate to what
// the trail says.
var handshakeFaults = []struct{ text, why string }{
	{"client didn't provide a certificate", "no certificate"},
	{"certificate signed by unknown authority", "a certificate of an unknown CA"},
	{"certificate has expired or is not yet valid", "a certificate that is expired or not yet valid"},
	{errRevoked.Error(), "a revoked certificate"},
	{errStaleCRL.Error(), "the revocation list is out of date"},
	{errFutureCRL.Error(), "the revocation list begins in the future"},
	{errNoCRL.Error(), "no revocation list of the certificate's issuer"},
	{"i/o timeout", "no handshake in time"},
}

// handshakeFault returns why a handshake failed. The text holds nothing from the client.
func handshakeFault(line []byte) string {
	for _, f := range handshakeFaults {
		if bytes.Contains(line, []byte(f.text)) {
			return f.why
		}
	}
	return "no good certificate"
}
