package hpke

import (
	"bytes"
	"crypto/rand"
	"math/big"
	"slices"
	"testing"

	"github.com/cloudflare/circl/dh/x25519"
	"github.com/cloudflare/circl/dh/x448"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

// shared does a Diffie-Hellman with a random private key and reports whether the
// secret is zero.
func sharedX25519(public []byte) (zero bool) {
	var ss, private x25519.Key
	rand.Read(private[:])
	return !x25519.Shared(&ss, &private, (*x25519.Key)(public))
}

func sharedX448(public []byte) (zero bool) {
	var ss, private x448.Key
	rand.Read(private[:])
	return !x448.Shared(&ss, &private, (*x448.Key)(public))
}

func TestNobodyCanEncryptToAPointOfSmallOrder(t *testing.T) {
	for id, c := range map[ciphersuite.ID]struct {
		points []string
		zero   func([]byte) bool
	}{
		1: {smallOrderX25519, sharedX25519},
		4: {smallOrderX448, sharedX448},
	} {
		s, _ := ciphersuite.Lookup(id)
		for _, p := range c.points {
			if len(p) != s.Npk || !c.zero([]byte(p)) {
				t.Errorf("%v: %x is not a point of small order", id, p)
			}
			if err := ValidPublicKey(s, []byte(p)); err == nil {
				t.Errorf("%v: ValidPublicKey(%x) err = nil, want one", id, p)
			}
		}
	}
}

func TestTheIgnoredBitOfX25519HidesNoPointOfSmallOrder(t *testing.T) {
	s, _ := ciphersuite.Lookup(1)
	for _, p := range smallOrderX25519 {
		b := []byte(p)
		b[31] |= 0x80
		if err := ValidPublicKey(s, b); err == nil {
			t.Errorf("ValidPublicKey(%x) err = nil, want one", b)
		}
	}
}

// Values next to those in the lists are ordinary points: the lists do not take
// too much.
func TestTheNeighboursOfPointsOfSmallOrderAreValid(t *testing.T) {
	for id, points := range map[ciphersuite.ID][]string{1: smallOrderX25519, 4: smallOrderX448} {
		s, _ := ciphersuite.Lookup(id)
		for _, p := range points {
			n := new(big.Int).SetBytes(reversed([]byte(p)))
			n.Add(n, big.NewInt(5))
			neighbour := reversed(n.FillBytes(make([]byte, s.Npk)))
			if err := ValidPublicKey(s, neighbour); err != nil {
				t.Errorf("%v: ValidPublicKey(%x) err = %v, want nil", id, neighbour, err)
			}
		}
	}
}

func reversed(b []byte) []byte {
	b = bytes.Clone(b)
	slices.Reverse(b)
	return b
}
