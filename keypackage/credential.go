package keypackage

import (
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// ErrCertificates reports an x509 credential without certificates, or with one that
// is not X.509 in DER.
var ErrCertificates = certificate.ErrMalformed // "malformed certificates"

// Credential tells who a signature key belongs to (RFC 9420, Section 5.3). On the wire:
// uint16 credential_type, then the content. The content of every known type is one <V>
// vector, so the content of an unknown type is decoded as one.
type Credential struct {
	Type CredentialType
	// Identity is the content of a basic credential, in a form that the application
	// defines.
	Identity []byte
	// Certificates is the chain of an x509 credential in DER, the end entity first.
	Certificates [][]byte
	// Raw is the content of a credential of another type.
	Raw []byte
}

// BasicCredential returns a basic credential. It keeps identity.
func BasicCredential(identity []byte) Credential {
	return Credential{Type: CredentialBasic, Identity: identity}
}

// X509Credential returns an x509 credential of certificates in DER, the end entity first. It
// keeps the slice and checks nothing.
func X509Credential(certificates [][]byte) Credential {
	return Credential{Type: CredentialX509, Certificates: certificates}
}

// ParseCredential decodes a Credential. It returns errors and owns slices as Parse does.
func ParseCredential(b []byte) (Credential, error) {
	var c Credential
	r := wire.NewReader(slices.Clone(b))
	c.read(r)
	if err := r.Finish(); err != nil {
		return Credential{}, fmt.Errorf("parse credential: %w", err)
	}
	return c, nil
}

func (c *Credential) read(r *wire.Reader) {
	c.Type = CredentialType(r.Uint16())
	content := r.Vector()
	switch c.Type {
	case CredentialBasic:
		c.Identity = content
	case CredentialX509:
		c.Certificates = readCertificates(r, content)
	default:
		c.Raw = content
	}
}

// readCertificates decodes the content of Certificate certificates<V>. Its errors become
// those of r.
func readCertificates(r *wire.Reader, content []byte) [][]byte {
	var certificates [][]byte
	list := wire.NewReader(content)
	for list.Len() > 0 {
		certificates = append(certificates, list.Vector())
	}
	if err := list.Finish(); err != nil {
		r.Fail(err)
	}
	return certificates
}

// Bytes returns the encoded Credential in new memory. Lengths are limited as for
// KeyPackage.Bytes.
func (c Credential) Bytes() []byte { return c.append(make([]byte, 0, c.size())) }

func (c *Credential) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(c.Type))
	switch c.Type {
	case CredentialBasic:
		return wire.AppendVector(b, c.Identity)
	case CredentialX509:
		b = wire.AppendVectorLen(b, c.sizeCertificates())
		for _, der := range c.Certificates {
			b = wire.AppendVector(b, der)
		}
		return b
	default:
		return wire.AppendVector(b, c.Raw)
	}
}

// size returns the encoded length, or slightly more.
func (c *Credential) size() int {
	const typeAndPrefix = 2 + 4
	return typeAndPrefix + len(c.Identity) + c.sizeCertificates() + len(c.Raw)
}

func (c *Credential) sizeCertificates() int {
	n := 0
	for _, der := range c.Certificates {
		n += sizeVector(der)
	}
	return n
}

// Chain parses the certificates of an x509 credential, the end entity first; there
// is at least one. It verifies nothing: see Validate. The error wraps ErrCertificates.
func (c *Credential) Chain() ([]*x509.Certificate, error) { return certificate.Parse(c.Certificates) }
