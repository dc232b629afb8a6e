package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// connections holds the open connections, so that one that never sent a request can be recorded.
type connections struct {
	mu   sync.Mutex
	open map[net.Conn]*connection
}

type connection struct {
	since  time.Time
	served atomic.Bool // a request was read
	once   sync.Once
	caller Caller // named by its certificate, set once a request was read
}

type servedKey struct{}

// connected is the ConnContext of an http.Server. It remembers the connection, and the peer of a
// Unix socket.
func (s *Server) connected(ctx context.Context, c net.Conn) context.Context {
	info := &connection{since: time.Now()}
	s.connections.mu.Lock()
	s.connections.open[c] = info
	s.connections.mu.Unlock()
	return context.WithValue(withPeer(ctx, c), servedKey{}, info)
}

// disconnected is the ConnState of an http.Server. It records a client that had a good certificate
// but sent no request in time. Over HTTP/2 and Unix sockets, such a client looks like one that has
// nothing to ask.
func (s *Server) disconnected(ctx context.Context) func(net.Conn, http.ConnState) {
	return func(c net.Conn, state http.ConnState) {
		if state != http.StateClosed && state != http.StateHijacked {
			return
		}
		s.connections.mu.Lock()
		info := s.connections.open[c]
		delete(s.connections.open, c)
		s.connections.mu.Unlock()
		secure, ok := c.(*tls.Conn)
		if !ok || info == nil || info.served.Load() || time.Since(info.since) < headerTimeout {
			return
		}
		if t := secure.ConnectionState(); t.HandshakeComplete && t.NegotiatedProtocol != "h2" && len(t.PeerCertificates) > 0 {
			s.refuse(ctx, refusal{actor: callerOf(t.PeerCertificates[0]).String(), what: "connect", why: errSlow.message})
		}
	}
}

// served remembers that a connection sent a request, and returns its caller.
func served(r *http.Request) Caller {
	info, ok := r.Context().Value(servedKey{}).(*connection)
	if !ok {
		return proved(r)
	}
	info.served.Store(true)
	info.once.Do(func() { info.caller = proved(r) })
	return info.caller
}

// proved returns the caller that the request's connection proved, or the zero Caller.
func proved(r *http.Request) Caller {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return callerOf(r.TLS.PeerCertificates[0])
	}
	peer, _ := r.Context().Value(connKey{}).(*Peer)
	return Caller{Peer: peer}
}

// limitedListener bounds the number of open connections. Further ones wait in the kernel, so that
// idle clients cannot use up the process's file descriptors.
type limitedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
	close  func() error
	full   func() // called when a connection has to wait
}

func (s *Server) limitConnections(l net.Listener) net.Listener {
	closed := make(chan struct{})
	return &limitedListener{
		Listener: l, slots: make(chan struct{}, s.Limits.Connections), closed: closed,
		close: sync.OnceValue(func() error { close(closed); return l.Close() }),
		full: func() {
			s.Log.Warn("connections: others wait", "listener", l.Addr().String(), "limit", s.Limits.Connections)
		},
	}
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	default:
		l.full()
		select {
		case l.slots <- struct{}{}:
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: c, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close implements net.Listener.
func (l *limitedListener) Close() error { return l.close() }

// limitedConn is a connection that a limitedListener counts.
type limitedConn struct {
	net.Conn
	release func()
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// NetConn returns the underlying connection, as tls.Conn.NetConn does.
func (c *limitedConn) NetConn() net.Conn { return c.Conn }

// CloseWrite lets crypto/tls and net/http half-close the connection.
func (c *limitedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
