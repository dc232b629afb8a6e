package ciphersuite_test

import (
	"crypto"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

// The parts of a suite's name, and what RFC 9180, Section 7, says of each.
var (
	kems = map[string]struct {
		id             uint16
		nsk, npk, nenc int
	}{
		"DHKEMP256":   {0x0010, 32, 65, 65},
		"DHKEMP384":   {0x0011, 48, 97, 97},
		"DHKEMP521":   {0x0012, 66, 133, 133},
		"DHKEMX25519": {0x0020, 32, 32, 32},
		"DHKEMX448":   {0x0021, 56, 56, 56},
	}
	aeads = map[string]struct {
		id         uint16
		nk, nn, nt int
	}{
		"AES128GCM":        {0x0001, 16, 12, 16},
		"AES256GCM":        {0x0002, 32, 12, 16},
		"CHACHA20POLY1305": {0x0003, 32, 12, 16},
	}
	hashes = map[string]struct {
		kdf  uint16
		hash crypto.Hash
	}{
		"SHA256": {0x0001, crypto.SHA256},
		"SHA384": {0x0002, crypto.SHA384},
		"SHA512": {0x0003, crypto.SHA512},
	}
	schemes = map[string]ciphersuite.SignatureScheme{
		"Ed25519": ciphersuite.ED25519,
		"Ed448":   ciphersuite.ED448,
		"P256":    ciphersuite.ECDSA_SECP256R1_SHA256,
		"P384":    ciphersuite.ECDSA_SECP384R1_SHA384,
		"P521":    ciphersuite.ECDSA_SECP521R1_SHA512,
	}
)

func TestEveryRowIsWhatItsNameSays(t *testing.T) {
	for id := ciphersuite.ID(1); id <= 7; id++ {
		s := suite(t, id)
		part := strings.Split(s.Name, "_") // MLS, bits, KEM, AEAD, hash, signature
		kem, aead, hash := kems[part[2]], aeads[part[3]], hashes[part[4]]
		want := ciphersuite.Suite{
			ID: id, Name: s.Name,
			KEM: kem.id, Nsk: kem.nsk, Npk: kem.npk, Nenc: kem.nenc,
			AEAD: aead.id, Nk: aead.nk, Nn: aead.nn, Nt: aead.nt,
			KDF: hash.kdf, Hash: hash.hash, Nh: hash.hash.Size(),
			Signature: schemes[part[5]],
		}
		if *s != want {
			t.Errorf("Lookup(%d) = %+v, want %+v", id, *s, want)
		}
		if !s.Hash.Available() {
			t.Errorf("%v: its hash is not linked in", s.ID)
		}
	}
}

// The registry of RFC 9420, Section 17.1.
func TestNumbersAndNames(t *testing.T) {
	for id, want := range map[ciphersuite.ID]string{
		0: "0x0000",
		1: "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519",
		2: "MLS_128_DHKEMP256_AES128GCM_SHA256_P256",
		3: "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519",
		4: "MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448",
		5: "MLS_256_DHKEMP521_AES256GCM_SHA512_P521",
		6: "MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448",
		7: "MLS_256_DHKEMP384_AES256GCM_SHA384_P384",
		8: "0x0008", 0x0A0A: "0x0A0A", 0xFFFF: "0xFFFF",
	} {
		if got := id.String(); got != want {
			t.Errorf("ID(%d).String() = %q, want %q", uint16(id), got, want)
		}
	}
}

func TestNumbersPrintInHexadecimal(t *testing.T) {
	for _, test := range []struct {
		verb  string
		value any
		want  string
	}{
		{"%v", ciphersuite.ID(0xF00D), "0xF00D"},
		{"%s", ciphersuite.ID(2), "MLS_128_DHKEMP256_AES128GCM_SHA256_P256"},
		{"%q", ciphersuite.ED25519, `"ed25519"`},
		{"%d", ciphersuite.ID(7), "7"},
		{"0x%04X", ciphersuite.ID(7), "0x0007"},
		{"%#v", ciphersuite.ID(7), "0x7"},
		{"%04x", ciphersuite.ECDSA_SECP256R1_SHA256, "0403"},
	} {
		if got := fmt.Sprintf(test.verb, test.value); got != test.want {
			t.Errorf("Sprintf(%q, %T) = %s, want %s", test.verb, test.value, got, test.want)
		}
	}
}

func TestLookupKnowsTheTableOnly(t *testing.T) {
	for _, id := range []ciphersuite.ID{0, 8, 0x0A0A, 0xF000, 0xFFFF} {
		if s, ok := ciphersuite.Lookup(id); ok || s != nil {
			t.Errorf("Lookup(%v) = %v, %t, want nothing", id, s, ok)
		}
	}
}

func TestAllSuites(t *testing.T) {
	var all []ciphersuite.ID
	for _, s := range ciphersuite.All() {
		if !s.Experimental {
			all = append(all, s.ID)
		}
	}
	if want := []ciphersuite.ID{1, 2, 3, 4, 5, 6, 7}; !slices.Equal(all, want) {
		t.Errorf("All() = %d, want %d", all, want)
	}
}

func TestSuitesAreNamedInSeveralWays(t *testing.T) {
	for input, want := range map[string]ciphersuite.ID{
		"MLS_128_DHKEMP256_AES128GCM_SHA256_P256":      2,
		"mls_128_dhkemp256_aes128gcm_sha256_p256":      2,
		"MLS_128_DHKEMX25519_AES128GCM_SHA256_ED25519": 1,
		"7": 7, "0x7": 7, "0X0007": 7, "0x0002": 2, "007": 7,
		"4": 4,
	} {
		if s, err := ciphersuite.Parse(input); err != nil || s.ID != want {
			t.Errorf("Parse(%q) = %v, %v, want %v", input, s, err, want)
		}
	}
	for _, input := range []string{
		"", "0", "8", "-1", "+1", " 1", "1 ", "0x", "0x0x1", "0b1", "0o7", "1_0", "0_7", "65537", "4294967297", "0x10001",
		"MLS_128_DHKEMP256_AES128GCM_SHA256", "P256",
	} {
		if s, err := ciphersuite.Parse(input); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", input, s.ID)
		}
	}
}
