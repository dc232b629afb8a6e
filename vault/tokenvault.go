package vault

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
)

// ErrCustody reports private keys that the wrapping key or the token cannot keep.
var ErrCustody = errors.New("the token cannot keep such private keys")

// TokenVault has the token make, wrap, unwrap and use private keys, under one wrapping key
// (C_WrapKey). It is safe for concurrent use.
type TokenVault struct {
	token *token.Token
	key   *token.KeyWrappingKey
	id    KeyID

	mu         sync.Mutex
	mechanisms map[token.Curve]token.KeyWrap // that were tried and work
}

var _ Custodian = (*TokenVault)(nil)

// CreateTokenKey generates a wrapping key in the token, an AES-256 key that can neither leave
// it nor encrypt. It tries the key out and returns its stamp for Recognize: a private key that
// it wrapped, with the public key. A key that fails is destroyed.
func CreateTokenKey(ctx context.Context, t *token.Token, id KeyID, label string) ([]byte, error) {
	key, err := t.GenerateKeyWrappingKey(ctx, id, label)
	if err != nil {
		return nil, err
	}
	stamp, err := proveTokenKey(ctx, t, key.ID())
	if err != nil {
		// The key must not stay behind, even if ctx is done.
		return nil, errors.Join(err, t.DestroyKeyWrappingKey(context.WithoutCancel(ctx), key))
	}
	return stamp, nil
}

func proveTokenKey(ctx context.Context, t *token.Token, id KeyID) ([]byte, error) {
	v, err := OpenToken(ctx, t, id)
	if err != nil {
		return nil, err
	}
	mechanism, err := v.mechanism(ctx, token.P256)
	if err != nil {
		return nil, err
	}
	public, wrapped, err := v.key.GenerateWrapped(ctx, mechanism, token.P256)
	if err != nil {
		return nil, err
	}
	blob := WrappedBlob{Mechanism: mechanism, KeyID: v.id, Encryption: wrapped}
	stamp := wire.AppendVector(blob.Bytes(), public.Bytes())
	return stamp, v.Recognize(ctx, stamp)
}

// OpenToken finds the wrapping key with the given id and checks its attributes. The error
// wraps token.ErrNotFound, token.ErrAmbiguousKey or ErrWeakKey, or is the token's.
func OpenToken(ctx context.Context, t *token.Token, id KeyID) (*TokenVault, error) {
	key, err := t.FindKeyWrappingKey(ctx, id)
	if err != nil {
		return nil, err
	}
	attributes, err := key.Attributes(ctx)
	if err != nil {
		return nil, err
	}
	if faults := wrappingWeaknesses(attributes); len(faults) > 0 {
		return nil, fmt.Errorf("open wrapping key %v: %w: %s", id, ErrWeakKey, strings.Join(faults, ", "))
	}
	return &TokenVault{token: t, key: key, id: key.ID(), mechanisms: make(map[token.Curve]token.KeyWrap)}, nil
}

// KeyID implements Custodian.
func (v *TokenVault) KeyID() KeyID { return v.id }

// Custody implements Custodian.
func (v *TokenVault) Custody() string { return CustodyToken }

// Recognize implements Custodian. It uses the private key in the stamp.
func (v *TokenVault) Recognize(ctx context.Context, stamp []byte) error {
	r := wire.NewReader(stamp)
	blob := readWrapped(r)
	point := r.Vector()
	err := r.Finish()
	if err == nil && !bytes.Equal(blob.KeyID, v.id) {
		err = errors.New("it is of another key")
	}
	var public *ecdh.PublicKey
	if err == nil {
		public, err = ecdh.P256().NewPublicKey(point)
	}
	if err != nil {
		return fmt.Errorf("check wrapping key: %w: %w", ErrStamp, err)
	}
	err = v.key.Fits(ctx, blob.Mechanism, public, blob.Encryption)
	if isAny(err, token.ErrDecrypt, token.ErrKeyMismatch, token.ErrUnsupported) {
		return fmt.Errorf("check wrapping key: %w: %w", ErrStamp, err)
	}
	return err
}

// Keepable returns an error that wraps ErrCustody if no known token can keep private keys of
// the suite. TokenVault.Serves answers for one token.
func Keepable(s *ciphersuite.Suite) error {
	_, _, err := curveOf(s)
	return err
}

