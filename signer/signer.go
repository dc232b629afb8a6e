// Package signer has the signature keys of MLS clients (RFC 9420, Section 5.1) in a token: it
// generates them there, finds them again, and refuses those that the token does not protect
// well. A Key is a crypto.Signer, as keypackage.NewBuilder takes it.
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

// ErrScheme: the signature scheme is not one of RFC 9420, or the key is of no such scheme.
var ErrScheme = errors.New("signature scheme is unknown")

// curves maps the schemes of RFC 9420 to the token's curves.
var curves = map[ciphersuite.SignatureScheme]token.Curve{
	ciphersuite.ECDSA_SECP256R1_SHA256: token.P256,
	ciphersuite.ECDSA_SECP384R1_SHA384: token.P384,
	ciphersuite.ECDSA_SECP521R1_SHA512: token.P521,
	ciphersuite.ED25519:                token.Ed25519,
	ciphersuite.ED448:                  token.Ed448,
}

// Curve returns the curve of a token's keys for a scheme, and whether there is one.
func Curve(scheme ciphersuite.SignatureScheme) (token.Curve, bool) {
	c, ok := curves[scheme]
	return c, ok
}

// Key is a signature key in a token. It may be used by several goroutines at once until the
// token is closed. It prints its label and id.
type Key struct {
	token   *token.Token
	signing *token.SigningKey
	public  *ciphersuite.PublicKey
}

var _ crypto.Signer = (*Key)(nil)

// Generate generates a key pair for scheme in the token and returns its Key. id is its CKA_ID: 16 bytes or more
// that the caller drew at random for this key, or nil for 16 random bytes. label is its
// CKA_LABEL.
//
// Generate checks the attributes of the key and tries it out (see TryOut). A key that fails is
// destroyed. The error wraps ErrScheme or a *WeakKeyError, or is the token's.
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
		// The key must not stay behind, even if ctx is done.
		undone := t.DestroyKeyPair(context.WithoutCancel(ctx), signing)
		return nil, fmt.Errorf("generate signature key: %w", errors.Join(err, undone))
	}
	return k, nil
}

// prove returns the Key of a fresh pair after it has checked that it is strong and signs.
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

// TryOut signs the key's id under the label "hsm-kp key check", which MLS does not use, and
// verifies the signature in software. The error is the token's, or wraps
// ciphersuite.ErrSignature.
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

// AllowWeak has Find accept a key that it would refuse with a *WeakKeyError.
func AllowWeak() Option { return func(o *options) { o.allowWeak = true } }

// Find returns the Key of the one key pair in the token that fits the query. It refuses a key without the
// attributes of one of Generate with a *WeakKeyError, unless AllowWeak is given. The error may
// also wrap token.ErrNotFound, token.ErrAmbiguousKey or ErrScheme, or is the token's.
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

// Scheme returns the signature scheme of the key.
func (k *Key) Scheme() ciphersuite.SignatureScheme { return k.public.Scheme() }

// PublicKey returns a copy of the public key, encoded as the signature_key of a leaf node (RFC
// 9420, Section 5.1.1): PublicKeySize bytes of the scheme.
func (k *Key) PublicKey() []byte { return k.public.Bytes() }

// Public implements crypto.Signer. It returns an *ecdsa.PublicKey, an ed25519.PublicKey or an
// ed448.PublicKey of github.com/cloudflare/circl.
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

// Sign implements crypto.Signer. It signs in the token, as token.SigningKey does: a digest for
// ECDSA, with a signature in DER; a whole message for EdDSA. rand is not used. The error is the
// token's.
func (k *Key) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.signing.Sign(rand, digest, opts)
}

// Delete destroys the key in the token, which cannot be undone. The error is the token's.
func (k *Key) Delete(ctx context.Context) error {
	return k.token.DestroyKeyPair(ctx, k.signing)
}
