package ciphersuite

import (
	"crypto"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Experiment describes a suite that RFC 9420 does not have: a post-quantum KEM with one
// of its signature schemes. No numbers are assigned for such suites, and the numbers that
// implementations use conflict. Register defines what a number means in this process.
type Experiment struct {
	ID   ID
	Name string
	// KEM is "X-Wing" (draft-connolly-cfrg-xwing-kem; MLKEM768-X25519 in
	// draft-ietf-hpke-pq, 0x647A), "MLKEM768-P256" (0x0050 there), or "ML-KEM-768"
	// (0x0041 there), which has no classical part.
	KEM string
	// AEAD is "AES128GCM", "AES256GCM" or "CHACHA20POLY1305".
	AEAD string
	// Hash is "SHA256", "SHA384" or "SHA512": the hash of the suite and of its HKDF.
	Hash string
	// Signature is "Ed25519" or "P256".
	Signature string
}

// The values that the fields of an Experiment may have.
var (
	experimentKEMs = map[string]struct {
		id             uint16
		nsk, npk, nenc int
	}{
		"X-Wing":        {kemXWing, 32, 1184 + 32, 1088 + 32},
		"MLKEM768-P256": {kemMLKEM768P256, 32, 1184 + 65, 1088 + 65},
		"ML-KEM-768":    {kemMLKEM768, 64, 1184, 1088},
	}
	experimentAEADs = map[string]struct {
		id uint16
		nk int
	}{"AES128GCM": {aes128, 16}, "AES256GCM": {aes256, 32}, "CHACHA20POLY1305": {chacha20, 32}}
	experimentHashes = map[string]struct {
		kdf  uint16
		hash crypto.Hash
	}{"SHA256": {kdfSHA256, crypto.SHA256}, "SHA384": {kdfSHA384, crypto.SHA384}, "SHA512": {kdfSHA512, crypto.SHA512}}
	experimentSignatures = map[string]SignatureScheme{"Ed25519": ED25519, "P256": ECDSA_SECP256R1_SHA256}
)

// experimental has the registered suites. The map is replaced and never changed.
var experimental atomic.Pointer[map[ID]*Suite]

var registering sync.Mutex

func init() { experimental.Store(&map[ID]*Suite{}) }

// Register adds an experimental suite to those that Lookup, Parse and All return in this
// process. It refuses the numbers and names of RFC 9420, GREASE values (Section 13.5), a
// number or a name that another suite has, and unknown parts. Registering the same suite
// again does nothing. Register may be called by several goroutines at once.
func Register(e Experiment) error {
	kem, okKEM := experimentKEMs[e.KEM]
	aead, okAEAD := experimentAEADs[e.AEAD]
	hash, okHash := experimentHashes[e.Hash]
	signature, okSignature := experimentSignatures[e.Signature]
	switch {
	case e.ID == 0 || int(e.ID) <= len(table):
		return fmt.Errorf("cipher suite %d is one of RFC 9420", uint16(e.ID))
	case e.ID&0x0F0F == 0x0A0A && e.ID>>12 == e.ID>>4&0xF && e.ID < 0xF000:
		return fmt.Errorf("cipher suite 0x%04X is a GREASE value (RFC 9420, Section 13.5), which no suite may have", uint16(e.ID))
	case isNumber(e.Name):
		return fmt.Errorf("cipher suite %d is called %q, which reads as the number of one", uint16(e.ID), e.Name)
	case strings.TrimSpace(e.Name) == "":
		return fmt.Errorf("cipher suite %d has no name", uint16(e.ID))
	case !okKEM:
		return unknownPart("KEM", e.KEM, experimentKEMs)
	case !okAEAD:
		return unknownPart("AEAD", e.AEAD, experimentAEADs)
	case !okHash:
		return unknownPart("hash", e.Hash, experimentHashes)
	case !okSignature:
		return unknownPart("signature", e.Signature, experimentSignatures)
	}
	suite := &Suite{
		ID: e.ID, Name: e.Name, KEM: kem.id, KDF: hash.kdf, AEAD: aead.id, Hash: hash.hash, Signature: signature,
		Nh: hash.hash.Size(), Nsk: kem.nsk, Npk: kem.npk, Nenc: kem.nenc, Nk: aead.nk, Nn: 12, Nt: 16, Experimental: true,
	}
	registering.Lock()
	defer registering.Unlock()
	if known, ok := Lookup(e.ID); ok && *known == *suite {
		return nil
	}
	for _, known := range All() {
		if known.ID == suite.ID || strings.EqualFold(known.Name, suite.Name) {
			return fmt.Errorf("cipher suite %d, %s: the number or the name is taken by %d, %s", uint16(e.ID), e.Name, uint16(known.ID), known.Name)
		}
	}
	next := maps.Clone(*experimental.Load())
	next[suite.ID] = suite
	experimental.Store(&next)
	return nil
}

func isNumber(name string) bool {
	_, err := parseNumber(name)
	return err == nil
}

func unknownPart[T any](what, name string, known map[string]T) error {
	return fmt.Errorf("%s %q is not one of %s", what, name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
}