// curveOf returns the curve of a suite's private keys for the token and for crypto/ecdh.
func curveOf(s *ciphersuite.Suite) (token.Curve, ecdh.Curve, error) {
	switch {
	case s.Experimental:
	case s.KEM == 0x0010:
		return token.P256, ecdh.P256(), nil
	case s.KEM == 0x0011:
		return token.P384, ecdh.P384(), nil
	case s.KEM == 0x0012:
		return token.P521, ecdh.P521(), nil
	}
	return 0, nil, fmt.Errorf("%w: those of %v are not on P-256, P-384 or P-521, and no known token wraps others", ErrCustody, s.ID)
}

// mechanism returns the mechanism with which the token wraps private keys on a curve. It
// finds it by trying, once.
func (v *TokenVault) mechanism(ctx context.Context, c token.Curve) (token.KeyWrap, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if m, ok := v.mechanisms[c]; ok {
		return m, nil
	}
	m, err := v.token.ProbeKeyWrap(ctx, c)
	if err != nil && ctx.Err() == nil && !errors.Is(err, token.ErrClosed) {
		err = fmt.Errorf("%w: %w", ErrCustody, err)
	}
	if err == nil {
		v.mechanisms[c] = m
	}
	return m, err
}

// Serves implements Custodian. It tries the token out, once for each curve.
func (v *TokenVault) Serves(ctx context.Context, s *ciphersuite.Suite) error {
	curve, _, err := curveOf(s)
	if err == nil {
		_, err = v.mechanism(ctx, curve)
	}
	return err
}

// wrappedAlready are key pairs whose private halves are wrapped from the start.
type wrappedAlready struct {
	blob             WrappedBlob
	init, encryption []byte
}

// Generate implements Custodian. The token makes the keys with its own randomness.
func (v *TokenVault) Generate(ctx context.Context, _ io.Reader, s *ciphersuite.Suite) (Fresh, error) {
	curve, _, err := curveOf(s)
	if err != nil {
		return nil, err
	}
	f := &wrappedAlready{blob: WrappedBlob{Suite: s.ID, KeyID: v.id}}
	if f.blob.Mechanism, err = v.mechanism(ctx, curve); err != nil {
		return nil, err
	}
	for _, half := range []struct{ public, wrapped *[]byte }{{&f.init, &f.blob.Init}, {&f.encryption, &f.blob.Encryption}} {
		public, wrapped, err := v.key.GenerateWrapped(ctx, f.blob.Mechanism, curve)
		if err != nil {
			return nil, fmt.Errorf("generate private keys in the token: %w", err)
		}
		*half.public, *half.wrapped = public.Bytes(), wrapped
	}
	return f, nil
}

func (f *wrappedAlready) InitKey() []byte       { return f.init }
func (f *wrappedAlready) EncryptionKey() []byte { return f.encryption }
func (f *wrappedAlready) Clear()                {}

func (f *wrappedAlready) Seal(context.Context, io.Reader, Binding) ([]byte, error) {
	return f.blob.Bytes(), nil
}

// Keys implements Custodian. A key is unwrapped each time it is used. If it is not that of
// the key package, it opens nothing.
func (v *TokenVault) Keys(ctx context.Context, b Binding, sealed []byte) (Keys, error) {
	blob, err := v.parse(b, sealed)
	if err != nil {
		return Keys{}, err
	}
	initKey, err := v.tokenKey(ctx, b.Suite, blob.Mechanism, b.InitKey, blob.Init)
	if err != nil {
		return Keys{}, err
	}
	encryption, err := v.tokenKey(ctx, b.Suite, blob.Mechanism, b.EncryptionKey, blob.Encryption)
	return Keys{Init: initKey, Encryption: encryption}, err
}

// KeepLeaf implements Custodian. The leaf's key is wrapped by itself already.
func (v *TokenVault) KeepLeaf(_ context.Context, _ io.Reader, b Binding, sealed []byte, _ Keys) ([]byte, error) {
	blob, err := v.parse(b, sealed)
	if err != nil {
		return nil, err
	}
	blob.Init = nil
	return blob.Bytes(), nil
}

// Leaf implements Custodian.
func (v *TokenVault) Leaf(ctx context.Context, b Binding, leaf []byte) (Keys, error) {
	blob, err := v.parse(b, leaf)
	if err != nil {
		return Keys{}, err
	}
	encryption, err := v.tokenKey(ctx, b.Suite, blob.Mechanism, b.EncryptionKey, blob.Encryption)
	return Keys{Encryption: encryption}, err
}

