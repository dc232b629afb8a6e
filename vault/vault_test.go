package vault_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

func newVault(tb testing.TB, t *token.Token) *vault.Vault {
	tb.Helper()
	id, err := vault.CreateKey(tb.Context(), t, "test")
	if err != nil {
		tb.Fatal(err)
	}
	v, err := vault.Open(tb.Context(), t, id)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func newKeys(tb testing.TB, s *ciphersuite.Suite) vault.PrivateKeys {
	tb.Helper()
	var k vault.PrivateKeys
	var err error
	if k.Init, err = hpke.GenerateKeyPair(s, rand.Reader); err != nil {
		tb.Fatal(err)
	}
	if k.Encryption, err = hpke.GenerateKeyPair(s, rand.Reader); err != nil {
		tb.Fatal(err)
	}
	return k
}

func newRef(s *ciphersuite.Suite) []byte {
	ref := make([]byte, s.Nh)
	rand.Read(ref)
	return ref
}

func TestSealedKeysComeBackForEverySuite(t *testing.T) {
	v := newVault(t, softhsmtest.Open(t))
	for _, s := range ciphersuite.All() {
		t.Run(s.Name, func(t *testing.T) {
			keys, ref := newKeys(t, s), newRef(s)
			sealed, err := v.Seal(t.Context(), rand.Reader, ref, s, keys)
			if err != nil {
				t.Fatalf("Seal() err = %v, want nil", err)
			}
			for _, secret := range [][]byte{keys.Init.Bytes(), keys.Encryption.Bytes()} {
				if bytes.Contains(sealed, secret) {
					t.Error("the sealed blob contains a private key")
				}
			}
			got, err := v.Unseal(t.Context(), ref, s, sealed)
			if err != nil {
				t.Fatalf("Unseal() err = %v, want nil", err)
			}
			if !bytes.Equal(got.Init.Bytes(), keys.Init.Bytes()) || !bytes.Equal(got.Encryption.Bytes(), keys.Encryption.Bytes()) {
				t.Error("Unseal() returned other keys")
			}
			if !bytes.Equal(got.Init.PublicKey(), keys.Init.PublicKey()) {
				t.Error("Unseal() returned a key with another public key")
			}
		})
	}
}

func TestABlobOpensOnlyWhereItBelongs(t *testing.T) {
	tok := softhsmtest.Open(t)
	v, other := newVault(t, tok), newVault(t, tok)
	s1, _ := ciphersuite.Lookup(1)
	s3, _ := ciphersuite.Lookup(3)
	ref := newRef(s1)
	sealed, err := v.Seal(t.Context(), rand.Reader, ref, s1, newKeys(t, s1))
	if err != nil {
		t.Fatal(err)
	}
	for name, unseal := range map[string]func() error{
		"another ref":          func() error { _, err := v.Unseal(t.Context(), newRef(s1), s1, sealed); return err },
		"another suite":        func() error { _, err := v.Unseal(t.Context(), ref, s3, sealed); return err },
		"another wrapping key": func() error { _, err := other.Unseal(t.Context(), ref, s1, sealed); return err },
		"suite rewritten":      func() error { return unsealChanged(t.Context(), v, ref, s3, sealed, 3, 1^3) },
		"algorithm rewritten":  func() error { return unsealChanged(t.Context(), v, ref, s1, sealed, 1, 2) },
		"truncated":            func() error { _, err := v.Unseal(t.Context(), ref, s1, sealed[:len(sealed)-1]); return err },
		"empty":                func() error { _, err := v.Unseal(t.Context(), ref, s1, nil); return err },
	} {
		if err := unseal(); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("%s: Unseal() err = %v, want %v", name, err, vault.ErrSealed)
		}
	}
	for i := range sealed {
		if err := unsealChanged(t.Context(), v, ref, s1, sealed, i, 0x80); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("byte %d changed: Unseal() err = %v, want %v", i, err, vault.ErrSealed)
		}
	}
	if _, err := v.Unseal(t.Context(), ref, s1, sealed); err != nil {
		t.Errorf("after all of that: Unseal() err = %v, want nil", err)
	}
}

