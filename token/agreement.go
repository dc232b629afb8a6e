package token

import (
	"bytes"
	"cmp"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"
)

// curveOfECDH returns the curve of a public key for ECDH.
func curveOfECDH(public *ecdh.PublicKey) (Curve, error) {
	if public == nil {
		return 0, fmt.Errorf("%w: no public key", ErrUnsupported)
	}
	for _, c := range []Curve{P256, P384, P521} {
		if c.params().exchange == public.Curve() {
			return c, nil
		}
	}
	return 0, fmt.Errorf("%w: public key on %v", ErrUnsupported, public.Curve())
}

// agreementTemplate is that of an EC private key that ends with the session and may derive and
// nothing else. A key that is to be wrapped must be extractable (PKCS#11, C_WrapKey); it is
// sensitive in any case.
func agreementTemplate(extractable bool) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
		attr(pkcs11.CKA_TOKEN, false),
		attr(pkcs11.CKA_PRIVATE, true),
		attr(pkcs11.CKA_SENSITIVE, true),
		attr(pkcs11.CKA_EXTRACTABLE, extractable),
		attr(pkcs11.CKA_DERIVE, true),
		attr(pkcs11.CKA_SIGN, false),
		attr(pkcs11.CKA_DECRYPT, false),
		attr(pkcs11.CKA_UNWRAP, false),
	}
}

// agreementPublicTemplate is that of the public half, which is read and destroyed.
func agreementPublicTemplate() []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
		attr(pkcs11.CKA_TOKEN, false),
		attr(pkcs11.CKA_PRIVATE, false),
		attr(pkcs11.CKA_VERIFY, false),
		attr(pkcs11.CKA_ENCRYPT, false),
		attr(pkcs11.CKA_WRAP, false),
	}
}

// withAgreementKey generates a key pair for ECDH as session objects and calls f with the public
// key and the private half, which may be wrapped. It destroys both objects, also if f panics.
func (s session) withAgreementKey(c Curve, f func(public *ecdh.PublicKey, private pkcs11.ObjectHandle) error) (err error) {
	half, private, err := s.generateOn(c, templates{public: agreementPublicTemplate(), private: agreementTemplate(true)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Destroy(private), s.Destroy(half)) }()
	public, err := s.agreementPoint(half, c)
	if err != nil {
		return err
	}
	return f(public, private)
}

// agreementPoint reads the public key of a public key object. It fails if the token made a key on
// another curve.
func (s session) agreementPoint(half pkcs11.ObjectHandle, c Curve) (*ecdh.PublicKey, error) {
	b, err := s.Attribute(half, pkcs11.CKA_EC_POINT)
	if err != nil {
		return nil, err
	}
	point, err := c.params().rawPoint(b)
	if err != nil {
		return nil, err
	}
	public, err := c.params().exchange.NewPublicKey(point)
	if err != nil {
		return nil, fmt.Errorf("CKA_EC_POINT is no point on %v: %w", c, err)
	}
	return public, nil
}

// derive returns the shared secret of ECDH with the peer: the x-coordinate, as
// long as a coordinate (PKCS#11, CKM_ECDH1_DERIVE with CKD_NULL; SEC 1, Section
// 3.3.1): 32, 48 or 66 bytes, which the caller clears.
func (s session) derive(private pkcs11.ObjectHandle, peer *ecdh.PublicKey) (secret []byte, err error) {
	point := peer.Bytes()
	length := len(point) / 2
	o, err := s.DeriveECDH(private, point, secretTemplate(length))
	if err != nil {
		return nil, err
	}
	secret, err = s.Attribute(o, pkcs11.CKA_VALUE)
	if err == nil && len(secret) != length {
		err = fmt.Errorf("token derived %d bytes, want %d", len(secret), length)
	}
	if err = errors.Join(err, s.Destroy(o)); err != nil {
		clear(secret)
		return nil, err
	}
	return secret, nil
}

// secretTemplate is that of a shared secret, which is made to be read.
func secretTemplate(length int) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		attr(pkcs11.CKA_VALUE_LEN, length),
		attr(pkcs11.CKA_TOKEN, false),
		attr(pkcs11.CKA_PRIVATE, true),
		attr(pkcs11.CKA_SENSITIVE, false),
		attr(pkcs11.CKA_EXTRACTABLE, true),
		attr(pkcs11.CKA_ENCRYPT, false),
		attr(pkcs11.CKA_DECRYPT, false),
		attr(pkcs11.CKA_WRAP, false),
		attr(pkcs11.CKA_UNWRAP, false),
		attr(pkcs11.CKA_SIGN, false),
		attr(pkcs11.CKA_VERIFY, false),
		attr(pkcs11.CKA_DERIVE, false),
	}
}

// fits agrees on a secret with a temporary key in software. It fails with ErrKeyMismatch if
// private and public are not of one pair.
func (s session) fits(private pkcs11.ObjectHandle, public *ecdh.PublicKey) error {
	if err := s.onCurveOf(private, public); err != nil {
		return err
	}
	peer, err := public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	want, err := peer.ECDH(public)
	if err != nil {
		return err
	}
	got, err := s.derive(private, peer.PublicKey())
	if err != nil {
		return err
	}
	defer clear(got)
	if !bytes.Equal(got, want) {
		return ErrKeyMismatch
	}
	return nil
}

// onCurveOf compares the curves, if the token reports that of the private key: what a token
// returns for a point on another curve looks like a fault of its own.
func (s session) onCurveOf(private pkcs11.ObjectHandle, public *ecdh.PublicKey) error {
	want, err := curveOfECDH(public)
	if err != nil {
		return err
	}
	ecParams, err := s.Attribute(private, pkcs11.CKA_EC_PARAMS)
	if err != nil {
		return err
	}
	if c := curveOf(pkcs11.CKK_EC, ecParams); c != 0 && c != want {
		return fmt.Errorf("%w: it is on %v, want %v", ErrKeyMismatch, c, want)
	}
	return nil
}

// errReleased reports the use of a key exchanger after its time.
var errReleased = errors.New("the private key was given back to the token")

// exchanger is a private key of a session for ECDH. It is lent: after release it does nothing.
// The lock keeps the session with one goroutine at a time, and keeps release from taking it away
// during a derivation.
type exchanger struct {
	public *ecdh.PublicKey

	mu      sync.Mutex
	session session // without a session once released
	private pkcs11.ObjectHandle
	fault   error // the first of the token; the session is not sound after it
}

var _ ecdh.KeyExchanger = (*exchanger)(nil)

// PublicKey implements ecdh.KeyExchanger.
func (x *exchanger) PublicKey() *ecdh.PublicKey { return x.public }

// Curve implements ecdh.KeyExchanger.
func (x *exchanger) Curve() ecdh.Curve { return x.public.Curve() }

// ECDH implements ecdh.KeyExchanger: see derive.
func (x *exchanger) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	if peer.Curve() != x.Curve() {
		return nil, fmt.Errorf("derive shared secret: the peer's key is on %v, want %v", peer.Curve(), x.Curve())
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.session.Session == nil {
		return nil, fmt.Errorf("derive shared secret: %w", errReleased)
	}
	secret, err := x.session.derive(x.private, peer)
	if err != nil {
		err = fmt.Errorf("derive shared secret: %w", err)
		x.fault = cmp.Or(x.fault, err)
		return nil, err
	}
	return secret, nil
}

// release ends the use of the session and returns the fault of the token, if any.
func (x *exchanger) release() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.session = session{}
	return x.fault
}
