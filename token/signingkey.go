package token

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"io"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"
)

// SigningKey is a signature key pair in a token. It is a crypto.Signer and may
// be used by several goroutines at once. Its handles were found once and are
// kept.
type SigningKey struct {
	token   *Token
	curve   Curve
	id      []byte
	label   string
	public  crypto.PublicKey
	private pkcs11.ObjectHandle
	verify  pkcs11.ObjectHandle // the public key object
	ec      crypto11.PrivateKey // ECDSA keys only
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
// A NIST key takes the digest that opts.HashFunc() makes, SHA-256, SHA-384 or
// SHA-512, not longer than the curve's order, and returns the ECDSA signature in
// DER. An Edwards key takes the whole message, with opts.HashFunc() zero, and
// returns the raw signature of RFC 8032: 64 bytes for Ed25519, 114 for Ed448.
//
// It waits for a free session. A token that is faulty may return a signature
// that does not verify: callers check.
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
	if p.edwards() {
		err = k.token.pool.with(ctx, func(s *session) error {
			sig, err = s.signEdDSA(k.private, k.curve, input)
			return err
		})
		return sig, err
	}
	err = k.token.pool.hold(ctx, func() error {
		sig, err = k.ec.Sign(nil, input, opts)
		return callError("C_Sign", err)
	})
	return sig, err
}

// signEdDSA signs a message. Ed25519 takes no parameter: with one, PKCS#11 means
// Ed25519ctx. Ed448 has to have one (PKCS#11 3.0, Section 2.3.14): a
// CK_EDDSA_PARAMS of zeros, which is no prehash and no context. Some tokens know
// of none.
func (s *session) signEdDSA(key pkcs11.ObjectHandle, c Curve, message []byte) ([]byte, error) {
	mech := mechanism(ckmEdDSA, nil)
	if c == Ed448 {
		mech = mechanism(ckmEdDSA, make([]byte, eddsaParamsSize))
	}
	sig, err := s.sign(mech, key, message)
	if c == Ed448 && failedWith(err, CKR_MECHANISM_PARAM_INVALID, CKR_ARGUMENTS_BAD) {
		sig, err = s.sign(mechanism(ckmEdDSA, nil), key, message)
	}
	if err != nil {
		return nil, err
	}
	if want := c.params().signature; len(sig) != want {
		return nil, fmt.Errorf("token returned a signature of %d bytes, want %d", len(sig), want)
	}
	return sig, nil
}

// eddsaParamsSize is the size of CK_EDDSA_PARAMS: a CK_BBOOL padded to a
// CK_ULONG, a CK_ULONG and a pointer.
const eddsaParamsSize = 3 * (32 << (^uint(0) >> 63)) / 8

func (s *session) sign(mech []*pkcs11.Mechanism, key pkcs11.ObjectHandle, input []byte) ([]byte, error) {
	if err := s.api.SignInit(s.handle, mech, key); err != nil {
		return nil, callError("C_SignInit", err)
	}
	sig, err := s.api.Sign(s.handle, input)
	return sig, callError("C_Sign", err)
}

// Attributes reads the attributes of the private key from the token.
func (k *SigningKey) Attributes(ctx context.Context) (KeyAttributes, error) {
	a, err := k.token.attributesOf(ctx, k.private)
	if err != nil {
		return KeyAttributes{}, fmt.Errorf("read attributes of key %x: %w", k.id, err)
	}
	return a, nil
}

func (t *Token) attributesOf(ctx context.Context, o pkcs11.ObjectHandle) (a KeyAttributes, err error) {
	err = t.pool.with(ctx, func(s *session) error {
		a, err = s.keyAttributes(o)
		return err
	})
	return a, err
}
