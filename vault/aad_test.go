package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
)

// A blob of the first version of the format opens with the key and docs/FORMATS.md alone:
// it freezes the additional data and the plaintext. It was made by AES-256-GCM in software.
func TestSealedFormIsFrozen(t *testing.T) {
	s, _ := ciphersuite.Lookup(ciphersuite.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519)
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	ref := make([]byte, 32)
	for i := range ref {
		ref[i] = byte(0x80 + i)
	}
	raw, err := hex.DecodeString(frozenBlob)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := ParseBlob(raw)
	if err != nil {
		t.Fatalf("ParseBlob() err = %v, want nil", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	plaintext, err := gcm.Open(nil, blob.Nonce[:], blob.Ciphertext, blob.boundData(sealLabel, ref))
	if err != nil {
		t.Fatalf("the frozen blob does not open: %v", err)
	}
	decoded, err := decodeKeys(bindingOf(s), plaintext)
	if err != nil {
		t.Fatalf("decodeKeys() err = %v, want nil", err)
	}
	keys, _ := decoded.Secret()
	if got := hex.EncodeToString(keys.Init.Bytes()); got != "1111111111111111111111111111111111111111111111111111111111111111" {
		t.Errorf("init key = %s", got)
	}
	if got := hex.EncodeToString(keys.Encryption.Bytes()); got != "2222222222222222222222222222222222222222222222222222222222222222" {
		t.Errorf("encryption key = %s", got)
	}
}

// The same for a leaf alone, which opens under its own label only.
func TestAFrozenLeafOpens(t *testing.T) {
	s, _ := ciphersuite.Lookup(1)
	key, ref := make([]byte, 32), make([]byte, 32)
	for i := range key {
		key[i], ref[i] = byte(i), byte(0x80+i)
	}
	raw, err := hex.DecodeString(frozenLeaf)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := ParseBlob(raw)
	if err != nil {
		t.Fatalf("ParseBlob() err = %v, want nil", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := gcm.Open(nil, blob.Nonce[:], blob.Ciphertext, blob.boundData(sealLabel, ref)); err == nil {
		t.Error("a leaf opens as both private keys")
	}
	plaintext, err := gcm.Open(nil, blob.Nonce[:], blob.Ciphertext, blob.boundData(leafLabel, ref))
	if err != nil {
		t.Fatalf("the frozen leaf does not open: %v", err)
	}
	keys, err := decodeLeaf(bindingOf(s), plaintext)
	if err != nil {
		t.Fatalf("decodeLeaf() err = %v, want nil", err)
	}
	secret, _ := keys.Secret()
	if got := hex.EncodeToString(secret.Encryption.Bytes()); got != strings.Repeat("22", 32) {
		t.Errorf("encryption key = %s", got)
	}
	for n := range plaintext {
		if _, err := decodeLeaf(bindingOf(s), plaintext[:n]); !errors.Is(err, ErrSealed) {
			t.Errorf("first %d bytes: decodeLeaf() err = %v, want %v", n, err, ErrSealed)
		}
	}
}

// The plaintext is authenticated, so only a bug or a key of another program makes one that
// does not decode. It must not become half a pair.
func TestAPlaintextCutAnywhereIsRefused(t *testing.T) {
	for _, s := range ciphersuite.All() {
		var k PrivateKeys
		var err error
		if k.Init, err = hpke.GenerateKeyPair(s, rand.Reader); err != nil {
			t.Fatal(err)
		}
		if k.Encryption, err = hpke.GenerateKeyPair(s, rand.Reader); err != nil {
			t.Fatal(err)
		}
		plaintext, err := encodePrivateKeys(s, k)
		if err != nil {
			t.Fatal(err)
		}
		if cap(plaintext) != len(plaintext) {
			t.Errorf("%v: the plaintext has %d bytes in a buffer of %d: it may have grown", s.ID, len(plaintext), cap(plaintext))
		}
		for n := range plaintext {
			if got, err := decodeKeys(bindingOf(s), plaintext[:n]); !errors.Is(err, ErrSealed) || got != (Keys{}) {
				t.Errorf("%v: first %d bytes: decodeKeys() err = %v, want %v and no keys", s.ID, n, err, ErrSealed)
			}
		}
		if _, err := decodeKeys(bindingOf(s), append(plaintext, 0)); !errors.Is(err, ErrSealed) {
			t.Errorf("%v: a byte more: decodeKeys() err = %v, want %v", s.ID, err, ErrSealed)
		}
	}
}

// bindingOf returns the binding of a key package whose public keys do not matter.
func bindingOf(s *ciphersuite.Suite) Binding {
	return Binding{Suite: s, InitKey: make([]byte, s.Npk), EncryptionKey: make([]byte, s.Npk)}
}

const frozenLeaf = "0101000110000102030405060708090a0b0c0d0e0f606162636465666768696a6b31caf9b9779962a14d5e34db0950afe3610457ababa64610fb8183a24e5ed0d52a903f22d8f2f488a3b0b958d65bbbd5d125"

const frozenBlob = "0101000110000102030405060708090a0b0c0d0e0f404142434445464748494a4b4052c2a8bf32372d9612dcd506278a75024a68d7434da6241e3266565ff48602fcca8928d18efc9bfd7603d6294db32ffdf8e953881311e5c02ba338f62605c80ae2c63112577c4e279a9227b3c02ddda42a0881"
