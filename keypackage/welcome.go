package keypackage

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// Welcome is the message with which clients join a group by their key packages (RFC 9420,
// Section 12.4.3.1): uint16 cipher_suite, EncryptedGroupSecrets secrets<V>, opaque
// encrypted_group_info<V>. Package welcome opens one.
type Welcome struct {
	CipherSuite ciphersuite.ID
	// Secrets has an entry for each new member.
	Secrets []EncryptedGroupSecrets
	// EncryptedGroupInfo is a GroupInfo, encrypted with a key derived from the secrets.
	EncryptedGroupInfo []byte
}

// EncryptedGroupSecrets is the GroupSecrets of one new member, encrypted to its init_key:
// opaque new_member<V>, opaque kem_output<V>, opaque ciphertext<V>.
type EncryptedGroupSecrets struct {
	// NewMember is the reference of its key package.
	NewMember  Ref
	KEMOutput  []byte
	Ciphertext []byte
}

// ParseWelcome decodes a bare Welcome, not one in an MLSMessage. It returns errors and owns
// slices as Parse does.
func ParseWelcome(b []byte) (*Welcome, error) {
	w := new(Welcome)
	r := wire.NewReader(slices.Clone(b))
	w.CipherSuite = ciphersuite.ID(r.Uint16())
	list := wire.NewReader(r.Vector())
	for list.Len() > 0 {
		w.Secrets = append(w.Secrets, EncryptedGroupSecrets{NewMember: list.Vector(), KEMOutput: list.Vector(), Ciphertext: list.Vector()})
	}
	if err := list.Finish(); err != nil {
		r.Fail(err)
	}
	w.EncryptedGroupInfo = r.Vector()
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("parse Welcome: %w", err)
	}
	return w, nil
}

// Bytes returns the encoded Welcome in new memory. Lengths are limited as for
// KeyPackage.Bytes.
func (w *Welcome) Bytes() []byte {
	size := 0
	for _, s := range w.Secrets {
		size += sizeVector(s.NewMember) + sizeVector(s.KEMOutput) + sizeVector(s.Ciphertext)
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(w.CipherSuite))
	b = wire.AppendVectorLen(b, size)
	for _, s := range w.Secrets {
		b = wire.AppendVector(b, s.NewMember)
		b = wire.AppendVector(b, s.KEMOutput)
		b = wire.AppendVector(b, s.Ciphertext)
	}
	return wire.AppendVector(b, w.EncryptedGroupInfo)
}

// Message returns the Welcome in an MLSMessage (RFC 9420, Section 6) of version mls10, in new
// memory: uint16 version, uint16 wire_format, Welcome.
func (w *Welcome) Message() []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(MLS10))
	return append(binary.BigEndian.AppendUint16(b, uint16(WireFormatWelcome)), w.Bytes()...)
}

// DecodeWelcome decodes a Welcome, in an MLSMessage or bare. A bare one of suite 1 begins as
// an MLSMessage does, but not as one of wire format mls_welcome. It returns errors and owns
// slices as Parse does.
func DecodeWelcome(b []byte) (*Welcome, error) {
	if m, err := ParseMessage(b); err == nil && m.WireFormat == WireFormatWelcome {
		b = m.Body
	}
	return ParseWelcome(b)
}
