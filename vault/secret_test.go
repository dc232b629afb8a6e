package vault_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/vault"
)

func TestASecretOpensForItsRecordOnly(t *testing.T) {
	tok := openToken(t)
	one, _ := newRSAVault(t, tok)
	other, _ := newRSAVault(t, tok)
	t.Run(string(vault.AESGCM), func(t *testing.T) { secretOpensForItsRecordOnly(t, newVault(t, tok), newVault(t, tok)) })
	t.Run(string(vault.RSAOAEP), func(t *testing.T) { secretOpensForItsRecordOnly(t, one, other) })
}

func secretOpensForItsRecordOnly(t *testing.T, v, other vault.Sealer) {
	ctx, record, secret := t.Context(), []byte("record"), []byte("0123456789abcdef0123456789abcdef")
	sealed, err := v.SealSecret(ctx, rand.Reader, "kind", record, secret)
	if err != nil || bytes.Contains(sealed, secret) {
		t.Fatalf("SealSecret() = %x, %v, want it sealed", sealed, err)
	}
	if got, err := v.OpenSecret(ctx, "kind", record, sealed); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("OpenSecret() = %x, %v, want %x", got, err, secret)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another record": func() ([]byte, error) { return v.OpenSecret(ctx, "kind", []byte("other"), sealed) },
		"another kind":   func() ([]byte, error) { return v.OpenSecret(ctx, "other", record, sealed) },
		"a moved limit":  func() ([]byte, error) { return v.OpenSecret(ctx, "kin", []byte("drecord"), sealed) },
		"another key":    func() ([]byte, error) { return other.OpenSecret(ctx, "kind", record, sealed) },
		"nothing":        func() ([]byte, error) { return v.OpenSecret(ctx, "kind", record, nil) },
	} {
		if got, err := open(); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("%s: OpenSecret() = %x, %v, want %v", name, got, err, vault.ErrSealed)
		}
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 0x10
		if got, err := v.OpenSecret(ctx, "kind", record, changed); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("byte %d changed: OpenSecret() = %x, %v, want %v", i, got, err, vault.ErrSealed)
		}
	}
	stamp, err := v.Stamp(ctx, rand.Reader, "kind", record)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.OpenSecret(ctx, "kind", record, stamp); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("OpenSecret() of a stamp = %x, %v, want %v", got, err, vault.ErrSealed)
	}
}
