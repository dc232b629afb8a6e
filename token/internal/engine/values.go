package engine

import (
	"encoding/binary"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/onecall"
)

// Values are attributes of an object. One that it has not, or does not show, is nil.
type Values map[uint][]byte

// number is a CK_ULONG; false says that the object has none.
func (v Values) Number(t uint) (uint, bool) { return nativeUint(v[t]) }

// read reads attributes of an object, as attribute reads each: all in one call where the module
// takes them so, and one at a time those that this call does not tell.
func (s *Session) Read(o pkcs11.ObjectHandle, types ...uint) (Values, error) {
	v := s.ReadAtOnce(o, types)
	return v, s.Complete(o, v, types...)
}

// complete reads those attributes that are not told yet, one at a time.
func (s *Session) Complete(o pkcs11.ObjectHandle, v Values, types ...uint) error {
	for _, t := range types {
		if _, told := v[t]; told {
			continue
		}
		value, err := s.Attribute(o, t)
		if err != nil {
			return err
		}
		v[t] = value
	}
	return nil
}

// readAtOnce reads what one C_GetAttributeValue tells. An attribute that the object has not
// fails the call, and the token is to go on to the others (PKCS#11, C_GetAttributeValue); but
// some do not, and so nothing is taken from it but Values that are there: that a key has no
// CKA_NEVER_EXTRACTABLE is not believed of a token that may have stopped at another attribute.
// What else it fails with, the first attribute that is read alone fails with too.
func (s *Session) ReadAtOnce(o pkcs11.ObjectHandle, types []uint) Values {
	v := make(Values, len(types))
	if s.one == nil || len(types) < 2 || len(types) > onecall.MaxAttributes {
		return v
	}
	rooms := make([]uint, len(types))
	for i, t := range types {
		rooms[i] = roomFor(t)
	}
	lens := slices.Clone(rooms)
	s.beat()
	out, err := s.one.Attributes(uint(s.handle), uint(o), types, lens)
	if err = oneError(err); err != nil && !FailedWith(err, CKR_ATTRIBUTE_TYPE_INVALID, CKR_ATTRIBUTE_SENSITIVE, CKR_BUFFER_TOO_SMALL) {
		return v
	}
	for i, t := range types {
		if lens[i] < rooms[i] { // one that fills its room, the token may not have come to
			v[t] = slices.Clone(out[:lens[i]])
		}
		out = out[rooms[i]:]
	}
	return v
}

// roomFor is more than an attribute is long: one that fills its room was not read.
func roomFor(t uint) uint {
	switch t {
	case pkcs11.CKA_ID, pkcs11.CKA_LABEL: // which somebody else chose
		return maxAttribute
	case pkcs11.CKA_EC_PARAMS, pkcs11.CKA_EC_POINT:
		return maxPoint
	}
	return maxFlag
}

const (
	maxPoint = 256 // a point on P-521 has 136 bytes, with what is around it
	maxFlag  = 16  // a CK_BBOOL or a CK_ULONG
)

// nativeUint decodes a CK_ULONG: the machine's byte order, and 4 bytes on some systems, 8 on
// others.
func nativeUint(b []byte) (uint, bool) {
	switch len(b) {
	case 4:
		return uint(binary.NativeEndian.Uint32(b)), true
	case 8:
		return uint(binary.NativeEndian.Uint64(b)), true
	}
	return 0, false
}
