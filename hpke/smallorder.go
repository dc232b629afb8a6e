package hpke

import (
	"slices"
	"strings"

	circl "github.com/cloudflare/circl/hpke"
)

// The points whose order divides the cofactor, little-endian: 0, 1, p-1, and those of order
// 8 on Curve25519; then p and p+1, which are 0 and 1 again. Their shared secret with every
// private key is zero.
var (
	smallOrderX25519 = []string{
		strings.Repeat("\x00", 32),
		"\x01" + strings.Repeat("\x00", 31),
		"\xec" + strings.Repeat("\xff", 30) + "\x7f",
		"\xe0\xeb\x7a\x7c\x3b\x41\xb8\xae\x16\x56\xe3\xfa\xf1\x9f\xc4\x6a\xda\x09\x8d\xeb\x9c\x32\xb1\xfd\x86\x62\x05\x16\x5f\x49\xb8\x00",
		"\x5f\x9c\x95\xbc\xa3\x50\x8c\x24\xb1\xd0\xb1\x55\x9c\x83\xef\x5b\x04\x44\x5c\xc4\x58\x1c\x8e\x86\xd8\x22\x4e\xdd\xd0\x9f\x11\x57",
		"\xed" + strings.Repeat("\xff", 30) + "\x7f",
		"\xee" + strings.Repeat("\xff", 30) + "\x7f",
	}
	smallOrderX448 = []string{
		strings.Repeat("\x00", 56),
		"\x01" + strings.Repeat("\x00", 55),
		"\xfe" + strings.Repeat("\xff", 27) + "\xfe" + strings.Repeat("\xff", 27),
		strings.Repeat("\xff", 28) + "\xfe" + strings.Repeat("\xff", 27),
		strings.Repeat("\x00", 28) + strings.Repeat("\xff", 28),
	}
)

// smallOrder reports whether public, of the right length, is one of these points.
func smallOrder(kem circl.KEM, public []byte) bool {
	switch kem {
	case circl.KEM_X25519_HKDF_SHA256:
		u := [32]byte(public)
		u[31] &= 0x7F // RFC 7748, Section 5: the highest bit is ignored
		return slices.Contains(smallOrderX25519, string(u[:]))
	case circl.KEM_X448_HKDF_SHA512:
		return slices.Contains(smallOrderX448, string(public))
	}
	return false
}
