package ciphersuite

import (
	"crypto/hkdf"
	"encoding/binary"
	"fmt"
	"hash"

	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// RefHash returns the hash of label and value (RFC 9420, Section 5.2), Nh bytes. Nothing
// is put before the label: for a KeyPackageRef it is "MLS 1.0 KeyPackage Reference".
func (s *Suite) RefHash(label string, value []byte) []byte {
	b := make([]byte, 0, len(label)+len(value)+8)
	b = wire.AppendVector(b, []byte(label))
	return digest(s.Hash, wire.AppendVector(b, value))
}

// ExpandWithLabel expands secret, at least Nh bytes, to length bytes (RFC 9420, Section
// 8). It puts "MLS 1.0 " before the label. It fails if length is more than 255*Nh or does
// not fit in 16 bits.
func (s *Suite) ExpandWithLabel(secret []byte, label string, context []byte, length int) ([]byte, error) {
	if length < 0 || length > 0xFFFF {
		return nil, fmt.Errorf("expand %q: %d bytes do not fit in a uint16", label, length)
	}
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = wire.AppendVector(info, []byte("MLS 1.0 "+label))
	info = wire.AppendVector(info, context)
	out, err := hkdf.Expand(func() hash.Hash { return s.Hash.New() }, secret, string(info), length)
	if err != nil {
		return nil, fmt.Errorf("expand %q: %w", label, err)
	}
	return out, nil
}

// DeriveSecret returns ExpandWithLabel of no context and Nh bytes (RFC 9420, Section 8).
func (s *Suite) DeriveSecret(secret []byte, label string) ([]byte, error) {
	return s.ExpandWithLabel(secret, label, nil, s.Nh)
}

// DeriveTreeSecret derives length bytes from secret for a generation of a ratchet (RFC
// 9420, Section 9). It fails as ExpandWithLabel does.
func (s *Suite) DeriveTreeSecret(secret []byte, label string, generation uint32, length int) ([]byte, error) {
	return s.ExpandWithLabel(secret, label, binary.BigEndian.AppendUint32(nil, generation), length)
}
