// Package wire implements the TLS presentation language as RFC 9420 uses it (Section 2.1):
// big-endian integers, and vectors opaque<V> with their length in one, two or four bytes before
// them (Section 2.1.2).
//
// Encoding appends to a slice; encoding/binary.BigEndian encodes integers. Decoding goes through a
// Reader, which keeps the first error.
package wire

import (
	"encoding/binary"
	"errors"
)

// Errors of decoding. A Reader returns them unwrapped.
var (
	// ErrTruncated reports input that ends too early.
	ErrTruncated = errors.New("input is truncated")
	// ErrTrailing reports input with bytes after its end.
	ErrTrailing = errors.New("input has trailing bytes")
	// ErrLength reports the length of a vector that is not encoded in the fewest bytes, or has the
	// reserved prefix 0b11.
	ErrLength = errors.New("length of a vector is malformed")
)

// MaxVectorLen is the length of the longest vector, in bytes.
const MaxVectorLen = 1<<30 - 1

// AppendVector appends v as opaque<V>: its length and its bytes. v has at most
// MaxVectorLen bytes.
func AppendVector(b, v []byte) []byte {
	return append(AppendVectorLen(b, len(v)), v...)
}

// AppendVectorLen appends the length n, 0 to MaxVectorLen, in the fewest bytes (RFC 9420, Section
// 2.1.2). Callers that frame foreign data must check its length.
func AppendVectorLen(b []byte, n int) []byte {
	switch VectorLen(n) {
	case 1:
		return append(b, byte(n))
	case 2:
		return binary.BigEndian.AppendUint16(b, 0x4000|uint16(n))
	default:
		return binary.BigEndian.AppendUint32(b, 0x80000000|uint32(n))
	}
}

// VectorLen returns how many bytes the length n takes: 1, 2 or 4.
func VectorLen(n int) int {
	switch {
	case n < 1<<6:
		return 1
	case n < 1<<14:
		return 2
	default:
		return 4
	}
}

// Reader decodes from a byte slice. It keeps the first error and returns zero values after it, so
// that a caller may read a whole structure and check Err once. It copies nothing: results alias its
// input. It is not safe for concurrent use.
type Reader struct {
	b   []byte
	err error
}

// NewReader returns a Reader over b.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Err returns the first error.
func (r *Reader) Err() error { return r.err }

// Len returns how many bytes are left; 0 after an error.
func (r *Reader) Len() int { return len(r.b) }

// Finish returns the first error, or ErrTrailing if bytes are left.
func (r *Reader) Finish() error {
	if r.err == nil && len(r.b) > 0 {
		r.Fail(ErrTrailing)
	}
	return r.err
}

// Fail sets the error, unless there is one already, and drops the rest of the input. A nil err
// changes nothing, so that the error of a Reader over a part can be passed on as it is.
func (r *Reader) Fail(err error) {
	if err == nil {
		return
	}
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

// Bytes returns the next n bytes, or nil if fewer are left.
func (r *Reader) Bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.Fail(ErrTruncated)
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

// Uint8 reads a uint8.
func (r *Reader) Uint8() uint8 {
	if v := r.Bytes(1); v != nil {
		return v[0]
	}
	return 0
}

// Uint16 reads a uint16.
func (r *Reader) Uint16() uint16 {
	if v := r.Bytes(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

// Uint32 reads a uint32.
func (r *Reader) Uint32() uint32 {
	if v := r.Bytes(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

// Uint64 reads a uint64.
func (r *Reader) Uint64() uint64 {
	if v := r.Bytes(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// Vector reads an opaque<V> and returns its content: empty but not nil if the vector is empty, nil
// after an error.
func (r *Reader) Vector() []byte {
	n := r.vectorLen()
	if r.err != nil {
		return nil
	}
	return r.Bytes(n)
}

// Sub reads an opaque<V> and returns a Reader over its content. That Reader keeps its own error: a
// caller checks both.
func (r *Reader) Sub() Reader {
	v := r.Vector()
	return Reader{b: v, err: r.err}
}

// Next decodes what comes next in r by a function that returns the rest of its input.
func Next[T any](r *Reader, decode func(b []byte) (v T, rest []byte, err error)) T {
	v, rest, err := decode(r.b)
	r.b = rest
	r.Fail(err)
	return v
}

// vectorLen reads the length of a vector. The two highest bits of the first byte give the number of
// bytes of the length.
func (r *Reader) vectorLen() int {
	if len(r.b) == 0 {
		r.Fail(ErrTruncated)
		return 0
	}
	size := 1 << (r.b[0] >> 6)
	if size == 8 {
		r.Fail(ErrLength)
		return 0
	}
	prefix := r.Bytes(size)
	if prefix == nil {
		return 0
	}
	n := int(prefix[0] & 0x3F)
	for _, c := range prefix[1:] {
		n = n<<8 | int(c)
	}
	if VectorLen(n) != size {
		r.Fail(ErrLength)
		return 0
	}
	return n
}
