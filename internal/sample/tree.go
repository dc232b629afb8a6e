package sample

import (
	"encoding/binary"
	"math/bits"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// tree is a ratchet tree whose parent nodes are all blank, because no commit with a path was
// made in it.
type tree struct {
	suite  *ciphersuite.Suite
	leaves [][]byte // encoded LeafNodes, one or more
}

// Values of NodeType, and of the presence of an optional value (RFC 9420, Sections 7.8 and 2.1.1).
const (
	nodeLeaf   = 1
	nodeParent = 2
	absent     = 0
	present    = 1
)

// bytes returns the data of the ratchet_tree extension (RFC 9420, Section 12.4.3.3):
// optional<Node> ratchet_tree<V>, leaves and parents by turns, without blank nodes at the end.
func (t *tree) bytes() []byte {
	var nodes []byte
	for i, leaf := range t.leaves {
		if i > 0 {
			nodes = append(nodes, absent)
		}
		nodes = append(append(nodes, present, nodeLeaf), leaf...)
	}
	return wire.AppendVector(nil, nodes)
}

// hash returns the tree hash (RFC 9420, Section 7.8).
func (t *tree) hash() []byte {
	return t.hashOf(0, 1<<bits.Len(uint(len(t.leaves)-1)))
}

// hashOf returns the tree hash of the subtree over n leaves, a power of two, from the leaf first on.
func (t *tree) hashOf(first, n int) []byte {
	var input []byte
	switch {
	case n > 1:
		input = append(input, nodeParent, absent)
		input = wire.AppendVector(input, t.hashOf(first, n/2))
		input = wire.AppendVector(input, t.hashOf(first+n/2, n/2))
	case first < len(t.leaves):
		input = binary.BigEndian.AppendUint32([]byte{nodeLeaf}, uint32(first))
		input = append(append(input, present), t.leaves[first]...)
	default:
		input = append(binary.BigEndian.AppendUint32([]byte{nodeLeaf}, uint32(first)), absent)
	}
	h := t.suite.Hash.New()
	h.Write(input)
	return h.Sum(nil)
}
