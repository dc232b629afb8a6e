// Package vault keeps the HPKE private keys of key packages under a wrapping key in the
// token. There are three ways. A Vault seals keys that were made in software, and only the
// token opens them again. An RSAVault does the same with an RSA key, for tokens without
// AES-GCM. A TokenVault has the token make, wrap, unwrap and use the keys, and never has them
// in memory. All three are a Custodian, the first two also a Sealer.
//
// What is kept is bound to its key package: for another key package it does not open, or is
// found not to fit.
//
// The Example of package signer seals private keys and opens them again.
package vault

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/stringer"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
)

// Sentinels for what a caller branches on.
var (
	// ErrSealed reports a blob that does not open: it is damaged, or was sealed for
	// another key package, suite or wrapping key.
	ErrSealed = errors.New("sealed private keys do not open")
	// ErrMixedUp reports private keys of another key package than the one whose record
	// they are in.
	ErrMixedUp = errors.New("record was changed outside of hsm-kp: its parts are not of one key package")
	// ErrWeakKey reports a wrapping key whose attributes allow it, or what it sealed, to
	// leave the token.
	ErrWeakKey = errors.New("wrapping key has unsafe attributes")
)

// KeyID is the CKA_ID of a wrapping key: 16 random bytes if it is one of NewKeyID or New.
type KeyID []byte

// String returns the id in hexadecimal.
func (id KeyID) String() string { return hex.EncodeToString(id) }

// Format prints the hexadecimal under %v, %s, %x and %X, and in quotes under %q.
func (id KeyID) Format(f fmt.State, verb rune) { stringer.Format(f, verb, id.String(), []byte(id)) }

// PrivateKeys are the two HPKE private keys of one key package.
type PrivateKeys struct {
	Init       *hpke.SecretKey // of init_key
	Encryption *hpke.SecretKey // of the leaf node's encryption_key
}

// Clear overwrites both. It does nothing to nil keys.
func (k PrivateKeys) Clear() {
	k.Init.Clear()
	k.Encryption.Clear()
}

func (k PrivateKeys) areOf(s *ciphersuite.Suite) bool {
	return k.Init != nil && k.Encryption != nil && k.Init.Suite().ID == s.ID && k.Encryption.Suite().ID == s.ID
}

// Vault seals and unseals with one wrapping key, by AES-256-GCM in the token. It is safe for
// concurrent use.
type Vault struct {
	key *token.WrappingKey
	id  KeyID
}

// NewKeyID returns an id for a new wrapping key: 16 bytes of rand.
func NewKeyID(rand io.Reader) (KeyID, error) {
	id := make(KeyID, 16)
	if _, err := io.ReadFull(rand, id); err != nil {
		return nil, fmt.Errorf("choose a wrapping key's id: %w", err)
	}
	return id, nil
}

// New generates a wrapping key in the token. id is its CKA_ID, which no other key there
// may have; nil means 16 random bytes. The key is an AES-256 key that can neither leave the token
// nor wrap others. New tries it out, and returns it with its stamp, by which Recognize
// recognizes it later (see Prove). A key that fails is destroyed.
func New(ctx context.Context, t *token.Token, rand io.Reader, id KeyID, label string) (v *Vault, stamp []byte, err error) {
	key, err := t.GenerateWrappingKey(ctx, id, label)
	if err != nil {
		return nil, nil, err
	}
	if v, err = Open(ctx, t, key.ID()); err == nil {
		stamp, err = v.Prove(ctx, rand)
	}
	if err != nil {
		// The key must not stay behind, even if ctx is done.
		return nil, nil, errors.Join(err, t.DestroyWrappingKey(context.WithoutCancel(ctx), key))
	}
	return v, stamp, nil
}

// Open finds the wrapping key with the given id and checks its attributes. Call Recognize
// with its stamp before you use it. The error wraps token.ErrNotFound, token.ErrAmbiguousKey
// or ErrWeakKey, or is the token's.
func Open(ctx context.Context, t *token.Token, id KeyID) (*Vault, error) {
	key, err := t.FindWrappingKey(ctx, id)
	if err != nil {
		return nil, err
	}
	attributes, err := key.Attributes(ctx)
	if err != nil {
		return nil, err
	}
	if faults := weaknesses(attributes); len(faults) > 0 {
		return nil, fmt.Errorf("open wrapping key %v: %w: %s", id, ErrWeakKey, strings.Join(faults, ", "))
	}
	return &Vault{key: key, id: key.ID()}, nil
}

// KeyID implements Custodian.
func (v *Vault) KeyID() KeyID { return v.id }

// Seal implements Sealer. It returns the bytes of a Blob.
//
// The nonce is 12 bytes of rand. With random nonces a key may seal 2^32 times at most (NIST SP
// 800-38D, Section 8.3). The caller counts.
func (v *Vault) Seal(ctx context.Context, rand io.Reader, b Binding, k PrivateKeys) ([]byte, error) {
	if err := sealable(b, k); err != nil {
		return nil, fmt.Errorf("seal private keys: %w", err)
	}
	blob := Blob{Suite: b.Suite.ID, KeyID: v.id}
	if _, err := io.ReadFull(rand, blob.Nonce[:]); err != nil {
		return nil, fmt.Errorf("seal private keys: %w", err)
	}
	plaintext, err := encodePrivateKeys(b.Suite, k)
	defer clear(plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal private keys: %w", err)
	}
	blob.Ciphertext, err = v.key.Seal(ctx, &blob.Nonce, plaintext, blob.boundData(b.label(), b.to()...))
	if err != nil {
		return nil, fmt.Errorf("seal private keys: %w", err)
	}
	return blob.Bytes(), nil
}

func sealable(b Binding, k PrivateKeys) error {
	if !k.areOf(b.Suite) {
		return fmt.Errorf("they are not two keys of %v", b.Suite.ID)
	}
	if len(b.Ref) != b.Suite.Nh {
		return fmt.Errorf("the key package ref has %d bytes, want %d", len(b.Ref), b.Suite.Nh)
	}
	return nil
}

// encodePrivateKeys encodes the plaintext of a blob in a buffer of its exact size, so that
// growing it leaves no copy behind. The caller clears it, even after an error.
func encodePrivateKeys(s *ciphersuite.Suite, k PrivateKeys) ([]byte, error) {
	b := make([]byte, 0, 2*(wire.VectorLen(s.Nsk)+s.Nsk))
	for _, key := range []*hpke.SecretKey{k.Init, k.Encryption} {
		var err error
		if b, err = key.AppendTo(wire.AppendVectorLen(b, s.Nsk)); err != nil {
			return b, err
		}
	}
	return b, nil
}
