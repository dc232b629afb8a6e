package keypackage

import (
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// The errors of decoding, which the errors of Parse and its siblings wrap.
var (
	// ErrTruncated reports input that ends too early.
	ErrTruncated = wire.ErrTruncated // "input is truncated"
	// ErrTrailing reports input that goes on after its end.
	ErrTrailing = wire.ErrTrailing // "input has trailing bytes"
	// ErrLength reports the length of a vector that is not encoded in the fewest
	// bytes (RFC 9420, Section 2.1.2).
	ErrLength = wire.ErrLength // "length of a vector is malformed"
)

// ReadKeyPackage decodes the KeyPackage that b begins with, such as the one in an
// Add proposal, and returns the bytes after it. The slices of both results share b.
// The error wraps ErrTruncated, ErrLength or ErrSource.
func ReadKeyPackage(b []byte) (kp *KeyPackage, rest []byte, err error) {
	kp = new(KeyPackage)
	if rest, err = readPrefix(b, kp.read); err != nil {
		return nil, nil, err
	}
	return kp, rest, nil
}

// ReadLeafNode decodes the LeafNode that b begins with, such as the one in an Update
// proposal, and returns the bytes after it, as ReadKeyPackage does.
func ReadLeafNode(b []byte) (leaf *LeafNode, rest []byte, err error) {
	leaf = new(LeafNode)
	if rest, err = readPrefix(b, leaf.read); err != nil {
		return nil, nil, err
	}
	return leaf, rest, nil
}

// ReadGroupContext decodes the GroupContext that b begins with and returns the bytes
// after it, as ReadKeyPackage does.
func ReadGroupContext(b []byte) (c GroupContext, rest []byte, err error) {
	rest, err = readPrefix(b, c.read)
	return c, rest, err
}

// ReadExtensions decodes the list Extension extensions<V> that b begins with and
// returns the bytes after it, as ReadKeyPackage does.
func ReadExtensions(b []byte) (list []Extension, rest []byte, err error) {
	rest, err = readPrefix(b, func(r *wire.Reader) { list = readExtensions(r) })
	return list, rest, err
}

// readPrefix has read decode what b begins with.
func readPrefix(b []byte, read func(*wire.Reader)) (rest []byte, err error) {
	r := wire.NewReader(b)
	read(r)
	if err := r.Err(); err != nil {
		return nil, err
	}
	return r.Bytes(r.Len()), nil
}
