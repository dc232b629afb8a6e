package ciphersuite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// NewAEAD returns the suite's AEAD (RFC 9420, Section 5.1) with a key of Nk bytes. Its
// nonces have Nn bytes. Its ciphertexts end with a tag of Nt bytes. It fails if key has
// another length.
func (s *Suite) NewAEAD(key []byte) (cipher.AEAD, error) {
	if len(key) != s.Nk {
		return nil, fmt.Errorf("make AEAD of %v: the key has %d bytes, want %d", s.ID, len(key), s.Nk)
	}
	if s.AEAD == chacha20 {
		return chacha20poly1305.New(key)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Extract returns KDF.Extract of the suite (RFC 9420, Section 5.1), which is HKDF-Extract
// with its hash: Nh bytes. It fails only in Go's FIPS 140-only mode.
func (s *Suite) Extract(salt, ikm []byte) ([]byte, error) {
	return hkdf.Extract(s.Hash.New, ikm, salt)
}
