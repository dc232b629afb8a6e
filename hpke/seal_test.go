package hpke_test

import (
	"errors"
	"testing"

	stdhpke "crypto/hpke"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
)

// SealBase and OpenBase of RFC 9180, with info and additional data, both ways.
func TestASingleShotIsSealedAndOpened(t *testing.T) {
	for _, s := range comparable() {
		p := newPeer(t, s)
		key, err := p.kem.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		for _, aad := range []string{"", "additional data"} {
			enc, ciphertext, err := hpke.Seal(s, key.PublicKey().Bytes(), []byte("info"), []byte(aad), []byte("plaintext"))
			if err != nil || len(enc) != s.Nenc || len(ciphertext) != len("plaintext")+s.Nt {
				t.Fatalf("%v: Seal() = %d, %d bytes, %v", s.ID, len(enc), len(ciphertext), err)
			}
			recipient, err := stdhpke.NewRecipient(enc, key, p.kdf, p.aead, []byte("info"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := recipient.Open([]byte(aad), ciphertext); err != nil || string(got) != "plaintext" {
				t.Errorf("%v: another implementation opens %q, %v", s.ID, got, err)
			}
		}
	}
	for _, s := range ciphersuite.All() {
		k := newKey(t, s)
		enc, ciphertext, err := hpke.Seal(s, k.PublicKey(), []byte("info"), []byte("aad"), []byte("plaintext"))
		if err != nil {
			t.Fatalf("%v: Seal() err = %v, want nil", s.ID, err)
		}
		if got, err := k.Open([]byte("info"), []byte("aad"), enc, ciphertext); err != nil || string(got) != "plaintext" {
			t.Errorf("%v: Open() = %q, %v", s.ID, got, err)
		}
		for what, c := range map[string][2]string{"info": {"other", "aad"}, "additional data": {"info", ""}} {
			if _, err := k.Open([]byte(c[0]), []byte(c[1]), enc, ciphertext); !errors.Is(err, hpke.ErrOpen) {
				t.Errorf("%v: Open() with other %s err = %v, want %v", s.ID, what, err, hpke.ErrOpen)
			}
		}
		if _, _, err := hpke.Seal(s, k.PublicKey()[1:], nil, nil, nil); err == nil {
			t.Errorf("%v: Seal() to a short key err = nil, want one", s.ID)
		}
	}
}
