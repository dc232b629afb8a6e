package ciphersuite

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/sign/ed448"

	"github.com/hsm-kp/hsm-kp/internal/stringer"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// SignatureScheme is the signature algorithm of a suite: its code point in TLS (RFC 8446,
// Section 4.2.3).
type SignatureScheme uint16

// The signature schemes of RFC 9420, Section 17.1.
const (
	ECDSA_SECP256R1_SHA256 SignatureScheme = 0x0403
	ECDSA_SECP384R1_SHA384 SignatureScheme = 0x0503
	ECDSA_SECP521R1_SHA512 SignatureScheme = 0x0603
	ED25519                SignatureScheme = 0x0807
	ED448                  SignatureScheme = 0x0808
)

// ErrSignature reports a signature that does not verify.
var ErrSignature = errors.New("signature does not verify")

// String returns the scheme's name in the TLS registry, or the number in hexadecimal.
func (s SignatureScheme) String() string {
	switch s {
	case ECDSA_SECP256R1_SHA256:
		return "ecdsa_secp256r1_sha256"
	case ECDSA_SECP384R1_SHA384:
		return "ecdsa_secp384r1_sha384"
	case ECDSA_SECP521R1_SHA512:
		return "ecdsa_secp521r1_sha512"
	case ED25519:
		return "ed25519"
	case ED448:
		return "ed448"
	}
	return fmt.Sprintf("0x%04X", uint16(s))
}

// Format prints the name under %v, %s and %q, and the number under other verbs.
func (s SignatureScheme) Format(f fmt.State, verb rune) {
	stringer.Format(f, verb, s.String(), uint16(s))
}

// curve returns the curve of an ECDSA scheme, or nil.
func (s SignatureScheme) curve() elliptic.Curve {
	switch s {
	case ECDSA_SECP256R1_SHA256:
		return elliptic.P256()
	case ECDSA_SECP384R1_SHA384:
		return elliptic.P384()
	case ECDSA_SECP521R1_SHA512:
		return elliptic.P521()
	}
	return nil
}

// hash returns the hash that ECDSA signs in place of the message; 0 for EdDSA.
func (s SignatureScheme) hash() crypto.Hash {
	switch s {
	case ECDSA_SECP256R1_SHA256:
		return crypto.SHA256
	case ECDSA_SECP384R1_SHA384:
		return crypto.SHA384
	case ECDSA_SECP521R1_SHA512:
		return crypto.SHA512
	}
	return 0
}

// PublicKeySize returns the length of an encoded public key in bytes
// (RFC 9420, Section 5.1.1): an uncompressed point of 65, 97 or 133 bytes for
// ECDSA, 32 for Ed25519, 57 for Ed448; 0 for an unknown scheme.
func (s SignatureScheme) PublicKeySize() int {
	switch s {
	case ED25519:
		return ed25519.PublicKeySize
	case ED448:
		return ed448.PublicKeySize
	}
	if c := s.curve(); c != nil {
		return 1 + 2*((c.Params().BitSize+7)/8)
	}
	return 0
}

// PublicKey is a public signature key, parsed and checked. No signature verifies under
// the zero value. It is immutable and safe for concurrent use.
type PublicKey struct {
	scheme  SignatureScheme
	encoded []byte
	ecdsa   *ecdsa.PublicKey  // one of these three
	ed25519 ed25519.PublicKey // is set
	ed448   ed448.PublicKey
}

// ParsePublicKey decodes a public key in the form of RFC 9420, Section 5.1.1:
// PublicKeySize bytes, for ECDSA an uncompressed point. It fails if b has another length
// or, for ECDSA, is not a point of the curve. For EdDSA the point is not checked: if b is
// none, no signature verifies. The key keeps a copy of b.
func (s SignatureScheme) ParsePublicKey(b []byte) (*PublicKey, error) {
	if want := s.PublicKeySize(); want == 0 || len(b) != want {
		return nil, fmt.Errorf("parse %v public key: it has %d bytes, want %d", s, len(b), want)
	}
	p := &PublicKey{scheme: s, encoded: bytes.Clone(b)}
	switch c := s.curve(); {
	case c != nil:
		key, err := ecdsa.ParseUncompressedPublicKey(c, p.encoded)
		if err != nil {
			return nil, fmt.Errorf("parse %v public key: it is not a point of the curve", s)
		}
		p.ecdsa = key
	case s == ED25519:
		p.ed25519 = ed25519.PublicKey(p.encoded)
	case s == ED448:
		p.ed448 = ed448.PublicKey(p.encoded)
	}
	return p, nil
}

