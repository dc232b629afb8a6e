// Package ciphersuite has the MLS cipher suites (RFC 9420, Section 17.1) and the
// operations that need nothing but a suite: signing and verifying with a label (Section
// 5.1.2), hash references (Section 5.2) and the derivations of the key schedule (Sections
// 8 and 9).
//
// All functions and methods may be called by several goroutines at once.
package ciphersuite

import (
	"crypto"
	_ "crypto/sha256" // the hashes of the table
	_ "crypto/sha512"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hsm-kp/hsm-kp/internal/stringer"
)

// ID is the number of a cipher suite, a uint16 on the wire.
type ID uint16

// The cipher suites of RFC 9420, Section 17.1.
const (
	MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519        ID = 1
	MLS_128_DHKEMP256_AES128GCM_SHA256_P256             ID = 2
	MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519 ID = 3
	MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448            ID = 4
	MLS_256_DHKEMP521_AES256GCM_SHA512_P521             ID = 5
	MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448     ID = 6
	MLS_256_DHKEMP384_AES256GCM_SHA384_P384             ID = 7
)

// String returns the name in RFC 9420, or the number in hexadecimal.
func (id ID) String() string {
	if s, ok := Lookup(id); ok {
		return s.Name
	}
	return fmt.Sprintf("0x%04X", uint16(id))
}

// Format prints the name under %v, %s and %q, and the number under other verbs.
func (id ID) Format(f fmt.State, verb rune) { stringer.Format(f, verb, id.String(), uint16(id)) }

// Suite is a cipher suite of RFC 9420, or an experimental one (see Register). Sizes are in
// bytes and have the names of RFC 9180, Section 4. Suites are shared and must not be
// changed.
type Suite struct {
	ID        ID
	Name      string
	KEM       uint16 // RFC 9180, Section 7.1
	KDF       uint16 // RFC 9180, Section 7.2
	AEAD      uint16 // RFC 9180, Section 7.3
	Hash      crypto.Hash
	Signature SignatureScheme

	Nh   int // output of Hash and of the KDF
	Nsk  int // KEM private key
	Npk  int // KEM public key
	Nenc int // KEM output
	Nk   int // AEAD key
	Nn   int // AEAD nonce
	Nt   int // AEAD tag

	// Experimental is true for a suite of Register.
	Experimental bool
}

// HPKE algorithm identifiers (RFC 9180, Section 7).
const (
	kemP256, kemP384, kemP521       = 0x0010, 0x0011, 0x0012
	kemX25519, kemX448              = 0x0020, 0x0021
	kemMLKEM768                     = 0x0041 // draft-ietf-hpke-pq, as the next two
	kemMLKEM768P256, kemXWing       = 0x0050, 0x647A
	kdfSHA256, kdfSHA384, kdfSHA512 = 0x0001, 0x0002, 0x0003
	aes128, aes256, chacha20        = 0x0001, 0x0002, 0x0003
)

// table is in numeric order without gaps: the suite with number n is at n-1.
var table = [...]Suite{
	{MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519, "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519",
		kemX25519, kdfSHA256, aes128, crypto.SHA256, ED25519, 32, 32, 32, 32, 16, 12, 16, false},
	{MLS_128_DHKEMP256_AES128GCM_SHA256_P256, "MLS_128_DHKEMP256_AES128GCM_SHA256_P256",
		kemP256, kdfSHA256, aes128, crypto.SHA256, ECDSA_SECP256R1_SHA256, 32, 32, 65, 65, 16, 12, 16, false},
	{MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519, "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519",
		kemX25519, kdfSHA256, chacha20, crypto.SHA256, ED25519, 32, 32, 32, 32, 32, 12, 16, false},
	{MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448, "MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448",
		kemX448, kdfSHA512, aes256, crypto.SHA512, ED448, 64, 56, 56, 56, 32, 12, 16, false},
	{MLS_256_DHKEMP521_AES256GCM_SHA512_P521, "MLS_256_DHKEMP521_AES256GCM_SHA512_P521",
		kemP521, kdfSHA512, aes256, crypto.SHA512, ECDSA_SECP521R1_SHA512, 64, 66, 133, 133, 32, 12, 16, false},
	{MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448, "MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448",
		kemX448, kdfSHA512, chacha20, crypto.SHA512, ED448, 64, 56, 56, 56, 32, 12, 16, false},
	{MLS_256_DHKEMP384_AES256GCM_SHA384_P384, "MLS_256_DHKEMP384_AES256GCM_SHA384_P384",
		kemP384, kdfSHA384, aes256, crypto.SHA384, ECDSA_SECP384R1_SHA384, 48, 48, 97, 97, 32, 12, 16, false},
}

// Lookup returns the suite with the given number, and whether there is one: in RFC 9420,
// or by Register.
func Lookup(id ID) (*Suite, bool) {
	if id >= 1 && int(id) <= len(table) {
		return &table[id-1], true
	}
	s, ok := (*experimental.Load())[id]
	return s, ok
}

// Parse returns the suite that s names, by its name in upper or lower case, or by its
// number, in decimal or in hexadecimal after 0x. It fails if there is no such suite.
func Parse(s string) (*Suite, error) {
	for _, suite := range All() {
		if strings.EqualFold(suite.Name, s) {
			return suite, nil
		}
	}
	if n, err := parseNumber(s); err == nil {
		if suite, ok := Lookup(ID(n)); ok {
			return suite, nil
		}
	}
	return nil, fmt.Errorf("no cipher suite %q in RFC 9420", s)
}

// parseNumber parses decimal, and hexadecimal after 0x. strconv's base 0 takes more: octal
// 07, 0b111 and 0_7.
func parseNumber(s string) (uint64, error) {
	if digits, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
		return strconv.ParseUint(digits, 16, 16)
	}
	return strconv.ParseUint(s, 10, 16)
}

// All returns the suites of RFC 9420 in numeric order, then the registered ones in
// numeric order. The slice is the caller's.
func All() []*Suite {
	all := make([]*Suite, len(table))
	for i := range table {
		all[i] = &table[i]
	}
	registered := *experimental.Load()
	for _, id := range slices.Sorted(maps.Keys(registered)) {
		all = append(all, registered[id])
	}
	return all
}
