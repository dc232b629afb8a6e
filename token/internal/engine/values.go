package engine

import (
	"encoding/binary"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/onecall"
)

// Values are attributes of an object. One that the object does not have or does not show is nil.
type Values map[uint][]byte

// Number is a CK_ULONG; false means that the object does not have it.
func (v Values) Number(t uint) (uint, bool) { return nativeUint(v[t]) }

// Read reads attributes of an object as Attribute reads each: all in one call if the module can,
// and one at a time those that this call did not return.
func (s *Session) Read(o pkcs11.ObjectHandle, types ...uint) (Values, error) {
	v := s.ReadAtOnce(o, types)
	return v, s.Complete(o, v, types...)
}

// Complete reads those attributes that are not there yet, one at a time.
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

// ReadAtOnce reads what one C_GetAttributeValue returns. An attribute that the object does not
// have fails the call, and the token should go on to the others (PKCS#11, C_GetAttributeValue);
// but some do not. So only values that are there are taken: that a key has no
// CKA_NEVER_EXTRACTABLE is not believed of a token that may have stopped at another attribute. If
// the call fails for another reason, the first attribute that is read by itself fails too.
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
		if lens[i] < rooms[i] { // if a value fills its room, the token may not have reached it
			v[t] = slices.Clone(out[:lens[i]])
		}
		out = out[rooms[i]:]
	}
	return v
}

// roomFor is longer than an attribute: one that fills its room was not read.
func roomFor(t uint) uint {
	switch t {
	case pkcs11.CKA_ID, pkcs11.CKA_LABEL: // somebody else chose them
		return maxAttribute
	case pkcs11.CKA_EC_PARAMS, pkcs11.CKA_EC_POINT:
		return maxPoint
	}
	return maxFlag
}

const (
	maxPoint = 256 // a point on P-521 has 136 bytes, with its encoding
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
