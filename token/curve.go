package token

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"github.com/cloudflare/circl/sign/ed448"
	"github.com/miekg/pkcs11"
)

// Curve is the curve of a signature key. It also determines how the key signs: ECDSA for the NIST
// curves, EdDSA for the Edwards ones. The zero value is no curve.
type Curve int

// The curves of the signature schemes of RFC 9420.
const (
	P256 Curve = iota + 1
	P384
	P521
	Ed25519
	Ed448
)

// allCurves returns all curves.
func allCurves() []Curve { return []Curve{P256, P384, P521, Ed25519, Ed448} }

// String returns the curve's name, such as "P-256" or "Ed25519".
func (c Curve) String() string {
	if p := c.params(); p != nil {
		return p.name
	}
	return fmt.Sprintf("Curve(%d)", int(c))
}

// MarshalText returns the name; JSON uses it.
func (c Curve) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// curveParams is a curve as PKCS#11 has it.
type curveParams struct {
	name      string
	nist      elliptic.Curve // nil for Edwards curves
	exchange  ecdh.Curve     // the same for ECDH; nil for Edwards curves
	keyType   uint           // CKA_KEY_TYPE
	generate  uint           // mechanism of C_GenerateKeyPair
	ecParams  []string       // CKA_EC_PARAMS in DER: first the one to set, then others that mean the same
	point     int            // length of the public key in bytes: uncompressed, or RFC 8032
	signature int            // length of the raw signature in bytes
}

func (c Curve) params() *curveParams {
	if c < P256 || c > Ed448 {
		return nil
	}
	return &curves[c-P256]
}

var curves = [...]curveParams{
	nistCurve(elliptic.P256(), ecdh.P256(), "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"),
	nistCurve(elliptic.P384(), ecdh.P384(), "\x06\x05\x2b\x81\x04\x00\x22"),
	nistCurve(elliptic.P521(), ecdh.P521(), "\x06\x05\x2b\x81\x04\x00\x23"),
	{
		name: "Ed25519", keyType: ckkECEdwards, generate: ckmECEdwardsKeyPairGen, point: 32, signature: 64,
		ecParams: []string{"\x06\x03\x2b\x65\x70", "\x13\x0cedwards25519", "\x06\x09\x2b\x06\x01\x04\x01\xda\x47\x0f\x01"},
	},
	{
		name: "Ed448", keyType: ckkECEdwards, generate: ckmECEdwardsKeyPairGen, point: 57, signature: 114,
		ecParams: []string{"\x06\x03\x2b\x65\x71", "\x13\x0aedwards448"},
	},
}

func nistCurve(c elliptic.Curve, exchange ecdh.Curve, oid string) curveParams {
	size := (c.Params().BitSize + 7) / 8
	return curveParams{
		name: c.Params().Name, nist: c, exchange: exchange, keyType: pkcs11.CKK_EC, generate: pkcs11.CKM_EC_KEY_PAIR_GEN,
		ecParams: []string{oid}, point: 1 + 2*size, signature: 2 * size,
	}
}

// edwards reports whether the curve signs by EdDSA.
func (p *curveParams) edwards() bool { return p.nist == nil }

// curveOf returns the curve of a key by its CKA_KEY_TYPE and CKA_EC_PARAMS, or 0 for a curve that
// is not used here. SoftHSM keeps X25519 keys under the key type of Edwards curves, so the type
// does not suffice.
func curveOf(keyType uint, ecParams []byte) Curve {
	for _, c := range allCurves() {
		p := c.params()
		if p.keyType == keyType && slices.Contains(p.ecParams, string(ecParams)) {
			return c
		}
	}
	return 0
}

// rawPoint returns the point in CKA_EC_POINT, p.point bytes. The standard wants it in a DER OCTET
// STRING, and some tokens return it bare. The exact length shows which.
func (p *curveParams) rawPoint(b []byte) ([]byte, error) {
	if len(b) == p.point {
		return b, nil
	}
	var inner []byte
	rest, err := asn1.Unmarshal(b, &inner)
	if err != nil || len(rest) != 0 || len(inner) != p.point {
		return nil, fmt.Errorf("CKA_EC_POINT of %d bytes is no point on %s", len(b), p.name)
	}
	return inner, nil
}

// parsePoint decodes CKA_EC_POINT of a signature key.
func (p *curveParams) parsePoint(b []byte) (crypto.PublicKey, error) {
	b, err := p.rawPoint(b)
	if err != nil {
		return nil, err
	}
	switch p.name {
	case "Ed25519":
		return ed25519.PublicKey(bytes.Clone(b)), nil
	case "Ed448":
		return ed448.PublicKey(bytes.Clone(b)), nil
	}
	key, err := ecdsa.ParseUncompressedPublicKey(p.nist, b)
	if err != nil {
		return nil, fmt.Errorf("CKA_EC_POINT is no point on %s: %w", p.name, err)
	}
	return key, nil
}

// errDigest reports an input that the key cannot sign.
var errDigest = errors.New("it does not fit the key")

// checkInput checks what is about to be signed. Tokens do not: SoftHSM signs an empty digest, and
// truncates a long one.
func (p *curveParams) checkInput(input []byte, opts crypto.SignerOpts) error {
	hash := crypto.Hash(0)
	if opts != nil {
		hash = opts.HashFunc()
	}
	if p.edwards() {
		if hash != 0 {
			return fmt.Errorf("%w: %s signs messages, not digests of %v", errDigest, p.name, hash)
		}
		return nil
	}
	switch hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512:
	default:
		return fmt.Errorf("%w: hash %v with %s", errDigest, hash, p.name)
	}
	if len(input) != hash.Size() {
		return fmt.Errorf("%w: digest of %d bytes, %v makes %d", errDigest, len(input), hash, hash.Size())
	}
	if len(input) > p.signature/2 {
		return fmt.Errorf("%w: digest of %d bytes is longer than %s takes", errDigest, len(input), p.name)
	}
	return nil
}
