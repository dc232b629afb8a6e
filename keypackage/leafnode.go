package keypackage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// ErrSource reports a leaf_node_source that RFC 9420 does not define, so that the fields
// after it are unknown.
var ErrSource = errors.New("unknown leaf_node_source")

// LeafNode is the structure of RFC 9420, Section 7.2: a client as a member of a group.
type LeafNode struct {
	// EncryptionKey is an HPKE public key, which differs from the key package's init_key.
	EncryptionKey []byte
	// SignatureKey is a public key of the suite's signature scheme (Section 5.1.1): for
	// ECDSA an uncompressed point, for EdDSA as in RFC 8032.
	SignatureKey []byte
	Credential   Credential
	Capabilities Capabilities
	Source       LeafNodeSource
	// Lifetime is on the wire only if Source is SourceKeyPackage.
	Lifetime Lifetime
	// ParentHash is on the wire only if Source is SourceCommit.
	ParentHash []byte
	Extensions []Extension
	// Signature is SignWithLabel(., "LeafNodeTBS", LeafNodeTBS).
	Signature []byte
}

// Lifetime is the time in which clients consider a leaf node valid (RFC 9420, Section 7.2),
// in seconds since 1970-01-01T00:00:00Z, both ends included: two uint64 on the wire. The
// whole range occurs, and most of it is beyond time.Time.
type Lifetime struct {
	NotBefore uint64
	NotAfter  uint64
}

// ParseLeafNode decodes a bare LeafNode of any source. It returns errors and owns slices as
// Parse does.
func ParseLeafNode(b []byte) (*LeafNode, error) {
	r := wire.NewReader(slices.Clone(b))
	leaf := new(LeafNode)
	leaf.read(r)
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("parse leaf node: %w", err)
	}
	return leaf, nil
}

func (l *LeafNode) read(r *wire.Reader) {
	l.readTBS(r)
	l.Signature = r.Vector()
}

// readTBS decodes the fields before the signature.
func (l *LeafNode) readTBS(r *wire.Reader) {
	l.EncryptionKey = r.Vector()
	l.SignatureKey = r.Vector()
	l.Credential.read(r)
	l.Capabilities.read(r)
	l.Source = LeafNodeSource(r.Uint8())
	switch l.Source {
	case SourceKeyPackage:
		l.Lifetime = Lifetime{NotBefore: r.Uint64(), NotAfter: r.Uint64()}
	case SourceUpdate:
	case SourceCommit:
		l.ParentHash = r.Vector()
	default:
		r.Fail(ErrSource)
	}
	l.Extensions = readExtensions(r)
}

// Bytes returns the encoded LeafNode in new memory. Lengths are limited as for
// KeyPackage.Bytes.
func (l *LeafNode) Bytes() []byte {
	b := make([]byte, 0, l.sizeTBS()+sizeVector(l.Signature))
	return wire.AppendVector(l.appendTBS(b), l.Signature)
}

// Verify checks the signature of the leaf node with its own signature_key and the signature
// scheme of the suite. groupID and leafIndex are part of what is signed if the source is
// update or commit, and ignored if it is key_package (RFC 9420, Section 7.2). The error wraps
// ciphersuite.ErrSignature, or says what is wrong with the key.
func (l *LeafNode) Verify(suite *ciphersuite.Suite, groupID []byte, leafIndex uint32) error {
	public, err := suite.Signature.ParsePublicKey(l.SignatureKey)
	if err != nil {
		return fmt.Errorf("verify leaf node: %w", err)
	}
	tbs := l.appendTBS(make([]byte, 0, l.sizeTBS()+sizeVector(groupID)+4))
	if l.Source != SourceKeyPackage {
		tbs = wire.AppendVector(tbs, groupID)
		tbs = binary.BigEndian.AppendUint32(tbs, leafIndex)
	}
	if err := public.VerifyWithLabel(labelLeafNode, tbs, l.Signature); err != nil {
		return fmt.Errorf("verify leaf node: %w", err)
	}
	return nil
}

// appendTBS encodes the fields before the signature: the LeafNodeTBS if the source is
// key_package, else all of it but group_id and leaf_index.
func (l *LeafNode) appendTBS(b []byte) []byte {
	return l.appendSigner(wire.AppendVector(b, l.EncryptionKey))
}

// appendSigner encodes the fields between encryption_key and signature, which all leaf nodes
// of a template have in common.
func (l *LeafNode) appendSigner(b []byte) []byte {
	b = wire.AppendVector(b, l.SignatureKey)
	b = l.Credential.append(b)
	b = l.Capabilities.append(b)
	b = append(b, byte(l.Source))
	switch l.Source {
	case SourceKeyPackage:
		b = binary.BigEndian.AppendUint64(b, l.Lifetime.NotBefore)
		b = binary.BigEndian.AppendUint64(b, l.Lifetime.NotAfter)
	case SourceCommit:
		b = wire.AppendVector(b, l.ParentHash)
	}
	return appendExtensions(b, l.Extensions)
}

// sizeTBS returns the length of what appendTBS appends, or slightly more.
func (l *LeafNode) sizeTBS() int {
	const sourceAndLifetime = 1 + 8 + 8
	return sizeVector(l.EncryptionKey) + sizeVector(l.SignatureKey) + l.Credential.size() + l.Capabilities.size() +
		sourceAndLifetime + sizeVector(l.ParentHash) + sizeExtensions(l.Extensions)
}
