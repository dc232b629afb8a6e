package keypackage

import (
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/stringer"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// KeyPackage is the structure of RFC 9420, Section 10. No field has been checked: see
// Validate.
type KeyPackage struct {
	Version     ProtocolVersion
	CipherSuite ciphersuite.ID
	// InitKey is the HPKE public key to which a Welcome is encrypted.
	InitKey    []byte
	LeafNode   LeafNode
	Extensions []Extension
	// Signature is SignWithLabel(., "KeyPackageTBS", KeyPackageTBS).
	Signature []byte
}

// The labels of signatures and references (RFC 9420, Sections 5.2 and 17.6).
const (
	labelLeafNode   = "LeafNodeTBS"
	labelKeyPackage = "KeyPackageTBS"
	labelRef        = "MLS 1.0 KeyPackage Reference"
)

// Parse decodes a bare KeyPackage, not one in an MLSMessage. The error wraps
// ErrTruncated, ErrTrailing, ErrLength or ErrSource. Parse checks the encoding and
// nothing else: see Validate.
//
// It makes one copy of b, which the slices of the result share; the caller
// keeps b. Memory is proportional to the length of b.
func Parse(b []byte) (*KeyPackage, error) {
	kp := new(KeyPackage)
	r := wire.NewReader(slices.Clone(b))
	kp.read(r)
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("parse key package: %w", err)
	}
	return kp, nil
}

func (kp *KeyPackage) read(r *wire.Reader) {
	kp.readTBS(r)
	kp.Signature = r.Vector()
}

// readTBS decodes the fields before the signature.
func (kp *KeyPackage) readTBS(r *wire.Reader) {
	kp.Version = ProtocolVersion(r.Uint16())
	kp.CipherSuite = ciphersuite.ID(r.Uint16())
	kp.InitKey = r.Vector()
	kp.LeafNode.read(r)
	kp.Extensions = readExtensions(r)
}

// Bytes returns the encoded KeyPackage in new memory. No field may be longer than 2^30-1
// bytes, the limit of RFC 9420, Section 2.1.2.
func (kp *KeyPackage) Bytes() []byte { return kp.encode().keyPackage() }

// Message returns the KeyPackage in an MLSMessage (RFC 9420, Section 6) of the
// same version, in new memory: uint16 version, uint16 wire_format, KeyPackage.
func (kp *KeyPackage) Message() []byte { return kp.encode().message }

// Ref returns the KeyPackageRef (RFC 9420, Section 5.2): RefHash of the encoded KeyPackage,
// not of the MLSMessage around it. It has Nh bytes of the suite: 32, 48 or 64. It fails only
// if the cipher suite is unknown, which leaves no hash.
func (kp *KeyPackage) Ref() (Ref, error) {
	suite, ok := ciphersuite.Lookup(kp.CipherSuite)
	if !ok {
		return nil, fmt.Errorf("compute key package reference: unknown cipher suite %v", kp.CipherSuite)
	}
	return makeRef(suite, kp.Bytes()), nil
}

// LastResort reports whether the key package has the last_resort extension (0x000A): then it
// may be used more than once when there is no other.
func (kp *KeyPackage) LastResort() bool {
	return slices.ContainsFunc(kp.Extensions, func(e Extension) bool { return e.Type == ExtensionLastResort })
}

// Ref is a KeyPackageRef (RFC 9420, Section 5.2), by which a Welcome names a key package:
// 32, 48 or 64 bytes, the Nh of the cipher suite.
type Ref []byte

// String returns the reference in hexadecimal.
func (r Ref) String() string { return hex.EncodeToString(r) }

// Format prints the hexadecimal under %v, %s, %x and %X, and in quotes under %q.
func (r Ref) Format(f fmt.State, verb rune) { stringer.Format(f, verb, r.String(), []byte(r)) }

// MarshalText returns the reference in hexadecimal. It never fails.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

func makeRef(suite *ciphersuite.Suite, keyPackage []byte) Ref {
	return suite.RefHash(labelRef, keyPackage)
}
