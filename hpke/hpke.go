// Package hpke is HPKE (RFC 9180) as MLS uses it: key pairs for the init_key
// and the encryption_key of a key package, and encryption with a label
// (RFC 9420, Section 5.1.3). The algorithms are those of circl.
//
// A PrivateKey may be opaque. SecretKey is one whose bytes are in memory.
package hpke

import (
	"crypto/rand"
	"errors"
	"fmt"

	circl "github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/kem"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/wire"
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
	public, err := unmarshalPublic(s, publicKey)
	if err != nil {
		return nil, nil, err
	}
	sender, err := suiteOf(s).NewSender(public, encryptContext(label, context))
	if err != nil {
		return nil, nil, fmt.Errorf("encrypt %q: %w", label, err)
	}
	kemOutput, sealer, err := sender.Setup(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypt %q: %w", label, err)
	}
	ciphertext, err = sealer.Seal(plaintext, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypt %q: %w", label, err)
	}
	return kemOutput, ciphertext, nil
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
// (RFC 9180, Section 7.1.4).
func ValidPublicKey(s *ciphersuite.Suite, b []byte) error {
	_, err := unmarshalPublic(s, b)
	return err
}

func unmarshalPublic(s *ciphersuite.Suite, b []byte) (kem.PublicKey, error) {
	if len(b) != s.Npk {
		return nil, fmt.Errorf("parse HPKE public key: it has %d bytes, want %d", len(b), s.Npk)
	}
	if smallOrder(circl.KEM(s.KEM), b) {
		return nil, errors.New("parse HPKE public key: it is a point of small order")
	}
	public, err := circl.KEM(s.KEM).Scheme().UnmarshalBinaryPublicKey(b)
	if err != nil {
		return nil, fmt.Errorf("parse HPKE public key: %w", err)
	}
	return public, nil
}

// encryptContext encodes EncryptContext.
func encryptContext(label string, context []byte) []byte {
	b := wire.AppendVector(nil, []byte("MLS 1.0 "+label))
	return wire.AppendVector(b, context)
}

func suiteOf(s *ciphersuite.Suite) circl.Suite {
	return circl.NewSuite(circl.KEM(s.KEM), circl.KDF(s.KDF), circl.AEAD(s.AEAD))
}