func unsealChanged(ctx context.Context, v *vault.Vault, ref []byte, s *ciphersuite.Suite, sealed []byte, at int, flip byte) error {
	changed := bytes.Clone(sealed)
	changed[at] ^= flip
	_, err := v.Unseal(ctx, ref, s, changed)
	return err
}

func TestSealRefusesKeysOfAnotherSuite(t *testing.T) {
	v := newVault(t, softhsmtest.Open(t))
	s1, _ := ciphersuite.Lookup(1)
	s3, _ := ciphersuite.Lookup(3)
	if _, err := v.Seal(t.Context(), rand.Reader, newRef(s1), s1, newKeys(t, s3)); err == nil {
		t.Error("Seal() of keys of another suite err = nil, want one")
	}
	if _, err := v.Seal(t.Context(), rand.Reader, newRef(s1), s1, vault.PrivateKeys{}); err == nil {
		t.Error("Seal() of no keys err = nil, want one")
	}
}

func TestOpenOfAMissingKey(t *testing.T) {
	_, err := vault.Open(t.Context(), softhsmtest.Open(t), vault.KeyID("0123456789abcdef"))
	if !errors.Is(err, token.ErrNotFound) {
		t.Errorf("Open() err = %v, want %v", err, token.ErrNotFound)
	}
}

func TestPrivateKeysPrintRedacted(t *testing.T) {
	s, _ := ciphersuite.Lookup(2)
	keys := newKeys(t, s)
	secret := hex.EncodeToString(keys.Init.Bytes())
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q"} {
		if out := fmt.Sprintf(format, keys); bytes.Contains([]byte(out), []byte(secret[:16])) {
			t.Errorf("Sprintf(%q) shows the key", format)
		}
	}
}

// The form of a blob is frozen: stores hold it for as long as a key package
// lives.
func TestBlobFormIsFrozen(t *testing.T) {
	const frozen = "01" + "01" + "0002" + "10" + "000102030405060708090a0b0c0d0e0f" +
		"a0a1a2a3a4a5a6a7a8a9aaab" + "05" + "c0c1c2c3c4"
	raw, err := hex.DecodeString(frozen)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := vault.ParseBlob(raw)
	if err != nil {
		t.Fatalf("ParseBlob() err = %v, want nil", err)
	}
	if blob.Suite != 2 || blob.KeyID.String() != "000102030405060708090a0b0c0d0e0f" ||
		blob.Nonce[0] != 0xA0 || blob.Nonce[11] != 0xAB || !bytes.Equal(blob.Ciphertext, raw[len(raw)-5:]) {
		t.Errorf("ParseBlob() = %+v", blob)
	}
	if got := blob.Bytes(); !bytes.Equal(got, raw) {
		t.Errorf("Bytes() = %x, want %s", got, frozen)
	}
	for n := range raw {
		if _, err := vault.ParseBlob(raw[:n]); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("ParseBlob() of the first %d bytes err = %v, want %v", n, err, vault.ErrSealed)
		}
	}
	if _, err := vault.ParseBlob(append(raw, 0)); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("ParseBlob() with a trailing byte err = %v, want %v", err, vault.ErrSealed)
	}
}

func FuzzParseBlob(f *testing.F) {
	f.Add((&vault.Blob{Suite: 2, KeyID: make([]byte, 16), Ciphertext: make([]byte, 82)}).Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		blob, err := vault.ParseBlob(raw)
		if err == nil && !bytes.Equal(blob.Bytes(), raw) {
			t.Errorf("Bytes() of ParseBlob(%x) = %x", raw, blob.Bytes())
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	v := newVault(b, softhsmtest.Open(b))
	s, _ := ciphersuite.Lookup(2)
	keys, ref := newKeys(b, s), newRef(s)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Seal(b.Context(), rand.Reader, ref, s, keys); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnseal(b *testing.B) {
	v := newVault(b, softhsmtest.Open(b))
	s, _ := ciphersuite.Lookup(2)
	ref := newRef(s)
	sealed, err := v.Seal(b.Context(), rand.Reader, ref, s, newKeys(b, s))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		keys, err := v.Unseal(b.Context(), ref, s, sealed)
		if err != nil {
			b.Fatal(err)
		}
		keys.Clear()
	}
}
