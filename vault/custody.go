package vault

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
)

// Vault as a Custodian: private keys are made in software and sealed in the token.

var _ Custodian = (*Vault)(nil)

// Custody implements Custodian.
func (v *Vault) Custody() string { return CustodyWrapped }

// Serves implements Custodian. It returns nil: any private key can be sealed.
func (v *Vault) Serves(context.Context, *ciphersuite.Suite) error { return nil }

// sealedLater are key pairs in memory, which sealer seals later.
type sealedLater struct {
	sealer Sealer
	keys   PrivateKeys
}

// Generate implements Custodian.
func (v *Vault) Generate(_ context.Context, rand io.Reader, s *ciphersuite.Suite) (Fresh, error) {
	return generate(v, rand, s)
}

// generate makes key pairs in memory for v to seal.
func generate(v Sealer, rand io.Reader, s *ciphersuite.Suite) (Fresh, error) {
	initKey, err := hpke.GenerateKeyPair(s, rand)
	if err != nil {
		return nil, fmt.Errorf("generate init key: %w", err)
	}
	encryptionKey, err := hpke.GenerateKeyPair(s, rand)
	if err != nil {
		initKey.Clear()
		return nil, fmt.Errorf("generate encryption key: %w", err)
	}
	return &sealedLater{v, PrivateKeys{Init: initKey, Encryption: encryptionKey}}, nil
}

func (f *sealedLater) InitKey() []byte       { return f.keys.Init.PublicKey() }
func (f *sealedLater) EncryptionKey() []byte { return f.keys.Encryption.PublicKey() }
func (f *sealedLater) Clear()                { f.keys.Clear() }

func (f *sealedLater) Seal(ctx context.Context, rand io.Reader, b Binding) ([]byte, error) {
	return f.sealer.Seal(ctx, rand, b, f.keys)
}

// Keys implements Custodian. What opens was sealed for this KeyPackageRef, a hash over the
// public keys. So these are trusted, and only Check computes them.
func (v *Vault) Keys(ctx context.Context, b Binding, sealed []byte) (Keys, error) {
	plaintext, err := v.unseal(ctx, b.label(), b, sealed)
	if err != nil {
		return Keys{}, err
	}
	defer clear(plaintext)
	return decodeKeys(b, plaintext)
}

