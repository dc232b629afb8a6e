package server

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Caller is who sent a request, as the connection proves it: the subject of a verified client
// certificate, or the process at the other end of a Unix socket.
type Caller struct {
	// URIs, DNSNames and Emails are the alternative names of the certificate, byte for byte as it
	// has them. Subject is its subject as RFC 2253 writes it, with every attribute in its order.
	URIs, DNSNames, Emails []string
	Subject                string
	// Peer is the process of a Unix socket, or nil for a certificate.
	Peer *Peer
}

// Peer is the process at the other end of a Unix socket, as the kernel reports it.
type Peer struct{ UID, GID uint32 }

// callerOf returns the caller that a certificate names.
func callerOf(c *x509.Certificate) Caller {
	out := Caller{DNSNames: c.DNSNames, Emails: c.EmailAddresses, URIs: urisOf(c)}
	var subject pkix.RDNSequence // Certificate.Subject keeps one of several common names
	if rest, err := asn1.Unmarshal(c.RawSubject, &subject); err == nil && len(rest) == 0 {
		out.Subject = subject.String()
	}
	return out
}

// subjectAltName is the extension that has a certificate's alternative names (RFC 5280, Section
// 4.2.1.6).
var subjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// urisOf returns the URIs in a certificate as they are there. Certificate.URIs are parsed ones: two
// that differ in the case of their scheme, or by an empty fragment, are equal when they are printed.
func urisOf(c *x509.Certificate) (uris []string) {
	const uniformResourceIdentifier = 6
	for _, e := range c.Extensions {
		var names, name cryptobyte.String
		in := cryptobyte.String(e.Value)
		if !e.Id.Equal(subjectAltName) || !in.ReadASN1(&names, cbasn1.SEQUENCE) {
			continue
		}
		for !names.Empty() {
			var tag cbasn1.Tag
			if !names.ReadAnyASN1(&name, &tag) {
				return nil // crypto/x509 has refused it
			}
			if tag == cbasn1.Tag(uniformResourceIdentifier).ContextSpecific() {
				uris = append(uris, string(name))
			}
		}
	}
	return uris
}

// String returns the caller's name for the trail and the log: the URIs, DNS names or e-mail addresses
// of its certificate, else the subject, or the user of its process.
func (c Caller) String() string {
	for _, names := range []struct {
		kind string
		of   []string
	}{{"uri", c.URIs}, {"dns", c.DNSNames}, {"email", c.Emails}} {
		if len(names.of) > 0 {
			return names.kind + ":" + strings.Join(names.of, ","+names.kind+":")
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

// is reports whether one of the rule's names is the caller's. A rule without names fits no caller. A
// certificate with several URIs has none: it would not say which one is its holder's (SPIFFE
// X509-SVID, Section 2).
func (r *Rule) is(c Caller) bool {
	if c.Peer != nil {
		return slices.Contains(r.UIDs, c.Peer.UID) || slices.Contains(r.GIDs, c.Peer.GID)
	}
	return len(c.URIs) == 1 && overlap(r.URIs, c.URIs) || overlap(r.DNSNames, c.DNSNames) || overlap(r.Emails, c.Emails) ||
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
