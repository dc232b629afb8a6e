package softhsmtest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"os"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
)

func TestTokensOfOneTestAreDifferent(t *testing.T) {
	a, b := softhsmtest.Open(t), softhsmtest.Open(t)
	if a.Info().Serial == b.Info().Serial {
		t.Fatalf("both tokens have serial %s, want two", a.Info().Serial)
	}
	k, err := a.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256})
	if err != nil {
		t.Fatalf("GenerateKeyPair() err = %v, want nil", err)
	}
	digest := sha256.Sum256([]byte("message"))
	sig, err := k.Sign(nil, digest[:], crypto.SHA256)
	if err != nil {
		t.Fatalf("Sign() err = %v, want nil", err)
	}
	if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest[:], sig) {
		t.Error("Sign() made a signature that does not verify")
	}
	pairs, err := b.KeyPairs(t.Context())
	if err != nil || len(pairs) != 0 {
		t.Errorf("KeyPairs() of the other token = %v, %v, want none", pairs, err)
	}
}

func TestParallelTestsHaveTokensOfTheirOwn(t *testing.T) {
	for _, name := range []string{"a", "b", "c", "d"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tok := softhsmtest.Open(t)
			for range 5 {
				if _, err := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256}); err != nil {
					t.Errorf("GenerateKeyPair() err = %v, want nil", err)
				}
			}
		})
	}
}

func TestFolderIsGoneAfterwards(t *testing.T) {
	before := os.Getenv("SOFTHSM2_CONF")
	var conf string
	t.Run("user", func(t *testing.T) {
		softhsmtest.Open(t)
		conf = os.Getenv("SOFTHSM2_CONF")
	})
	if _, err := os.Stat(conf); conf == "" || !os.IsNotExist(err) {
		t.Errorf("Stat(%q) err = %v, want that it does not exist", conf, err)
	}
	if after := os.Getenv("SOFTHSM2_CONF"); after != before {
		t.Errorf("SOFTHSM2_CONF = %q, want %q as before", after, before)
	}
}
