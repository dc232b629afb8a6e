package vectors

import (
	"fmt"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

type cryptoBasics struct {
	CipherSuite uint16 `json:"cipher_suite"`
	RefHash     struct {
		Label      string
		Value, Out octets
	} `json:"ref_hash"`
	ExpandWithLabel struct {
		Secret, Context, Out octets
		Label                string
		Length               int
	} `json:"expand_with_label"`
	DeriveSecret struct {
		Secret, Out octets
		Label       string
	} `json:"derive_secret"`
	DeriveTreeSecret struct {
		Secret, Out octets
		Label       string
		Generation  uint32
		Length      int
	} `json:"derive_tree_secret"`
	SignWithLabel struct {
		Priv, Pub, Content, Signature octets
		Label                         string
	} `json:"sign_with_label"`
	EncryptWithLabel struct {
		Priv, Pub, Context, Plaintext, Ciphertext octets
		KEMOutput                                 octets `json:"kem_output"`
		Label                                     string
	} `json:"encrypt_with_label"`
}

func TestCryptoBasics(t *testing.T) {
	var count tally
	for _, v := range load[cryptoBasics](t, "crypto-basics") {
		s, ok := served(v.CipherSuite)
		if !ok {
			count.passedOver++
			continue
		}
		count.looked++
		t.Run(s.Name, func(t *testing.T) {
			t.Run("RefHash", func(t *testing.T) { testRefHash(t, s, &v) })
			t.Run("derivations", func(t *testing.T) { testDerivations(t, s, &v) })
			t.Run("VerifyWithLabel", func(t *testing.T) { testVerifyWithLabel(t, s, &v) })
			t.Run("DecryptWithLabel", func(t *testing.T) { testDecryptWithLabel(t, s, &v) })
		})
	}
	count.want(t, 7)
}

func testRefHash(t *testing.T, s *ciphersuite.Suite, v *cryptoBasics) {
	wantEqual(t, "RefHash()", s.RefHash(v.RefHash.Label, v.RefHash.Value), v.RefHash.Out)
}

func testDerivations(t *testing.T, s *ciphersuite.Suite, v *cryptoBasics) {
	e := v.ExpandWithLabel
	out, err := s.ExpandWithLabel(e.Secret, e.Label, e.Context, e.Length)
	if err != nil {
		t.Errorf("ExpandWithLabel() err = %v, want nil", err)
	}
	wantEqual(t, "ExpandWithLabel()", out, e.Out)

	d := v.DeriveSecret
	out, err = s.DeriveSecret(d.Secret, d.Label)
	if err != nil {
		t.Errorf("DeriveSecret() err = %v, want nil", err)
	}
	wantEqual(t, "DeriveSecret()", out, d.Out)

	ts := v.DeriveTreeSecret
	out, err = s.DeriveTreeSecret(ts.Secret, ts.Label, ts.Generation, ts.Length)
	if err != nil {
		t.Errorf("DeriveTreeSecret() err = %v, want nil", err)
	}
	wantEqual(t, "DeriveTreeSecret()", out, ts.Out)
}

func testVerifyWithLabel(t *testing.T, s *ciphersuite.Suite, v *cryptoBasics) {
	sig := v.SignWithLabel
	public, err := s.Signature.ParsePublicKey(sig.Pub)
	if err != nil {
		t.Fatalf("ParsePublicKey() err = %v, want nil", err)
	}
	if err := public.VerifyWithLabel(sig.Label, sig.Content, sig.Signature); err != nil {
		t.Errorf("VerifyWithLabel() err = %v, want nil", err)
	}
	if err := public.VerifyWithLabel(sig.Label+"x", sig.Content, sig.Signature); err == nil {
		t.Error("VerifyWithLabel() of another label err = nil, want one")
	}
	sig.Content[0] ^= 1
	if err := public.VerifyWithLabel(sig.Label, sig.Content, sig.Signature); err == nil {
		t.Error("VerifyWithLabel() of other content err = nil, want one")
	}
}

func testDecryptWithLabel(t *testing.T, s *ciphersuite.Suite, v *cryptoBasics) {
	e := v.EncryptWithLabel
	key, err := hpke.ParsePrivateKey(s, e.Priv)
	if err != nil {
		t.Fatalf("ParsePrivateKey() err = %v, want nil", err)
	}
	wantEqual(t, "PublicKey()", key.PublicKey(), e.Pub)
	opened, err := hpke.DecryptWithLabel(key, e.Label, e.Context, e.KEMOutput, e.Ciphertext)
	if err != nil {
		t.Fatalf("DecryptWithLabel() err = %v, want nil", err)
	}
	wantEqual(t, "DecryptWithLabel()", opened, e.Plaintext)
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, e.Pub, e.Label, e.Context, e.Plaintext)
	if err != nil {
		t.Fatalf("EncryptWithLabel() err = %v, want nil", err)
	}
	if opened, err = hpke.DecryptWithLabel(key, e.Label, e.Context, kemOutput, ciphertext); err != nil {
		t.Fatalf("DecryptWithLabel() of our own err = %v, want nil", err)
	}
	wantEqual(t, "DecryptWithLabel() of our own", opened, e.Plaintext)
}

type deserialization struct {
	Header octets `json:"vlbytes_header"`
	Length int
}

// The official vectors have only headers; the content is ours.
func TestDeserialization(t *testing.T) {
	for _, v := range load[deserialization](t, "deserialization") {
		t.Run(fmt.Sprintf("%x", []byte(v.Header)), func(t *testing.T) {
			wantEqual(t, "AppendVectorLen()", wire.AppendVectorLen(nil, v.Length), v.Header)
			if got := wire.VectorLen(v.Length); got != len(v.Header) {
				t.Errorf("VectorLen(%d) = %d, want %d", v.Length, got, len(v.Header))
			}
			if v.Length > 1<<20 {
				// The content is too long to hold here: the header must be read and the missing
				// content noticed.
				r := wire.NewReader(v.Header)
				if r.Vector(); r.Err() == nil {
					t.Error("Vector() of a header without content err = nil, want one")
				}
				return
			}
			r := wire.NewReader(append(v.Header, make([]byte, v.Length)...))
			content := r.Vector()
			if err := r.Finish(); err != nil || len(content) != v.Length {
				t.Errorf("Vector() = %d bytes, err %v, want %d bytes", len(content), err, v.Length)
			}
		})
	}
}
