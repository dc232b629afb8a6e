package keypackage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// GroupContext is what all members of a group agree on in an epoch (RFC 9420,
// Section 8.1): uint16 version, uint16 cipher_suite, opaque group_id<V>, uint64
// epoch, opaque tree_hash<V>, opaque confirmed_transcript_hash<V>, Extension
// extensions<V>.
type GroupContext struct {
	Version                 ProtocolVersion
	CipherSuite             ciphersuite.ID
	GroupID                 []byte
	Epoch                   uint64
	TreeHash                []byte
	ConfirmedTranscriptHash []byte
	Extensions              []Extension
}

// GroupInfo describes an epoch of a group to a new member (RFC 9420, Section 12.4.3):
// GroupContext group_context, Extension extensions<V>, opaque confirmation_tag<V>, uint32
// signer, opaque signature<V>.
type GroupInfo struct {
	GroupContext GroupContext
	Extensions   []Extension
	// ConfirmationTag is a MAC of the epoch over the confirmed transcript hash.
	ConfirmationTag []byte
	// Signer is the leaf index of the member that signed it.
	Signer uint32
	// Signature is SignWithLabel(., "GroupInfoTBS", GroupInfoTBS), over all other fields.
	Signature []byte
}

// labelGroupInfo is the label of a GroupInfo's signature (RFC 9420, Section
// 12.4.3).
const labelGroupInfo = "GroupInfoTBS"

// ParseGroupInfo decodes a bare GroupInfo. It returns errors and owns slices as Parse does.
func ParseGroupInfo(b []byte) (*GroupInfo, error) {
	g := new(GroupInfo)
	r := wire.NewReader(slices.Clone(b))
	g.readTBS(r)
	g.Signature = r.Vector()
	if err := r.Finish(); err != nil {
		return nil, fmt.Errorf("parse GroupInfo: %w", err)
	}
	return g, nil
}

// readTBS decodes the fields before the signature.
func (g *GroupInfo) readTBS(r *wire.Reader) {
	g.GroupContext.read(r)
	g.Extensions = readExtensions(r)
	g.ConfirmationTag = r.Vector()
	g.Signer = r.Uint32()
}

func (c *GroupContext) read(r *wire.Reader) {
	c.Version = ProtocolVersion(r.Uint16())
	c.CipherSuite = ciphersuite.ID(r.Uint16())
	c.GroupID = r.Vector()
	c.Epoch = r.Uint64()
	c.TreeHash = r.Vector()
	c.ConfirmedTranscriptHash = r.Vector()
	c.Extensions = readExtensions(r)
}

// Bytes returns the encoded GroupContext in new memory. Lengths are limited as for
// KeyPackage.Bytes.
func (c *GroupContext) Bytes() []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(c.Version))
	b = binary.BigEndian.AppendUint16(b, uint16(c.CipherSuite))
	b = wire.AppendVector(b, c.GroupID)
	b = binary.BigEndian.AppendUint64(b, c.Epoch)
	b = wire.AppendVector(b, c.TreeHash)
	b = wire.AppendVector(b, c.ConfirmedTranscriptHash)
	return appendExtensions(b, c.Extensions)
}

// tbs encodes GroupInfoTBS.
func (g *GroupInfo) tbs() []byte {
	b := appendExtensions(g.GroupContext.Bytes(), g.Extensions)
	b = wire.AppendVector(b, g.ConfirmationTag)
	return binary.BigEndian.AppendUint32(b, g.Signer)
}

// Bytes returns the encoded GroupInfo in new memory. Lengths are limited as for
// KeyPackage.Bytes.
func (g *GroupInfo) Bytes() []byte { return wire.AppendVector(g.tbs(), g.Signature) }

// Verify checks the signature with signatureKey, the signature_key of the leaf at Signer. The
// error wraps ciphersuite.ErrSignature, or says what is wrong with the key.
func (g *GroupInfo) Verify(suite *ciphersuite.Suite, signatureKey []byte) error {
	public, err := suite.Signature.ParsePublicKey(signatureKey)
	if err != nil {
		return fmt.Errorf("verify GroupInfo: %w", err)
	}
	if err := public.VerifyWithLabel(labelGroupInfo, g.tbs(), g.Signature); err != nil {
		return fmt.Errorf("verify GroupInfo: %w", err)
	}
	return nil
}

// RatchetTree returns the data of the ratchet_tree extension, and whether there is one.
func (g *GroupInfo) RatchetTree() ([]byte, bool) {
	i := slices.IndexFunc(g.Extensions, func(e Extension) bool { return e.Type == ExtensionRatchetTree })
	if i < 0 {
		return nil, false
	}
	return g.Extensions[i].Data, true
}

// LeafAt returns the leaf with an index in a ratchet tree, optional<Node> ratchet_tree<V> (RFC
// 9420, Section 12.4.3.3). It returns nil and no error if the leaf is blank or the tree ends
// before it. It decodes the tree up to that leaf, and fails if that part is malformed.
func LeafAt(tree []byte, index uint32) (*LeafNode, error) {
	outer := wire.NewReader(slices.Clone(tree))
	nodes := wire.NewReader(outer.Vector())
	if err := outer.Finish(); err != nil {
		return nil, fmt.Errorf("parse ratchet tree: %w", err)
	}
	for i := uint64(0); nodes.Len() > 0; i++ {
		leaf := readNode(nodes, i%2 == 0)
		if nodes.Err() != nil {
			break
		}
		if i == 2*uint64(index) {
			return leaf, nil
		}
	}
	if err := nodes.Finish(); err != nil {
		return nil, fmt.Errorf("parse ratchet tree: %w", err)
	}
	return nil, nil
}

var errNode = errors.New("a node is neither a leaf nor a parent, or is in the wrong place")

// readNode decodes one optional<Node> and returns the leaf in it, or nil for a parent or a
// blank. Leaves are at even places (RFC 9420, Section 7.8).
func readNode(r *wire.Reader, even bool) *LeafNode {
	const nodeLeaf, nodeParent = 1, 2
	switch present := r.Uint8(); {
	case present > 1:
		r.Fail(errNode)
		return nil
	case present == 0:
		return nil
	}
	switch kind := r.Uint8(); {
	case kind == nodeLeaf && even:
		leaf := new(LeafNode)
		leaf.read(r)
		return leaf
	case kind == nodeParent && !even:
		r.Vector() // encryption_key
		r.Vector() // parent_hash
		r.Vector() // unmerged_leaves
	default:
		r.Fail(errNode)
	}
	return nil
}
