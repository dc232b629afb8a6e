package keypackage

import (
	"encoding/binary"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// messageHeader is the length of what precedes the body of an MLSMessage: uint16 version,
// uint16 wire_format.
const messageHeader = 4

// encoding is an encoded key package with the positions of the signed structures. Each is a
// prefix of the structure that contains it, so one buffer serves the MLSMessage, the
// KeyPackage, the KeyPackageTBS and, for a leaf node of source key_package, the LeafNodeTBS.
type encoding struct {
	message []byte
	// leaf and leafEnd bound the fields of the leaf node before its signature.
	leaf, leafEnd int
	// end is where the key package's signature begins.
	end int
}

// newEncoding encodes all fields up to init_key, with room for size bytes more.
func newEncoding(v ProtocolVersion, suite ciphersuite.ID, initKey []byte, size int) encoding {
	b := make([]byte, 0, messageHeader+4+wire.VectorLen(len(initKey))+len(initKey)+size)
	b = binary.BigEndian.AppendUint16(b, uint16(v))
	b = binary.BigEndian.AppendUint16(b, uint16(WireFormatKeyPackage))
	b = binary.BigEndian.AppendUint16(b, uint16(v))
	b = binary.BigEndian.AppendUint16(b, uint16(suite))
	b = wire.AppendVector(b, initKey)
	return encoding{message: b, leaf: len(b)}
}

func (kp *KeyPackage) encode() encoding {
	size := kp.LeafNode.sizeTBS() + sizeVector(kp.LeafNode.Signature) + sizeExtensions(kp.Extensions) + sizeVector(kp.Signature)
	e := newEncoding(kp.Version, kp.CipherSuite, kp.InitKey, size)
	e.message = kp.LeafNode.appendTBS(e.message)
	e.leafEnd = len(e.message)
	e.message = wire.AppendVector(e.message, kp.LeafNode.Signature)
	e.message = appendExtensions(e.message, kp.Extensions)
	e.end = len(e.message)
	e.message = wire.AppendVector(e.message, kp.Signature)
	return e
}

// leafNodeTBS returns the LeafNodeTBS of a leaf node of source key_package.
func (e encoding) leafNodeTBS() []byte { return e.message[e.leaf:e.leafEnd:e.leafEnd] }

// keyPackageTBS returns the KeyPackageTBS.
func (e encoding) keyPackageTBS() []byte { return e.message[messageHeader:e.end:e.end] }

// keyPackage returns the KeyPackage.
func (e encoding) keyPackage() []byte {
	return e.message[messageHeader:len(e.message):len(e.message)]
}

// sizeVector returns the length of v as opaque<V>.
func sizeVector(v []byte) int { return wire.VectorLen(len(v)) + len(v) }

// readList decodes a <V> vector of uint16 code points.
func readList[T ~uint16](r *wire.Reader) []T {
	v := r.Vector()
	if len(v)%2 != 0 {
		r.Fail(wire.ErrTruncated) // the last code point
	}
	if len(v) == 0 {
		return nil
	}
	list := make([]T, len(v)/2)
	for i := range list {
		list[i] = T(binary.BigEndian.Uint16(v[2*i:]))
	}
	return list
}

// appendList encodes a <V> vector of uint16 code points.
func appendList[T ~uint16](b []byte, list []T) []byte {
	b = wire.AppendVectorLen(b, 2*len(list))
	for _, v := range list {
		b = binary.BigEndian.AppendUint16(b, uint16(v))
	}
	return b
}

// sizeList returns the encoded length of n code points.
func sizeList(n int) int { return wire.VectorLen(2*n) + 2*n }
