// Package identity defines who signs: a name, the signature key that its key packages carry, the
// credential that binds the two (RFC 9420, Section 5.3), and what its clients support (Section
// 7.2).
//
// It holds no storage and no clock. The inventory loads identities from the store and asks them for
// the template of a key package.
package identity

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// MaxNameBytes bounds the length of a name. PKCS#11 does not limit labels, but several tokens stop
// well before 300 bytes.
const MaxNameBytes = 128

// ErrName reports a string that cannot name an identity.
var ErrName = errors.New("not a name for an identity")

// ErrKeyMismatch reports a signature key other than the one that the identity was created with: the
// token has another key under its CKA_ID.
var ErrKeyMismatch = errors.New("the token's key is not this identity's key")

// Identity is a signer of key packages. It is immutable and safe for
// concurrent use when its signer is.
type Identity struct {
	// Name is unique in a store.
	Name string
	// Suite is the cipher suite of the key packages that the identity signs.
	Suite *ciphersuite.Suite
	// Credential goes into every leaf node.
	Credential keypackage.Credential
	// Signer signs with the credential's key.
	Signer crypto.Signer
}

// New makes an identity from its parts. signatureKey is the public key that was recorded when the
// identity was created, in the encoding of RFC 9420, Section 5.1.1. New compares it with the
// signer's, so that a key that was swapped in the token is found before it signs. It returns
// ErrName, ErrKeyMismatch, or an error if the signer's key does not fit the suite.
func New(name string, suite *ciphersuite.Suite, credential keypackage.Credential, signatureKey []byte, signer crypto.Signer) (*Identity, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	scheme, public, err := ciphersuite.MarshalPublicKey(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("read signature key of %q: %w", name, err)
	}
	if scheme != suite.Signature {
		return nil, fmt.Errorf("identity %q: a %v key cannot sign for %v", name, scheme, suite.ID)
	}
	if !bytes.Equal(public, signatureKey) {
		return nil, fmt.Errorf("identity %q: %w", name, ErrKeyMismatch)
	}
	return &Identity{Name: name, Suite: suite, Credential: credential, Signer: signer}, nil
}

// CheckName fails unless name can name an identity: 1 to MaxNameBytes bytes of printable UTF-8,
// with no space at either end and no whitespace but the ordinary space within. The error wraps
// ErrName.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(name) > MaxNameBytes:
		return fmt.Errorf("%w: it has %d bytes, %d are allowed", ErrName, len(name), MaxNameBytes)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: it is not UTF-8", ErrName)
	case name[0] == ' ' || name[len(name)-1] == ' ':
		return fmt.Errorf("%w: a space stands at its start or end", ErrName)
	case name[0] == '-':
		return fmt.Errorf("%w: it begins with a dash", ErrName)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%w: %q is not printable", ErrName, r)
		}
	}
	return nil
}

// Policy is what an operator decides about the key packages of an identity.
type Policy struct {
	// Lifetime is how long a key package may be used after it is made.
	Lifetime time.Duration
	// Backdate is how far not_before lies in the past, for peers whose clocks
	// are behind.
	Backdate time.Duration
	// Supported is what the clients support beyond the defaults of RFC 9420.
	Supported keypackage.Capabilities
	// Required is what the groups that the clients join require.
	Required keypackage.RequiredCapabilities
	// LeafExtensions go into the leaf node, Extensions into the key package.
	LeafExtensions, Extensions []keypackage.Extension
	// Roots are the trust anchors of X.509 credentials; nil accepts any.
	Roots *x509.CertPool
	// GREASE is the source of the random values without a meaning that capabilities list (RFC 9420,
	// Section 13.5); nil lists none.
	GREASE io.Reader
}

// Template returns the common parts of the key packages of this identity that are made at now.
// lastResort adds the last_resort extension.
//
// With an x509 credential, the lifetime is clamped to that of the certificates. The error is
// ErrNoCertificate, a *ChainError, or a *MissingError.
func (id *Identity) Template(p Policy, now time.Time, lastResort bool) (keypackage.Template, error) {
	capabilities, err := id.capabilities(p)
	if err != nil {
		return keypackage.Template{}, fmt.Errorf("identity %q: choose GREASE: %w", id.Name, err)
	}
	t := keypackage.Template{
		Suite:          id.Suite,
		Credential:     id.Credential,
		Capabilities:   capabilities,
		LeafExtensions: slices.Clone(p.LeafExtensions),
		Extensions:     slices.Clone(p.Extensions),
		Lifetime: keypackage.Lifetime{
			NotBefore: unix(now.Add(-p.Backdate)),
			NotAfter:  unix(now.Add(p.Lifetime)),
		},
	}
	if lastResort {
		t.Extensions = append(t.Extensions, keypackage.Extension{Type: keypackage.ExtensionLastResort})
	}
	if missing := t.Supported().Missing(p.Required); len(missing) > 0 {
		return keypackage.Template{}, fmt.Errorf("identity %q: %w", id.Name, &MissingError{missing})
	}
	if id.Credential.Type == keypackage.CredentialX509 {
		if err := id.clamp(&t.Lifetime, p.Roots, now); err != nil {
			return keypackage.Template{}, fmt.Errorf("identity %q: %w", id.Name, err)
		}
	}
	return t, nil
}

// MissingError reports capabilities that the operator's groups require and the clients lack.
type MissingError struct {
	// Missing names them, such as "extension 0xF001".
	Missing []string
}

func (e *MissingError) Error() string {
	return "its capabilities lack what the groups require: " + strings.Join(e.Missing, ", ")
}

// capabilities returns the defaults of the suite and what else the clients support, each entry once
// and in order, followed by GREASE.
func (id *Identity) capabilities(p Policy) (keypackage.Capabilities, error) {
	c := keypackage.DefaultCapabilities(id.Suite)
	c.CipherSuites = union(c.CipherSuites, p.Supported.CipherSuites)
	c.Extensions = union(c.Extensions, p.Supported.Extensions)
	c.Proposals = union(c.Proposals, p.Supported.Proposals)
	c.Credentials = union(c.Credentials, p.Supported.Credentials)
	if p.GREASE == nil {
		return c, nil
	}
	var random [4]byte
	if _, err := io.ReadFull(p.GREASE, random[:]); err != nil {
		return c, err
	}
	c.CipherSuites = append(c.CipherSuites, ciphersuite.ID(keypackage.GREASE(random[0])))
	c.Extensions = append(c.Extensions, keypackage.ExtensionType(keypackage.GREASE(random[1])))
	c.Proposals = append(c.Proposals, keypackage.ProposalType(keypackage.GREASE(random[2])))
	c.Credentials = append(c.Credentials, keypackage.CredentialType(keypackage.GREASE(random[3])))
	return c, nil
}

// union returns a with the elements of b that it lacks.
func union[T comparable](a, b []T) []T {
	seen := make(map[T]bool, len(a)+len(b))
	var out []T
	for _, list := range [][]T{a, b} {
		for _, v := range list {
			if !seen[v] {
				seen[v] = true
				out = append(out, v)
			}
		}
	}
	return out
}

// unix returns t in seconds since 1970, or zero for an earlier time.
func unix(t time.Time) uint64 { return uint64(max(t.Unix(), 0)) }
