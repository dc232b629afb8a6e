package vault_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/vault"
)

func TestAStampFitsItsRecordOnly(t *testing.T) {
	tok := openToken(t)
	one, _ := newRSAVault(t, tok)
	other, _ := newRSAVault(t, tok)
	t.Run(string(vault.AESGCM), func(t *testing.T) { stampFitsItsRecordOnly(t, newVault(t, tok), newVault(t, tok)) })
	t.Run(string(vault.RSAOAEP), func(t *testing.T) { stampFitsItsRecordOnly(t, one, other) })
}

func stampFitsItsRecordOnly(t *testing.T, v, other vault.Sealer) {
	record := []byte("alice signs with key 1")
	stamp, err := v.Stamp(t.Context(), rand.Reader, "identity", record)
	if err != nil {
		t.Fatalf("Stamp() err = %v, want nil", err)
	}
	if err := v.CheckStamp(t.Context(), "identity", record, stamp); err != nil {
		t.Errorf("CheckStamp() err = %v, want nil", err)
	}
	if id, err := vault.StampKey(stamp); err != nil || !bytes.Equal(id, v.KeyID()) {
		t.Errorf("StampKey() = %v, %v, want %v", id, err, v.KeyID())
	}
	for name, check := range map[string]func() error{
		"another record": func() error { return v.CheckStamp(t.Context(), "identity", []byte("alice signs with key 2"), stamp) },
		"another kind":   func() error { return v.CheckStamp(t.Context(), "wrapping key", record, stamp) },
		"another key":    func() error { return other.CheckStamp(t.Context(), "identity", record, stamp) },
		"no stamp":       func() error { return v.CheckStamp(t.Context(), "identity", record, nil) },
	} {
		if err := check(); !errors.Is(err, vault.ErrStamp) {
			t.Errorf("%s: CheckStamp() err = %v, want %v", name, err, vault.ErrStamp)
		}
	}
	for i := range stamp {
		changed := bytes.Clone(stamp)
		changed[i] ^= 0x10
		if err := v.CheckStamp(t.Context(), "identity", record, changed); !errors.Is(err, vault.ErrStamp) {
			t.Errorf("byte %d changed: CheckStamp() err = %v, want %v", i, err, vault.ErrStamp)
		}
	}
}

func TestAStampIsNoSealedKeysAndTheOtherWayRound(t *testing.T) {
	v := newVault(t, openToken(t))
	s, _ := ciphersuite.Lookup(2)
	ref := newRef(s)
	sealed, err := v.Seal(t.Context(), rand.Reader, vault.Binding{Ref: ref, Suite: s}, newKeys(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.CheckStamp(t.Context(), "identity", ref, sealed); !errors.Is(err, vault.ErrStamp) {
		t.Errorf("CheckStamp() of sealed keys err = %v, want %v", err, vault.ErrStamp)
	}
	stamp, err := v.Stamp(t.Context(), rand.Reader, "identity", ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unseal(t.Context(), v, ref, s, stamp); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("Unseal() of a stamp err = %v, want %v", err, vault.ErrSealed)
	}
}

// A wrapping key that was replaced under the same CKA_ID is detected.
func TestAReplacedWrappingKeyIsNotRecognized(t *testing.T) {
	tok := openToken(t)
	v := newVault(t, tok)
	stamp, err := v.Prove(t.Context(), rand.Reader)
	if err != nil {
		t.Fatalf("Prove() err = %v, want nil", err)
	}
	if err := v.Recognize(t.Context(), stamp); err != nil {
		t.Errorf("Recognize() err = %v, want nil", err)
	}
	key, err := tok.FindWrappingKey(t.Context(), v.KeyID())
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.DestroyWrappingKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := tok.GenerateWrappingKey(t.Context(), v.KeyID(), "impostor"); err != nil {
		t.Fatal(err)
	}
	impostor, err := vault.Open(t.Context(), tok, v.KeyID())
	if err != nil {
		t.Fatal(err)
	}
	if err := impostor.Recognize(t.Context(), stamp); !errors.Is(err, vault.ErrStamp) {
		t.Errorf("Recognize() of another key err = %v, want %v", err, vault.ErrStamp)
	}
}
