// Package signer keeps the signature keys of MLS clients (RFC 9420, Section 5.1)
// in a token: it generates them there, finds them again, and refuses those that
// a token does not keep well. A Key is the crypto.Signer that a key package
// builder takes.
package signer

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/token"
)

// ErrScheme: no key in a token is for this signature scheme here.
var ErrScheme = errors.New("signature scheme is unknown")

// curves are the token's curves for the schemes of RFC 9420.
var curves = map[ciphersuite.SignatureScheme]token.Curve{
	ciphersuite.ECDSA_SECP256R1_SHA256: token.P256,
	ciphersuite.ECDSA_SECP384R1_SHA384: token.P384,
	ciphersuite.ECDSA_SECP521R1_SHA512: token.P521,
	ciphersuite.ED25519:                token.Ed25519,
	ciphersuite.ED448:                  token.Ed448,
}

// Curve returns the curve of a token's keys for a scheme.
func Curve(scheme ciphersuite.SignatureScheme) (token.Curve, bool) {
	c, ok := curves[scheme]
	return c, ok
}

// Key is a signature key in a token. It may be used by several goroutines at
// once, and is of no use once the token is closed.
type Key struct {
	token   *token.Token
	signing *token.SigningKey
	public  *ciphersuite.PublicKey
}

var _ crypto.Signer = (*Key)(nil)

// Generate generates a key in the token under that CKA_ID, which the caller drew at random for it,
// 16 bytes or more; nil is 16 random bytes. Before it returns, the key has the attributes that were asked for and has signed once, and the
// signature was verified in software; a key that fails is destroyed.
func Generate(ctx context.Context, t *token.Token, scheme ciphersuite.SignatureScheme, id []byte, label string) (*Key, error) {
	curve, ok := Curve(scheme)
	if !ok {
		return nil, fmt.Errorf("generate signature key: %w: %v", ErrScheme, scheme)
	}
	signing, err := t.GenerateKeyPair(ctx, token.KeyPairSpec{Curve: curve, ID: id, Label: label, Fresh: true})
	if err != nil {
		return nil, fmt.Errorf("generate signature key: %w", err)
	}
	k, err := prove(t, signing)
	if err != nil {
		// Also where ctx is done: the key must not stay behind.
		undone := t.DestroyKeyPair(context.WithoutCancel(ctx), signing)
		return nil, fmt.Errorf("generate signature key: %w", errors.Join(err, undone))
	}
	return k, nil
}

// prove makes a Key of a fresh pair that is strong and signs.
func prove(t *token.Token, signing *token.SigningKey) (*Key, error) {
	k, err := newKey(t, signing)
	if err != nil {
		return nil, err
	}
	if err := k.requireStrong(); err != nil {
		return nil, err
	}
	return k, k.TryOut()
}

// TryOut signs something that is nothing in MLS and verifies the signature.
func (k *Key) TryOut() error {
	const label = "hsm-kp key check"
	sig, err := k.Scheme().SignWithLabel(nil, k, label, k.ID())
	if err != nil {
		return fmt.Errorf("try key out: %w", err)
	}
	if err := k.public.VerifyWithLabel(label, k.ID(), sig); err != nil {
		return fmt.Errorf("try key out: %w", err)
	}
	return nil
}

func newKey(t *token.Token, signing *token.SigningKey) (*Key, error) {
	public, err := parsePublic(signing.Public())
	if err != nil {
		return nil, err
	}
	return &Key{token: t, signing: signing, public: public}, nil
}

func parsePublic(key crypto.PublicKey) (*ciphersuite.PublicKey, error) {
	scheme, encoded, err := ciphersuite.MarshalPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrScheme, err)
	}
	return scheme.ParsePublicKey(encoded)
}

// Option changes what Find accepts.
type Option func(*options)

type options struct{ allowWeak bool }

// AllowWeak accepts a key that Find would refuse with a *WeakKeyError.
func AllowWeak() Option { return func(o *options) { o.allowWeak = true } }

// Find finds the one key that fits the query. A key that the token does not keep
// as one made by Generate is refused with a *WeakKeyError, unless AllowWeak is
// given. Other errors: token.ErrNotFound, token.ErrAmbiguousKey, ErrScheme.
func Find(ctx context.Context, t *token.Token, q token.KeyQuery, opts ...Option) (*Key, error) {
	var o options
	for _, set := range opts {
		set(&o)
	}
	signing, err := t.FindKeyPair(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("find signature key: %w", err)
	}
	k, err := newKey(t, signing)
	if err == nil && !o.allowWeak {
		err = k.requireStrong()
	}
	if err != nil {
		return nil, fmt.Errorf("find signature key %v: %w", q, err)
	}
	return k, nil
}

// Scheme returns the signature scheme that the key is for.
func (k *Key) Scheme() ciphersuite.SignatureScheme { return k.public.Scheme() }

// PublicKey returns a copy of the public key as RFC 9420, Section 5.1.1, encodes
// it: the signature_key of a leaf node.
func (k *Key) PublicKey() []byte { return k.public.Bytes() }

// Public returns an *ecdsa.PublicKey or an ed25519.PublicKey.
func (k *Key) Public() crypto.PublicKey { return k.signing.Public() }

// ID returns a copy of CKA_ID: 16 bytes if Generate drew it.
func (k Key) ID() []byte { return k.signing.ID() }

// Label returns CKA_LABEL.
func (k Key) Label() string { return k.signing.Label() }

// String returns label and id, such as `label "alice", id 0a1b`.
func (k Key) String() string { return fmt.Sprintf("label %q, id %x", k.Label(), k.ID()) }

// Format prints what String returns under every verb but %x and %X, which print the id.
func (k Key) Format(f fmt.State, verb rune) {
	if verb == 'x' || verb == 'X' {
		fmt.Fprintf(f, fmt.FormatString(f, verb), k.ID())
		return
	}
	io.WriteString(f, k.String())
}

// Sign signs in the token, as token.SigningKey does: digests for ECDSA, whole
// messages for EdDSA. rand is not used.
func (k *Key) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.signing.Sign(rand, digest, opts)
}

// Delete destroys the key in the token. It cannot be undone.
func (k *Key) Delete(ctx context.Context) error {
	return k.token.DestroyKeyPair(ctx, k.signing)
}
