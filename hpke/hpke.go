// Package hpke is HPKE (RFC 9180) as MLS uses it: key pairs for the init_key
// and the encryption_key of a key package, encryption with a label
// (RFC 9420, Section 5.1.3), and the single-shot Seal beneath it. The algorithms are those of circl, and of crypto/hpke
// for experimental suites.
//
// A PrivateKey may be opaque. SecretKey is one whose bytes are in memory.
package hpke

import (
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// ErrOpen reports a ciphertext that does not open: it is damaged, or was made
// for another key, label or context.
var ErrOpen = errors.New("ciphertext does not open")

// PrivateKey opens what was encrypted to its public key. Implementations are
// safe for concurrent use.
type PrivateKey interface {
	// PublicKey returns the encoded public key, Npk bytes.
	PublicKey() []byte
	// Open is the single-shot opening of RFC 9180, Section 6.1, in base mode.
	Open(info, aad, kemOutput, ciphertext []byte) ([]byte, error)
}

// EncryptWithLabel encrypts plaintext to publicKey under label and context
// (RFC 9420, Section 5.1.3). kemOutput has Nenc bytes, ciphertext Nt bytes more
// than plaintext.
func EncryptWithLabel(s *ciphersuite.Suite, publicKey []byte, label string, context, plaintext []byte) (kemOutput, ciphertext []byte, err error) {
	kemOutput, ciphertext, err = Seal(s, publicKey, encryptContext(label, context), nil, plaintext)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypt %q: %w", label, err)
	}
	return kemOutput, ciphertext, nil
}

// Seal is the single-shot encryption of RFC 9180, Section 6.1, in base mode (SealBase), with
// the HPKE algorithms of the suite. enc has Nenc bytes, ciphertext Nt bytes more than plaintext.
// PrivateKey.Open is its counterpart.
func Seal(s *ciphersuite.Suite, publicKey, info, aad, plaintext []byte) (enc, ciphertext []byte, err error) {
	if err := ValidPublicKey(s, publicKey); err != nil {
		return nil, nil, err
	}
	return libraryOf(s).seal(publicKey, info, aad, plaintext)
}

// DecryptWithLabel opens what EncryptWithLabel made for k (RFC 9420, Section
// 5.1.3). The error wraps ErrOpen where the ciphertext is at fault.
func DecryptWithLabel(k PrivateKey, label string, context, kemOutput, ciphertext []byte) ([]byte, error) {
	plaintext, err := k.Open(encryptContext(label, context), nil, kemOutput, ciphertext)
	if err != nil {
		return nil, fmt.Errorf("decrypt %q: %w", label, err)
	}
	return plaintext, nil
}

// ValidPublicKey reports whether b can be a public key of the suite: Npk bytes
// and, for a P-curve, an uncompressed point that is on it. For X25519 and X448
// it is every value but the few of small order, to which nobody can encrypt
// (RFC 9180, Section 7.1.4). For a hybrid KEM it is what its parts take: a key of
// ML-KEM whose coefficients are reduced, and a point as above.
func ValidPublicKey(s *ciphersuite.Suite, b []byte) error {
	if len(b) != s.Npk {
		return fmt.Errorf("parse HPKE public key: it has %d bytes, want %d", len(b), s.Npk)
	}
	if err := libraryOf(s).check(b); err != nil {
		return fmt.Errorf("parse HPKE public key: %w", err)
	}
	return nil
}

// encryptContext encodes EncryptContext.
func encryptContext(label string, context []byte) []byte {
	b := wire.AppendVector(nil, []byte("MLS 1.0 "+label))
	return wire.AppendVector(b, context)
}