// MarshalPublicKey encodes a public key in the form of RFC 9420, Section 5.1.1, in new
// memory, and returns the scheme that uses it. key is an *ecdsa.PublicKey, an
// ed25519.PublicKey or an ed448.PublicKey of github.com/cloudflare/circl. It fails for
// other types and for curves that no scheme uses.
func MarshalPublicKey(key crypto.PublicKey) (SignatureScheme, []byte, error) {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return marshalEdwards(ED25519, key)
	case ed448.PublicKey:
		return marshalEdwards(ED448, key)
	case *ecdsa.PublicKey:
		if key == nil || key.Curve == nil {
			return 0, nil, errors.New("marshal public key: it has no curve")
		}
		return marshalECDSA(key)
	}
	return 0, nil, fmt.Errorf("marshal public key: no scheme of MLS uses a %T", key)
}

func marshalEdwards(s SignatureScheme, key []byte) (SignatureScheme, []byte, error) {
	if len(key) != s.PublicKeySize() {
		return 0, nil, fmt.Errorf("marshal %v public key: it has %d bytes, want %d", s, len(key), s.PublicKeySize())
	}
	return s, bytes.Clone(key), nil
}

func marshalECDSA(key *ecdsa.PublicKey) (SignatureScheme, []byte, error) {
	for _, s := range []SignatureScheme{ECDSA_SECP256R1_SHA256, ECDSA_SECP384R1_SHA384, ECDSA_SECP521R1_SHA512} {
		if s.curve() != key.Curve {
			continue
		}
		b, err := key.Bytes()
		if err != nil {
			return 0, nil, fmt.Errorf("marshal public key: %w", err)
		}
		return s, b, nil
	}
	return 0, nil, fmt.Errorf("marshal public key: no scheme of MLS uses the curve %s", key.Params().Name)
}

// Scheme returns the scheme of the key.
func (p *PublicKey) Scheme() SignatureScheme { return p.scheme }

// Bytes returns a copy of the encoded key, PublicKeySize bytes.
func (p *PublicKey) Bytes() []byte { return bytes.Clone(p.encoded) }

// VerifyWithLabel verifies a signature over label and content (RFC 9420, Section 5.1.2).
// It puts "MLS 1.0 " before the label. For ECDSA the signature is an ECDSA-Sig-Value in
// strict DER with no byte after it, for EdDSA it is R || S. The error is ErrSignature.
func (p *PublicKey) VerifyWithLabel(label string, content, signature []byte) error {
	message := signContent(label, content)
	ok := false
	switch {
	case p.ecdsa != nil:
		ok = ecdsa.VerifyASN1(p.ecdsa, digest(p.scheme.hash(), message), signature)
	case p.ed25519 != nil:
		ok = ed25519.Verify(p.ed25519, message, signature)
	case p.ed448 != nil:
		ok = ed448.Verify(p.ed448, message, signature, "") // no context: RFC 8032, Section 5.2
	}
	if !ok {
		return ErrSignature
	}
	return nil
}

// SignWithLabel signs label and content with k (RFC 9420, Section 5.1.2). It puts
// "MLS 1.0 " before the label. For ECDSA, k gets the digest and the hash, for EdDSA the
// whole message and no hash; rand is for k, which may ignore it. The error is that of k.
// The signature is in the form that VerifyWithLabel takes, and is not verified here.
func (s SignatureScheme) SignWithLabel(rand io.Reader, k crypto.Signer, label string, content []byte) ([]byte, error) {
	message := signContent(label, content)
	if h := s.hash(); h != 0 {
		return k.Sign(rand, digest(h, message), h)
	}
	return k.Sign(rand, message, crypto.Hash(0))
}

// signContent encodes SignContent.
func signContent(label string, content []byte) []byte {
	const prefix = "MLS 1.0 "
	b := make([]byte, 0, len(prefix)+len(label)+len(content)+8)
	b = wire.AppendVectorLen(b, len(prefix)+len(label))
	b = append(append(b, prefix...), label...)
	return wire.AppendVector(b, content)
}

func digest(h crypto.Hash, message []byte) []byte {
	w := h.New()
	w.Write(message)
	return w.Sum(nil)
}
