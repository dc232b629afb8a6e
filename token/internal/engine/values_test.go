package engine

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/onecall"
)

// stopping is a token that stops at an attribute that an object does not have. It leaves the
// lengths of the attributes after it as they were, or reports that it has none of them.
type stopping struct {
	oneCalls
	has      map[uint][]byte
	disclaim bool
	single   []uint // the attributes that were read one at a time
}

func (s *stopping) Attributes(_, _ uint, types, lens []uint) ([]byte, error) {
	var out []byte
	for i, t := range types {
		part := make([]byte, lens[i])
		value, ok := s.has[t]
		if !ok {
			for ; i < len(types); i++ {
				out = append(out, make([]byte, lens[i])...)
				if s.disclaim {
					lens[i] = onecall.Unavailable
				}
			}
			return out, &onecall.Failed{Func: "C_GetAttributeValue", RV: uint(CKR_ATTRIBUTE_TYPE_INVALID)}
		}
		lens[i] = uint(copy(part, value))
		out = append(out, part...)
	}
	return out, nil
}

func (s *stopping) Attribute(_, _, t uint, out []byte) ([]byte, error) {
	s.single = append(s.single, t)
	value, ok := s.has[t]
	if !ok {
		return nil, &onecall.Failed{Func: "C_GetAttributeValue", RV: uint(CKR_ATTRIBUTE_TYPE_INVALID)}
	}
	return out[:copy(out, value)], nil
}

// TestWhatATokenDoesNotTellAtOnceIsAskedForAlone has a key that left its token once, which must
// not be overlooked because of an attribute that the key does not have.
func TestWhatATokenDoesNotTellAtOnceIsAskedForAlone(t *testing.T) {
	class := binary.NativeEndian.AppendUint64(nil, pkcs11.CKO_PRIVATE_KEY)
	for _, disclaim := range []bool{false, true} {
		one := &stopping{disclaim: disclaim, has: map[uint][]byte{
			pkcs11.CKA_CLASS: class, pkcs11.CKA_SENSITIVE: {1}, pkcs11.CKA_NEVER_EXTRACTABLE: {0}, pkcs11.CKA_LABEL: make([]byte, maxAttribute),
		}}
		s := &Session{one: one}
		v, err := s.Read(1, pkcs11.CKA_CLASS, pkcs11.CKA_SENSITIVE, pkcs11.CKA_MODIFIABLE, pkcs11.CKA_NEVER_EXTRACTABLE, pkcs11.CKA_LABEL)
		if err != nil {
			t.Fatal(err)
		}
		never := s.FlagOf(v, pkcs11.CKA_NEVER_EXTRACTABLE)
		if class, _ := v.Number(pkcs11.CKA_CLASS); class != pkcs11.CKO_PRIVATE_KEY || never == nil || *never || len(v[pkcs11.CKA_LABEL]) != maxAttribute || s.FlagOf(v, pkcs11.CKA_MODIFIABLE) != nil {
			t.Errorf("disclaim=%t: Read() = %v, want what the token has", disclaim, v)
		}
		if want := []uint{pkcs11.CKA_MODIFIABLE, pkcs11.CKA_NEVER_EXTRACTABLE, pkcs11.CKA_LABEL}; !slices.Equal(one.single, want) {
			t.Errorf("disclaim=%t: %v were read one at a time, want %v", disclaim, one.single, want)
		}
	}
}
