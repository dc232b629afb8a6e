package token

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// SigningKey is a signature key pair in a token. It is a crypto.Signer and may
// be used by several goroutines at once. Its handles are kept.
type SigningKey struct {
	token   *Token
	curve   Curve
	id      []byte
	label   string
	public  crypto.PublicKey
	found   KeyAttributes // when it was generated or found
	place   engine.Place
	signing engine.Gauge
}

var _ crypto.Signer = (*SigningKey)(nil)

// Curve returns the key's curve.
func (k *SigningKey) Curve() Curve { return k.curve }

// ID returns a copy of CKA_ID.
func (k *SigningKey) ID() []byte { return bytes.Clone(k.id) }

// Label returns CKA_LABEL.
func (k *SigningKey) Label() string { return k.label }

// Public returns an *ecdsa.PublicKey, an ed25519.PublicKey or circl's
// ed448.PublicKey.
func (k *SigningKey) Public() crypto.PublicKey { return k.public }

// Sign signs in the token; rand is not used.
//
// A NIST key takes the digest that opts.HashFunc() makes, SHA-256, SHA-384 or SHA-512, not longer
// than the curve's order, and returns the ECDSA signature in DER. An Edwards key takes the whole
// message, with opts.HashFunc() zero, and returns the raw signature of RFC 8032: 64 bytes for
// Ed25519, 114 for Ed448.
//
// Sign waits for a free session. A faulty token may return a signature that does not verify: the
// caller must check it.
func (k *SigningKey) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := k.sign(context.Background(), digest, opts)
	if err != nil {
		return nil, fmt.Errorf("sign with key %x: %w", k.id, err)
	}
	return sig, nil
}

func (k *SigningKey) sign(ctx context.Context, input []byte, opts crypto.SignerOpts) (sig []byte, err error) {
	p := k.curve.params()
	if err := p.checkInput(input, opts); err != nil {
		return nil, err
	}
	return do(ctx, k.token, func(s session) (sig []byte, err error) {
		h, err := k.in(s)
		if err != nil {
			return nil, err
		}
		if h.EC != nil {
			return s.SignCrypto11(h.EC, input, opts)
		}
		err = k.signing.With(s.Session, k, h.Key, func(key pkcs11.ObjectHandle) error {
			sig, err = s.signWith(key, k.curve, input)
			return err
		})
		return sig, err
	})
}

// signWith signs a digest by ECDSA, and returns the signature in DER, or a message by EdDSA.
func (s session) signWith(key pkcs11.ObjectHandle, c Curve, input []byte) ([]byte, error) {
	p := c.params()
	if p.edwards() {
		return s.signEdDSA(key, c, input)
	}
	raw, err := s.Sign(pkcs11.CKM_ECDSA, nil, key, input, p.signature)
	if err != nil {
		return nil, err
	}
	return derSignature(raw, p.signature)
}

// derSignature encodes what CKM_ECDSA returns, r and s of the same length, as an
// ECDSA-Sig-Value (RFC 3279, Section 2.2.3).
func derSignature(raw []byte, size int) ([]byte, error) {
	if len(raw) != size {
		return nil, fmt.Errorf("token returned a signature of %d bytes, want %d", len(raw), size)
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[:size/2]))
		b.AddASN1BigInt(new(big.Int).SetBytes(raw[size/2:]))
	})
	return b.Bytes()
}

// signEdDSA signs a message. Ed25519 takes no parameter: with one, PKCS#11 means Ed25519ctx.
// Ed448 must have one (PKCS#11 3.0, Section 2.3.14): a CK_EDDSA_PARAMS of zeros, which means no
// prehash and no context. Some tokens do not know it.
func (s session) signEdDSA(key pkcs11.ObjectHandle, c Curve, message []byte) ([]byte, error) {
	var parameter []byte
	if c == Ed448 {
		parameter = make([]byte, eddsaParamsSize)
	}
	want := c.params().signature
	sig, err := s.Sign(ckmEdDSA, parameter, key, message, want)
	if call, ok := errors.AsType[*Error](err); c == Ed448 && ok && call.Func == "C_SignInit" && engine.FailedWith(err, engine.CKR_MECHANISM_PARAM_INVALID, engine.CKR_ARGUMENTS_BAD) {
		sig, err = s.Sign(ckmEdDSA, nil, key, message, want)
	}
	if err != nil {
		return nil, err
	}
	if len(sig) != want {
		return nil, fmt.Errorf("token returned a signature of %d bytes, want %d", len(sig), want)
	}
	return sig, nil
}

// eddsaParamsSize is the size of CK_EDDSA_PARAMS: a CK_BBOOL padded to a
// CK_ULONG, a CK_ULONG and a pointer.
const eddsaParamsSize = 3 * (32 << (^uint(0) >> 63)) / 8

// FoundAttributes returns the attributes of the private key as they were when it was generated or
// found, without those that private keys do not have: Encrypt and Wrap.
func (k *SigningKey) FoundAttributes() KeyAttributes { return k.found }

// Attributes reads the attributes of the private key from the token.
func (k *SigningKey) Attributes(ctx context.Context) (KeyAttributes, error) {
	a, err := do(ctx, k.token, func(s session) (KeyAttributes, error) {
		h, err := k.in(s)
		if err != nil {
			return KeyAttributes{}, err
		}
		return s.readKeyAttributes(h.Key)
	})
	if err != nil {
		return KeyAttributes{}, fmt.Errorf("read attributes of key %x: %w", k.id, err)
	}
	return a, nil
}