// Rewrap implements Custodian. The keys do not leave the token. It compares them with the
// public ones first and fails if they do not fit.
func (v *TokenVault) Rewrap(ctx context.Context, _ io.Reader, b Binding, sealed []byte, _ bool, to Custodian) ([]byte, error) {
	other, ok := to.(*TokenVault)
	if !ok {
		return nil, errCustody
	}
	blob, err := v.parse(b, sealed)
	if err != nil {
		return nil, err
	}
	curve, ec, err := curveOf(b.Suite)
	if err != nil {
		return nil, err
	}
	out := WrappedBlob{Suite: blob.Suite, KeyID: other.id}
	if out.Mechanism, err = other.mechanism(ctx, curve); err != nil {
		return nil, err
	}
	for _, half := range []struct {
		public, wrapped []byte
		to              *[]byte
	}{{b.InitKey, blob.Init, &out.Init}, {b.EncryptionKey, blob.Encryption, &out.Encryption}} {
		if len(half.wrapped) == 0 {
			continue // of a leaf alone
		}
		public, err := ec.NewPublicKey(half.public)
		if err == nil {
			err = v.key.Fits(ctx, blob.Mechanism, public, half.wrapped)
		}
		if err == nil {
			*half.to, err = v.key.Rewrap(ctx, blob.Mechanism, public, half.wrapped, other.key, out.Mechanism)
		}
		if err != nil {
			return nil, fault(err)
		}
	}
	return out.Bytes(), nil
}

func (v *TokenVault) parse(b Binding, sealed []byte) (WrappedBlob, error) {
	blob, err := ParseWrappedBlob(sealed)
	if err == nil && (blob.Suite != b.Suite.ID || string(blob.KeyID) != string(v.id)) {
		err = fmt.Errorf("%w: they are for %v under wrapping key %v, want %v under %v", ErrSealed, blob.Suite, blob.KeyID, b.Suite.ID, v.id)
	}
	return blob, err
}

// fault wraps ErrSealed around an error that says that the wrapped key is at fault.
func fault(err error) error {
	switch {
	case errors.Is(err, token.ErrKeyMismatch):
		return fmt.Errorf("%w: %w: %w", ErrSealed, ErrMixedUp, err)
	case errors.Is(err, token.ErrDecrypt):
		return fmt.Errorf("%w: %w", ErrSealed, err)
	}
	return err
}

func isAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// tokenKey is a private key that is unwrapped in the token each time it is used.
type tokenKey struct {
	ctx       context.Context // of Keys or Leaf, for every use
	vault     *TokenVault
	suite     *ciphersuite.Suite
	mechanism token.KeyWrap
	public    *ecdh.PublicKey
	wrapped   []byte
}

func (v *TokenVault) tokenKey(ctx context.Context, s *ciphersuite.Suite, m token.KeyWrap, public, wrapped []byte) (hpke.PrivateKey, error) {
	_, curve, err := curveOf(s)
	if err != nil {
		return nil, err
	}
	key, err := curve.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("%w: public key: %w", ErrSealed, err)
	}
	return &tokenKey{ctx: ctx, vault: v, suite: s, mechanism: m, public: key, wrapped: wrapped}, nil
}

// PublicKey implements hpke.PrivateKey.
func (k *tokenKey) PublicKey() []byte { return k.public.Bytes() }

// Open implements hpke.PrivateKey. If it fails, it compares the private key with the public
// one: the key may be the wrong one.
func (k *tokenKey) Open(info, aad, kemOutput, ciphertext []byte) (plaintext []byte, err error) {
	err = k.vault.key.Unwrap(k.ctx, k.mechanism, k.public, k.wrapped, func(x ecdh.KeyExchanger) error {
		key, err := hpke.NewExchangeKey(k.suite, x)
		if err != nil {
			return err
		}
		plaintext, err = key.Open(info, aad, kemOutput, ciphertext)
		return err
	})
	if err != nil && k.ctx.Err() == nil {
		wrong := k.vault.key.Fits(k.ctx, k.mechanism, k.public, k.wrapped)
		if isAny(wrong, token.ErrKeyMismatch, token.ErrDecrypt) {
			return nil, fault(wrong)
		}
	}
	return plaintext, fault(err)
}