func decodeKeys(b Binding, plaintext []byte) (Keys, error) {
	r := wire.NewReader(plaintext)
	init, encryption := r.Vector(), r.Vector()
	if err := r.Finish(); err != nil {
		return Keys{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	initKey, err := hpke.NewSecretKey(b.Suite, b.InitKey, init)
	if err != nil {
		return Keys{}, fmt.Errorf("%w: init key: %w", ErrSealed, err)
	}
	encryptionKey, err := hpke.NewSecretKey(b.Suite, b.EncryptionKey, encryption)
	if err != nil {
		initKey.Clear()
		return Keys{}, fmt.Errorf("%w: encryption key: %w", ErrSealed, err)
	}
	return Keys{Init: initKey, Encryption: encryptionKey}, nil
}

// KeepLeaf implements Custodian. It returns a Blob whose plaintext is
//
//	opaque encryption_private_key<V> // Nsk bytes
//
// and whose additional data begins with the label "hsm-kp sealed leaf key".
func (v *Vault) KeepLeaf(ctx context.Context, rand io.Reader, b Binding, _ []byte, k Keys) ([]byte, error) {
	plaintext, err := encodeLeaf(b.Suite, k)
	defer clear(plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal leaf key: %w", err)
	}
	blob := Blob{Suite: b.Suite.ID, KeyID: v.id}
	if _, err := io.ReadFull(rand, blob.Nonce[:]); err != nil {
		return nil, fmt.Errorf("seal leaf key: %w", err)
	}
	if blob.Ciphertext, err = v.key.Seal(ctx, &blob.Nonce, plaintext, blob.boundData(leafLabel, b.to()...)); err != nil {
		return nil, fmt.Errorf("seal leaf key: %w", err)
	}
	return blob.Bytes(), nil
}

// encodeLeaf encodes the plaintext of a leaf alone, in a buffer of its exact size. The caller
// clears it, even after an error.
func encodeLeaf(s *ciphersuite.Suite, k Keys) ([]byte, error) {
	secret, ok := k.Secret()
	if !ok {
		return nil, errors.New("it is not in memory")
	}
	return secret.Encryption.AppendTo(wire.AppendVectorLen(make([]byte, 0, wire.VectorLen(s.Nsk)+s.Nsk), s.Nsk))
}

// Leaf implements Custodian.
func (v *Vault) Leaf(ctx context.Context, b Binding, leaf []byte) (Keys, error) {
	plaintext, err := v.unseal(ctx, leafLabel, b, leaf)
	if err != nil {
		return Keys{}, err
	}
	defer clear(plaintext)
	return decodeLeaf(b, plaintext)
}

func decodeLeaf(b Binding, plaintext []byte) (Keys, error) {
	r := wire.NewReader(plaintext)
	private := r.Vector()
	if err := r.Finish(); err != nil {
		return Keys{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	key, err := hpke.NewSecretKey(b.Suite, b.EncryptionKey, private)
	if err != nil {
		return Keys{}, fmt.Errorf("%w: leaf key: %w", ErrSealed, err)
	}
	return Keys{Encryption: key}, nil
}

// Rewrap implements Custodian. The private keys are in memory meanwhile.
func (v *Vault) Rewrap(ctx context.Context, rand io.Reader, b Binding, sealed []byte, leaf bool, to Custodian) ([]byte, error) {
	return resealed(ctx, rand, v, b, sealed, leaf, to)
}

// resealed opens what one Sealer sealed, or a leaf alone, and has another Sealer seal it,
// which may use another mechanism.
func resealed(ctx context.Context, rand io.Reader, from Sealer, b Binding, sealed []byte, leaf bool, to Custodian) ([]byte, error) {
	other, ok := to.(Sealer)
	if !ok {
		return nil, errCustody
	}
	if err := other.Serves(ctx, b.Suite); err != nil {
		return nil, fmt.Errorf("rewrap private keys: %w", err)
	}
	if leaf {
		keys, err := from.Leaf(ctx, b, sealed)
		if err != nil {
			return nil, err
		}
		defer keys.Clear()
		if err := keys.Check(); err != nil {
			return nil, err
		}
		return other.KeepLeaf(ctx, rand, b, nil, keys)
	}
	keys, err := from.Keys(ctx, b, sealed)
	if err != nil {
		return nil, err
	}
	defer keys.Clear()
	// A faulty token may have returned others.
	if err := keys.Check(); err != nil {
		return nil, err
	}
	secret, _ := keys.Secret()
	return other.Seal(ctx, rand, b, secret)
}

// errCustody reports an attempt to move private keys to another custody.
var errCustody = errors.New("rewrap private keys: the other wrapping key is of another custody")

// unseal opens a blob that was sealed under a label for a key package. The caller clears the
// plaintext.
func (v *Vault) unseal(ctx context.Context, label string, b Binding, sealed []byte) ([]byte, error) {
	blob, err := ParseBlob(sealed)
	if err != nil {
		return nil, err
	}
	if blob.Suite != b.Suite.ID || string(blob.KeyID) != string(v.id) {
		return nil, fmt.Errorf("%w: they are for %v under wrapping key %v, want %v under %v", ErrSealed, blob.Suite, blob.KeyID, b.Suite.ID, v.id)
	}
	plaintext, err := v.key.Open(ctx, blob.Nonce, blob.Ciphertext, blob.boundData(label, b.to()...))
	if errors.Is(err, token.ErrDecrypt) {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	if err != nil {
		return nil, fmt.Errorf("unseal private keys: %w", err)
	}
	return plaintext, nil
}
