package hpke_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"testing"

	circl "github.com/cloudflare/circl/hpke"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
)

// Experimental suites, with each KEM, take part in all tests.
const (
	xWing ciphersuite.ID = 0xF001
	p256  ciphersuite.ID = 0xF002
	mlKEM ciphersuite.ID = 0xF003
)

func TestMain(m *testing.M) {
	for _, e := range []ciphersuite.Experiment{
		{ID: xWing, Name: "XWING", KEM: "X-Wing", AEAD: "CHACHA20POLY1305", Hash: "SHA256", Signature: "Ed25519"},
		{ID: p256, Name: "MLKEM768P256", KEM: "MLKEM768-P256", AEAD: "AES256GCM", Hash: "SHA384", Signature: "P256"},
		{ID: mlKEM, Name: "MLKEM768", KEM: "ML-KEM-768", AEAD: "AES128GCM", Hash: "SHA512", Signature: "P256"},
	} {
		if err := ciphersuite.Register(e); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// circl has X-Wing too, written by other people: each opens what the other seals,
// and one private key is the same key in both.
func TestXWingIsCircls(t *testing.T) {
	s := suite(t, xWing)
	scheme := circl.KEM_XWING.Scheme()
	other := circl.NewSuite(circl.KEM_XWING, circl.KDF_HKDF_SHA256, circl.AEAD_ChaCha20Poly1305)
	k := newKey(t, s)
	private, err := scheme.UnmarshalBinaryPrivateKey(k.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	public, err := private.Public().MarshalBinary()
	if err != nil || !bytes.Equal(public, k.PublicKey()) {
		t.Fatalf("public key is another than circl's (%v)", err)
	}
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, k.PublicKey(), label, []byte(context), []byte("group secrets"))
	if err != nil {
		t.Fatalf("EncryptWithLabel() err = %v, want nil", err)
	}
	receiver, err := other.NewReceiver(private, []byte(info))
	if err != nil {
		t.Fatal(err)
	}
	opener, err := receiver.Setup(kemOutput)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := opener.Open(ciphertext, nil); err != nil || string(got) != "group secrets" {
		t.Errorf("circl opens %q, %v, want what was encrypted", got, err)
	}
	sender, err := other.NewSender(private.Public(), []byte(info))
	if err != nil {
		t.Fatal(err)
	}
	kemOutput, sealer, err := sender.Setup(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if ciphertext, err = sealer.Seal([]byte("group secrets"), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := hpke.DecryptWithLabel(k, label, []byte(context), kemOutput, ciphertext); err != nil || string(got) != "group secrets" {
		t.Errorf("DecryptWithLabel() = %q, %v, want what circl sealed", got, err)
	}
}

func TestHybridPublicKeysAreChecked(t *testing.T) {
	for _, id := range []ciphersuite.ID{xWing, p256, mlKEM} {
		s := suite(t, id)
		public := newKey(t, s).PublicKey()
		if err := hpke.ValidPublicKey(s, public); err != nil {
			t.Errorf("%s: ValidPublicKey() err = %v, want nil", s.Name, err)
		}
		unreduced := bytes.Clone(public)
		unreduced[0], unreduced[1] = 0xFF, 0xFF // a coefficient over q
		for name, bad := range map[string][]byte{
			"short": public[1:], "long": append(bytes.Clone(public), 0), "unreduced": unreduced, "of another suite": newKey(t, suite(t, 2)).PublicKey(),
		} {
			if err := hpke.ValidPublicKey(s, bad); err == nil {
				t.Errorf("%s: ValidPublicKey() of a key that is %s err = nil, want one", s.Name, name)
			}
		}
	}
	point := bytes.Clone(newKey(t, suite(t, p256)).PublicKey())
	point[len(point)-1] ^= 1
	if err := hpke.ValidPublicKey(suite(t, p256), point); err == nil {
		t.Error("ValidPublicKey() of a point off the curve err = nil, want one")
	}
}
