package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// Sizes of AES-256-GCM in bytes.
const (
	NonceSize = 12
	TagSize   = 16
)

// WrappingKey is an AES-256 key in the token that seals by AES-GCM. It may be
// used by several goroutines at once. Its handle is kept.
type WrappingKey struct {
	aesKey
	sealing, opening engine.Gauge
}

// GenerateWrappingKey generates an AES-256 key in the token (CKM_AES_KEY_GEN) that is sensitive,
// not extractable, and able to encrypt and decrypt and nothing else: a key that could also wrap
// would decrypt what it wrapped. A nil id is 16 random bytes. If a key has the id, it fails with
// ErrKeyExists.
func (t *Token) GenerateWrappingKey(ctx context.Context, id []byte, label string) (*WrappingKey, error) {
	k := &WrappingKey{aesKey: aesKey{token: t, id: idOrRandom(id), label: label}}
	if err := k.generate(ctx, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT); err != nil {
		return nil, fmt.Errorf("generate wrapping key: %w", err)
	}
	return k, nil
}

// FindWrappingKey finds the AES-256 key of that CKA_ID. It fails with ErrNotFound if there is
// none, ErrAmbiguousKey if there are several, and ErrUnsupported for another key length.
func (t *Token) FindWrappingKey(ctx context.Context, id []byte) (*WrappingKey, error) {
	k := &WrappingKey{aesKey: aesKey{token: t, id: bytes.Clone(id)}}
	if err := run(ctx, t, k.find); err != nil {
		return nil, fmt.Errorf("find wrapping key %x: %w", id, err)
	}
	return k, nil
}

// DestroyWrappingKey destroys the key in the token (C_DestroyObject). Nothing that it sealed
// opens any more. It cannot be undone.
func (t *Token) DestroyWrappingKey(ctx context.Context, k *WrappingKey) error {
	if err := k.destroy(ctx); err != nil {
		return fmt.Errorf("destroy wrapping key %x: %w", k.id, err)
	}
	return nil
}

// Seal encrypts plaintext by AES-256-GCM (CKM_AES_GCM) and returns the ciphertext with the tag of
// 16 bytes at its end. The nonce must never be used again under this key; with Quirks.TokenNonce
// it is replaced by the one that the token made. Neither slice is kept.
func (k *WrappingKey) Seal(ctx context.Context, nonce *[NonceSize]byte, plaintext, aad []byte) ([]byte, error) {
	wanted := *nonce
	made, err := do(ctx, k.token, func(s session) (made sealed, err error) {
		h, err := k.in(s)
		if err != nil {
			return sealed{}, err
		}
		err = k.sealing.With(s.Session, k, h, func(h pkcs11.ObjectHandle) error {
			made, err = s.seal(h, wanted, plaintext, aad)
			return err
		})
		return made, err
	})
	if err != nil {
		return nil, fmt.Errorf("seal under key %x: %w", k.id, err)
	}
	*nonce = made.nonce
	k.witness(made.nonce, made.ciphertext, aad)
	return made.ciphertext, nil
}

// sealed is a ciphertext with the nonce that it opens under.
type sealed struct {
	nonce      [NonceSize]byte
	ciphertext []byte
}

// errNonce reports a token that took a nonce of its own, as some cloud HSMs do: the ciphertext
// would not open under the one that the caller will store.
var errNonce = errors.New("token did not use the given nonce")

// errNoNonce reports a token that should have made the nonce, and left the zeros that it was
// given: it may have used them, and would again.
var errNoNonce = errors.New("token did not make a nonce")

func (s session) seal(key pkcs11.ObjectHandle, nonce [NonceSize]byte, plaintext, aad []byte) (sealed, error) {
	tokens := s.Quirks().TokenNonce
	if tokens {
		nonce = [NonceSize]byte{}
	}
	ciphertext, used, err := s.EncryptGCM(key, nonce, plaintext, aad)
	if err != nil {
		return sealed{}, err
	}
	switch same := bytes.Equal(used, nonce[:]); {
	case !tokens && !same:
		return sealed{}, errNonce
	case tokens && (same || len(used) != NonceSize):
		return sealed{}, errNoNonce
	}
	if len(ciphertext) != len(plaintext)+TagSize {
		return sealed{}, fmt.Errorf("token returned %d bytes, want %d", len(ciphertext), len(plaintext)+TagSize)
	}
	return sealed{[NonceSize]byte(used), ciphertext}, nil
}

// Open decrypts what Seal returned, under the same nonce and additional data. The caller clears
// the plaintext. It fails with ErrDecrypt if key, nonce, ciphertext or additional data is not the
// right one; other errors are the token's.
func (k *WrappingKey) Open(ctx context.Context, nonce [NonceSize]byte, ciphertext, aad []byte) ([]byte, error) {
	if len(ciphertext) < TagSize {
		return nil, fmt.Errorf("open under key %x: %w: %d bytes", k.id, ErrDecrypt, len(ciphertext))
	}
	plaintext, err := do(ctx, k.token, func(s session) (plaintext []byte, err error) {
		h, err := k.in(s)
		if err != nil {
			return nil, err
		}
		err = k.opening.With(s.Session, k, h, func(h pkcs11.ObjectHandle) error {
			plaintext, err = s.open(h, nonce, ciphertext, aad)
			return err
		})
		return plaintext, err
	})
	if err != nil {
		return nil, fmt.Errorf("open under key %x: %w", k.id, err)
	}
	k.witness(nonce, ciphertext, aad)
	return plaintext, nil
}

// witness keeps the first ciphertext of the key as its proof: another key does not open it.
func (k *WrappingKey) witness(nonce [NonceSize]byte, ciphertext, aad []byte) {
	k.prove(func() proof {
		ciphertext, aad := bytes.Clone(ciphertext), bytes.Clone(aad)
		return func(s session, key pkcs11.ObjectHandle) error {
			plaintext, err := s.open(key, nonce, ciphertext, aad)
			clear(plaintext)
			return err
		}
	})
}

func (s session) open(key pkcs11.ObjectHandle, nonce [NonceSize]byte, ciphertext, aad []byte) ([]byte, error) {
	plaintext, err := s.DecryptGCM(key, nonce, ciphertext, aad)
	if call, ok := errors.AsType[*Error](err); ok && call.Func == "C_Decrypt" && slices.Contains(badCiphertext, call.RV) {
		return nil, fmt.Errorf("%w: %w", ErrDecrypt, err)
	}
	if err == nil && len(plaintext) != len(ciphertext)-TagSize {
		return nil, fmt.Errorf("token returned %d bytes, want %d", len(plaintext), len(ciphertext)-TagSize)
	}
	return plaintext, err
}

// badCiphertext is what tokens return for a tag that does not fit. SoftHSM 2.6 returns
// CKR_GENERAL_ERROR, which might be anything; a device that is gone returns something else.
var badCiphertext = []RV{
	engine.CKR_GENERAL_ERROR, engine.CKR_FUNCTION_FAILED, engine.CKR_DATA_INVALID, engine.CKR_DATA_LEN_RANGE,
	engine.CKR_ENCRYPTED_DATA_INVALID, engine.CKR_ENCRYPTED_DATA_LEN_RANGE, engine.CKR_AEAD_DECRYPT_FAILED,
}
