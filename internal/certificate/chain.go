// Package certificate handles the X.509 side of a credential (RFC 9420, Section 5.3): it reads a
// chain, checks it, and requests a certificate.
//
// It holds no clock and no trust of its own: the time and the roots are parameters.
package certificate

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

// ErrMalformed reports a chain without certificates, or with one that is not
// X.509 in DER.
var ErrMalformed = errors.New("malformed certificates")

// Chain is a chain of certificates, the end entity's first. It is not empty.
type Chain []*x509.Certificate

// Parse parses certificates in DER. The error wraps ErrMalformed.
func Parse(der [][]byte) (Chain, error) {
	if len(der) == 0 {
		return nil, fmt.Errorf("%w: there are none", ErrMalformed)
	}
	chain := make(Chain, len(der))
	for i, b := range der {
		var err error
		if chain[i], err = x509.ParseCertificate(b); err != nil {
			return nil, fmt.Errorf("%w: certificate %d: %w", ErrMalformed, i, err)
		}
	}
	return chain, nil
}

// ParsePEM parses the CERTIFICATE blocks of text, in order, and ignores text between them. A block
// of another type is an error, a private key above all: it does not belong in such a file. The
// error wraps ErrMalformed.
func ParsePEM(text []byte) (Chain, error) {
	var der [][]byte
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	begun := bytes.Count(text, []byte("-----BEGIN "))
	for {
		var block *pem.Block
		block, text = pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%w: there is a block of another type, %q", ErrMalformed, block.Type)
		}
		der = append(der, block.Bytes)
	}
	if len(der) < begun {
		return nil, fmt.Errorf("%w: %d PEM blocks begin, and %d are whole", ErrMalformed, begun, len(der))
	}
	if len(der) == 0 {
		return nil, fmt.Errorf("%w: there is no PEM block of type CERTIFICATE", ErrMalformed)
	}
	return Parse(der)
}

// DER returns the certificates as a credential carries them.
func (c Chain) DER() [][]byte {
	der := make([][]byte, len(c))
	for i := range c {
		der[i] = c[i].Raw
	}
	return der
}

// Validity returns the period in which all certificates of the chain are valid, both ends included.
// If there is none, notBefore is after notAfter.
func (c Chain) Validity() (notBefore, notAfter time.Time) {
	notBefore, notAfter = c[0].NotBefore, c[0].NotAfter
	for _, certificate := range c[1:] {
		if certificate.NotBefore.After(notBefore) {
			notBefore = certificate.NotBefore
		}
		if certificate.NotAfter.Before(notAfter) {
			notAfter = certificate.NotAfter
		}
	}
	return notBefore, notAfter
}

// Certifies reports whether the end entity's key is signatureKey, in the encoding
// of RFC 9420, Section 5.1.1.
func (c Chain) Certifies(signatureKey []byte) bool {
	if c[0].PublicKey == nil {
		return len(signatureKey) > 0 && bytes.Equal(ed448Key(c[0]), signatureKey)
	}
	_, public, err := ciphersuite.MarshalPublicKey(c[0].PublicKey)
	return err == nil && bytes.Equal(public, signatureKey)
}

// oidEd448 is id-Ed448 (RFC 8410, Section 3), which crypto/x509 does not know.
var oidEd448 = asn1.ObjectIdentifier{1, 3, 101, 113}

// ed448Key returns the Ed448 key of a certificate, or nil if it has another key.
func ed448Key(certificate *x509.Certificate) []byte {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	rest, err := asn1.Unmarshal(certificate.RawSubjectPublicKeyInfo, &info)
	if err != nil || len(rest) > 0 || !info.Algorithm.Algorithm.Equal(oidEd448) || info.PublicKey.BitLength%8 != 0 {
		return nil
	}
	return info.PublicKey.Bytes
}

// KeyName returns the kind of a certificate's key, such as "P-256" or "RSA".
func KeyName(certificate *x509.Certificate) string {
	if scheme, _, err := ciphersuite.MarshalPublicKey(certificate.PublicKey); err == nil {
		return scheme.String()
	}
	if ed448Key(certificate) != nil {
		return ciphersuite.ED448.String()
	}
	return certificate.PublicKeyAlgorithm.String()
}
