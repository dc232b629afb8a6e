package keypackage

import (
	"slices"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// Verified is a key package that was valid when its Builder made it or when Validate checked
// it. It is immutable and safe for concurrent use.
//
// Its lifetime may have ended since: see Validate.
type Verified struct {
	message []byte
	ref     Ref
}

func newVerified(suite *ciphersuite.Suite, e encoding) *Verified {
	return &Verified{message: slices.Clip(e.message), ref: makeRef(suite, e.keyPackage())}
}

// Bytes returns the encoded KeyPackage, which the caller must not change.
func (v *Verified) Bytes() []byte { return v.message[messageHeader:] }

// Message returns the encoded MLSMessage with the KeyPackage, which the caller must not
// change.
func (v *Verified) Message() []byte { return v.message }

// Ref returns the KeyPackageRef (see KeyPackage.Ref), which the caller must not change.
func (v *Verified) Ref() Ref { return v.ref }

// KeyPackage returns a decoded copy, which is the caller's.
func (v *Verified) KeyPackage() *KeyPackage {
	kp := new(KeyPackage)
	kp.read(wire.NewReader(slices.Clone(v.Bytes())))
	return kp
}
