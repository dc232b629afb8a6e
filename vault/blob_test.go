package vault_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// The form is frozen: stores keep blobs for as long as a key package lives.
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
	for _, s := range ciphersuite.All() {
		plaintext := 2 * (wire.VectorLen(s.Nsk) + s.Nsk)
		blob := vault.Blob{Suite: s.ID, KeyID: make([]byte, 16), Ciphertext: make([]byte, plaintext+token.TagSize)}
		f.Add(blob.Bytes())
	}
	f.Add([]byte{2, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		blob, err := vault.ParseBlob(raw)
		if err == nil && !bytes.Equal(blob.Bytes(), raw) {
			t.Errorf("Bytes() of ParseBlob(%x) = %x", raw, blob.Bytes())
		}
	})
}
