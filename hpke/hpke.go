// Package hpke is HPKE (RFC 9180) as MLS uses it: key pairs for the init_key and the
// encryption_key of a key package, encryption with a label (RFC 9420, Section 5.1.3), and
// the single-shot Seal beneath it.
//
// A PrivateKey may be opaque. SecretKey is one whose bytes are in memory, ExchangeKey one
// whose Diffie-Hellman is done elsewhere.
//
// All functions may be called by several goroutines at once.
package hpke

import (
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// ErrOpen reports a ciphertext that does not open: it is damaged, or was made for another
// key, label or context.
var ErrOpen = errors.New("ciphertext does not open")

// PrivateKey opens what was encrypted to its public key. Implementations are
// safe for concurrent use.
type PrivateKey interface {
	// PublicKey returns the encoded public key, Npk bytes, which the caller must not
	// change.
	PublicKey() []byte
	// Open is the single-shot decryption of RFC 9180, Section 6.1, in base mode
	// (OpenBase). kemOutput has Nenc bytes. The plaintext is the caller's. The error
	// wraps ErrOpen if the ciphertext, the KEM output, info or aad is at fault.
	Open(info, aad, kemOutput, ciphertext []byte) ([]byte, error)
}

// EncryptWithLabel encrypts plaintext to publicKey under label and context (RFC 9420,
// Section 5.1.3). It puts "MLS 1.0 " before the label. kemOutput has Nenc bytes, ciphertext
// Nt bytes more than plaintext. It fails if ValidPublicKey does.
func EncryptWithLabel(s *ciphersuite.Suite, publicKey []byte, label string, context, plaintext []byte) (kemOutput, ciphertext []byte, err error) {
	kemOutput, ciphertext, err = Seal(s, publicKey, encryptContext(label, context), nil, plaintext)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypt %q: %w", label, err)
	}
	return kemOutput, ciphertext, nil
}

// Seal is the single-shot encryption of RFC 9180, Section 6.1, in base mode (SealBase), with
// the HPKE algorithms of the suite. enc has Nenc bytes, ciphertext Nt bytes more than
// plaintext. It fails if ValidPublicKey does. PrivateKey.Open decrypts.
func Seal(s *ciphersuite.Suite, publicKey, info, aad, plaintext []byte) (enc, ciphertext []byte, err error) {
	if err := ValidPublicKey(s, publicKey); err != nil {
		return nil, nil, err
	}
	return libraryOf(s).seal(publicKey, info, aad, plaintext)
}

// DecryptWithLabel decrypts with k what EncryptWithLabel encrypted under the same label and
// context (RFC 9420, Section 5.1.3). The plaintext is the caller's. The error wraps that of
// k.Open: ErrOpen if the ciphertext is at fault.
func DecryptWithLabel(k PrivateKey, label string, context, kemOutput, ciphertext []byte) ([]byte, error) {
	plaintext, err := k.Open(encryptContext(label, context), nil, kemOutput, ciphertext)
	if err != nil {
		return nil, fmt.Errorf("decrypt %q: %w", label, err)
	}
	return plaintext, nil
}

// ValidPublicKey returns an error if b is not a public key of the suite. A public key has
// Npk bytes. For a NIST curve it is an uncompressed point of the curve; for X25519 and X448
// any value but the few of small order, to which nobody can encrypt (RFC 9180, Section
// 7.1.4); for a hybrid KEM an ML-KEM key with reduced coefficients and a point as above.
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
