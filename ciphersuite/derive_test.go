package ciphersuite_test

import (
	"encoding/hex"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

// count returns the bytes 0, 1, 2, … of that number.
func count(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func suite(tb testing.TB, id ciphersuite.ID) *ciphersuite.Suite {
	tb.Helper()
	s, ok := ciphersuite.Lookup(id)
	if !ok {
		tb.Fatalf("Lookup(%d) found nothing", id)
	}
	return s
}

// Answers for each hash of the table, computed with other implementations of
// HKDF, SHA-2 and the encoding. Secrets and values count up from zero.
var derivations = []struct {
	suite                                                    ciphersuite.ID
	refHash, expandWithLabel, deriveSecret, deriveTreeSecret string
}{
	{
		suite:            1,
		refHash:          "e9ba990a15d94ff705b4a3d65b00e760d7e55d406a3129f6bd36ce86dd2186fe",
		expandWithLabel:  "740a6d8f9467f7f1f55732080e01636d5ce31acb",
		deriveSecret:     "ef9780f7ca506687ae27e2c81f64e1d8006fddb0a2700a9aad248f4621dd4d88",
		deriveTreeSecret: "1bab0ad363e368d4bda2f1e55fd9cd9d",
	},
	{
		suite:            7,
		refHash:          "ff0f5ad8d5e1048c8c05afed58be2dba23a5fb50d07b5032192724869d8e9d1f2ccd68b9233b9d765e1f263fde0fb531",
		expandWithLabel:  "df0bbaf5783a926e84524b3e973b3d65c871167b",
		deriveSecret:     "2949acc457410d83558beebc09d26f5377421bc5cb646687da06ce9edde28e16a335f90c44797067e931de4cf902e6b5",
		deriveTreeSecret: "117283dc8df42c319cd484a6ffdd3de5",
	},
	{
		suite:            5,
		refHash:          "3fbf73649371bb127579ab535f2f4238c697282d539fb6672f6b82f76326e1410dad9015696e7f8c819895836d49dfef475d51a22b34ed1c9d395bcdc3a7c475",
		expandWithLabel:  "03104d882822f965bd8a587eba7384471cf51b4f",
		deriveSecret:     "0a566e5917b0b796778672ea31ee337422a7250b462352bd055891a921803eae44b1c3f2faf3af9290d5b1e69ea0711f2716142c77f5728077d6d1ebff43b3b2",
		deriveTreeSecret: "2a1c7b8697f3ecd703266d95493d9f94",
	},
}

func TestDerivationsHaveTheKnownAnswers(t *testing.T) {
	for _, want := range derivations {
		s := suite(t, want.suite)
		secret := count(s.Nh)
		check := func(name, want string) func([]byte, error) {
			return func(got []byte, err error) {
				t.Helper()
				if err != nil || hex.EncodeToString(got) != want {
					t.Errorf("%v: %s = %x, %v, want %s", s.ID, name, got, err, want)
				}
			}
		}
		check("RefHash()", want.refHash)(s.RefHash("MLS 1.0 KeyPackage Reference", count(100)), nil)
		check("ExpandWithLabel()", want.expandWithLabel)(s.ExpandWithLabel(secret, "label", []byte("context"), 20))
		check("DeriveSecret()", want.deriveSecret)(s.DeriveSecret(secret, "init"))
		check("DeriveTreeSecret()", want.deriveTreeSecret)(s.DeriveTreeSecret(secret, "key", 0x01020304, 16))
	}
}

func TestExpandRefusesLengthsThatItCannotMake(t *testing.T) {
	s := suite(t, 1)
	for _, length := range []int{-1, 255*s.Nh + 1, 0x1_0000} {
		if out, err := s.ExpandWithLabel(count(s.Nh), "label", nil, length); err == nil {
			t.Errorf("ExpandWithLabel() of %d bytes err = nil and %d bytes, want an error", length, len(out))
		}
	}
	if out, err := s.ExpandWithLabel(count(s.Nh), "label", nil, 255*s.Nh); err != nil || len(out) != 255*s.Nh {
		t.Errorf("ExpandWithLabel() of the longest output = %d bytes, %v", len(out), err)
	}
}

func BenchmarkRefHash(b *testing.B) {
	s, value := suite(b, 2), count(400)
	b.ReportAllocs()
	for b.Loop() {
		s.RefHash("MLS 1.0 KeyPackage Reference", value)
	}
}
