package server

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
)

// Caller is who sent a request, as the connection proves it: the subject of a verified client
// certificate, or the process at the other end of a Unix socket.
type Caller struct {
	// URIs, DNSNames and Emails are the alternative names of the certificate, Subject its
	// subject (RFC 2253).
	URIs, DNSNames, Emails []string
	Subject                string
	// Peer is the process of a Unix socket, or nil for a certificate.
	Peer *Peer
}

// Peer is the process at the other end of a Unix socket, as the kernel reports it.
type Peer struct{ UID, GID uint32 }

// callerOf returns the caller that a certificate names.
func callerOf(c *x509.Certificate) Caller {
	out := Caller{DNSNames: c.DNSNames, Emails: c.EmailAddresses, Subject: c.Subject.String()}
	for _, u := range c.URIs {
		out.URIs = append(out.URIs, u.String())
	}
	return out
}

// String returns the caller's name for the trail and the log: the first URI, DNS name or e-mail
// address of its certificate, else the subject, or the user of its process.
func (c Caller) String() string {
	for _, names := range []struct {
		kind string
		of   []string
	}{{"uri", c.URIs}, {"dns", c.DNSNames}, {"email", c.Emails}} {
		if len(names.of) > 0 {
			return names.kind + ":" + names.of[0]
		}
	}
	switch {
	case c.Peer != nil:
		return fmt.Sprintf("uid:%d", c.Peer.UID)
	case c.Subject != "":
		return "subject:" + c.Subject
	}
	return nobody
}

// nobody is the name of a caller that proved nothing.
const nobody = "nobody"

// is reports whether one of the rule's names is the caller's. A rule without names fits no caller.
func (r *Rule) is(c Caller) bool {
	if c.Peer != nil {
		return slices.Contains(r.UIDs, c.Peer.UID) || slices.Contains(r.GIDs, c.Peer.GID)
	}
	return overlap(r.URIs, c.URIs) || overlap(r.DNSNames, c.DNSNames) || overlap(r.Emails, c.Emails) ||
		c.Subject != "" && slices.Contains(r.Subjects, c.Subject)
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

type connKey struct{}

// withPeer puts the credentials of a Unix socket's peer into the context of its requests. It adds
// nothing for other connections, or if the kernel does not report the peer.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if below, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = below.NetConn()
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	peer, err := peerOf(u)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, connKey{}, peer)
}
