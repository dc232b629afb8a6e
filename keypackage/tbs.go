package keypackage

import (
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// LeafNodeTBS is what the signature of a leaf node covers (RFC 9420, Section 7.2): the fields
// before it, and for sources update and commit opaque group_id<V>, uint32 leaf_index.
type LeafNodeTBS struct {
	// Leaf has no Signature.
	Leaf LeafNode
	// GroupID and LeafIndex are on the wire only if the source is update or commit.
	GroupID   []byte
	LeafIndex uint32
}

// ParseLeafNodeTBS decodes a LeafNodeTBS. It returns errors and owns slices as Parse does.
func ParseLeafNodeTBS(b []byte) (*LeafNodeTBS, error) {
	t := new(LeafNodeTBS)
	r := wire.NewReader(slices.Clone(b))
	t.Leaf.readTBS(r)
	if t.Leaf.Source != SourceKeyPackage {
		t.GroupID = r.Vector()
		t.LeafIndex = r.Uint32()
	}
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("parse LeafNodeTBS: %w", err)
	}
	return t, nil
}

// ParseKeyPackageTBS decodes a KeyPackageTBS (RFC 9420, Section 10): a KeyPackage without its
// signature, so Signature is nil. It returns errors and owns slices as Parse does.
func ParseKeyPackageTBS(b []byte) (*KeyPackage, error) {
	r := wire.NewReader(slices.Clone(b))
	kp := new(KeyPackage)
	kp.readTBS(r)
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("parse KeyPackageTBS: %w", err)
	}
	return kp, nil
}

// ParseGroupInfoTBS decodes a GroupInfoTBS (RFC 9420, Section 12.4.3): a GroupInfo without its
// signature, so Signature is nil. It returns errors and owns slices as Parse does.
func ParseGroupInfoTBS(b []byte) (*GroupInfo, error) {
	g := new(GroupInfo)
	r := wire.NewReader(slices.Clone(b))
	g.readTBS(r)
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("parse GroupInfoTBS: %w", err)
	}
	return g, nil
}
