package framing

import (
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Proposal is a proposal (RFC 9420, Section 12.1): uint16 proposal_type, and the content of that
// type. Content that is neither a key package nor a leaf node is dropped.
type Proposal struct {
	Type keypackage.ProposalType
	// KeyPackage is the key package of an Add.
	KeyPackage *keypackage.KeyPackage
	// Leaf is the leaf of an Update, which replaces the sender's.
	Leaf *keypackage.LeafNode
}

// Commit is a Commit (RFC 9420, Section 12.4): ProposalOrRef proposals<V>,
// optional<UpdatePath> path.
type Commit struct {
	// Proposals are the proposals in the commit itself, without those that it refers to.
	Proposals []Proposal
	// Leaf is the leaf_node of path, or nil if there is no path.
	Leaf *keypackage.LeafNode
}

func readProposal(r *wire.Reader) Proposal {
	p := Proposal{Type: keypackage.ProposalType(r.Uint16())}
	switch p.Type {
	case keypackage.ProposalAdd:
		p.KeyPackage = wire.Next(r, keypackage.ReadKeyPackage)
	case keypackage.ProposalUpdate:
		p.Leaf = wire.Next(r, keypackage.ReadLeafNode)
	case keypackage.ProposalRemove:
		r.Uint32() // removed
	case keypackage.ProposalPSK:
		readPSK(r)
	case keypackage.ProposalReInit:
		r.Vector() // group_id
		r.Uint16() // version
		r.Uint16() // cipher_suite
		wire.Next(r, keypackage.ReadExtensions)
	case keypackage.ProposalExternalInit:
		r.Vector() // kem_output
	case keypackage.ProposalGroupContextExtensions:
		wire.Next(r, keypackage.ReadExtensions)
	default:
		r.Fail(ErrKind)
	}
	return p
}

// readPSK decodes a PreSharedKeyID (RFC 9420, Section 8.4).
func readPSK(r *wire.Reader) {
	const external, resumption = 1, 2
	switch r.Uint8() {
	case external:
		r.Vector() // psk_id
	case resumption:
		if usage := r.Uint8(); usage < 1 || usage > 3 {
			r.Fail(ErrKind)
		}
		r.Vector() // psk_group_id
		r.Uint64() // psk_epoch
	default:
		r.Fail(ErrKind)
	}
	r.Vector() // psk_nonce
}

func readCommit(r *wire.Reader) *Commit {
	c := new(Commit)
	list := r.Sub()
	for list.Len() > 0 {
		c.readProposalOrRef(&list)
	}
	r.Fail(list.Err())
	switch r.Uint8() { // optional<UpdatePath>
	case 0:
	case 1:
		c.Leaf = wire.Next(r, keypackage.ReadLeafNode)
		readPathNodes(r)
	default:
		r.Fail(ErrKind)
	}
	return c
}

func (c *Commit) readProposalOrRef(r *wire.Reader) {
	const proposal, reference = 1, 2
	switch r.Uint8() {
	case proposal:
		c.Proposals = append(c.Proposals, readProposal(r))
	case reference:
		r.Vector()
	default:
		r.Fail(ErrKind)
	}
}

// readPathNodes decodes UpdatePathNode nodes<V> (RFC 9420, Section 7.6).
func readPathNodes(r *wire.Reader) {
	nodes := r.Sub()
	for nodes.Len() > 0 {
		nodes.Vector() // encryption_key
		secrets := nodes.Sub()
		for secrets.Len() > 0 {
			secrets.Vector() // kem_output
			secrets.Vector() // ciphertext
		}
		nodes.Fail(secrets.Err())
	}
	r.Fail(nodes.Err())
}
