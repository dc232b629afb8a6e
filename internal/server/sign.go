package server

import (
	"bytes"
	"context"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/framing"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// signer is an identity with its public key as leaf nodes encode it.
type signer struct {
	*identity.Identity
	signatureKey []byte
}

// checks maps each label that is signed to the check of its content. These are all the labels that
// RFC 9420 defines for a member's signature key.
var checks = map[string]func(signer, []byte) error{
	"FramedContentTBS": signer.checkContent,
	"LeafNodeTBS":      signer.checkLeaf,
	"KeyPackageTBS":    signer.checkKeyPackage,
	"GroupInfoTBS":     signer.checkGroupInfo,
}

// SignWithLabel implements KeyPackageService.
func (s *Server) SignWithLabel(ctx context.Context, r *connect.Request[hsmkpv1.SignWithLabelRequest]) (*connect.Response[hsmkpv1.SignWithLabelResponse], error) {
	ctx, err := s.admit(ctx, act.SignWithLabel, r.Msg.GetIdentity(), 1)
	if err != nil {
		return nil, err
	}
	check, ok := checks[r.Msg.GetLabel()]
	if !ok {
		return nil, errLabel
	}
	content := r.Msg.GetContent()
	signature, err := s.Operator.SignWithLabel(ctx, operator.SignRequest{
		Identity: r.Msg.GetIdentity(), Label: r.Msg.GetLabel(), Content: content,
		Check: func(id *identity.Identity, record *store.Identity) error {
			return check(signer{id, record.SignatureKey}, content)
		},
	})
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&hsmkpv1.SignWithLabelResponse{Signature: signature}), nil
}

// is fails if the content names another cipher suite or another version of MLS.
func (id signer) is(v keypackage.ProtocolVersion, suite ciphersuite.ID) error {
	if v != keypackage.MLS10 || suite != id.Suite.ID {
		return foreign("the content has another version or cipher suite")
	}
	return nil
}

// owns fails if a leaf node is not the identity's.
func (id signer) owns(l *keypackage.LeafNode) error {
	if !bytes.Equal(l.SignatureKey, id.signatureKey) || !bytes.Equal(l.Credential.Bytes(), id.Credential.Bytes()) {
		return foreign("the leaf node has another signature key or credential")
	}
	return nil
}

// notContent reports content that is not the structure of its label.
func notContent(label string) error { return wrongContent("content is not a " + label) }

// checkLeaf accepts a LeafNodeTBS of the identity. If the leaf's source is update or commit, only
// its member knows which group it is for.
func (id signer) checkLeaf(content []byte) error {
	t, err := keypackage.ParseLeafNodeTBS(content)
	if err != nil {
		return notContent("LeafNodeTBS")
	}
	return id.owns(&t.Leaf)
}

// checkKeyPackage accepts a KeyPackageTBS of the identity whose leaf node is signed.
func (id signer) checkKeyPackage(content []byte) error {
	kp, err := keypackage.ParseKeyPackageTBS(content)
	if err != nil {
		return notContent("KeyPackageTBS")
	}
	if err := id.is(kp.Version, kp.CipherSuite); err != nil {
		return err
	}
	if err := id.owns(&kp.LeafNode); err != nil {
		return err
	}
	switch {
	case kp.LeafNode.Source != keypackage.SourceKeyPackage:
		return wrongContent("the leaf node's source is not key_package")
	case bytes.Equal(kp.InitKey, kp.LeafNode.EncryptionKey):
		return wrongContent("init_key equals encryption_key")
	case kp.LeafNode.Verify(id.Suite, nil, 0) != nil:
		return wrongContent("the leaf node's signature does not verify")
	}
	return nil
}

// checkGroupInfo accepts a GroupInfoTBS of the identity's suite. If it carries the ratchet tree,
// the signer's leaf in it must be the identity's.
func (id signer) checkGroupInfo(content []byte) error {
	g, err := keypackage.ParseGroupInfoTBS(content)
	if err != nil {
		return notContent("GroupInfoTBS")
	}
	if err := id.is(g.GroupContext.Version, g.GroupContext.CipherSuite); err != nil {
		return err
	}
	tree, ok := g.RatchetTree()
	if !ok {
		return nil
	}
	leaf, err := keypackage.LeafAt(tree, g.Signer)
	switch {
	case err != nil:
		return notContent("GroupInfoTBS")
	case leaf == nil:
		return foreign("the signer's leaf is blank")
	}
	return id.owns(leaf)
}

// checkContent accepts a FramedContentTBS that the identity sends, as a member or as a new member.
func (id signer) checkContent(content []byte) error {
	t, err := framing.ParseContentTBS(content)
	if err != nil {
		return notContent("FramedContentTBS")
	}
	c := &t.Content
	if c.Type == framing.ContentApplication && t.WireFormat != keypackage.WireFormatPrivateMessage {
		return wrongContent("application data in a PublicMessage")
	}
	if t.Context != nil {
		if err := id.inGroup(t); err != nil {
			return err
		}
	}
	switch c.Sender.Type {
	case framing.SenderMember:
		return id.checkMember(c)
	case framing.SenderNewMemberCommit:
		if c.Commit == nil || c.Commit.Leaf == nil {
			return wrongContent("a new member's commit has no path")
		}
		return id.checkMember(c)
	case framing.SenderNewMemberProposal:
		if c.Proposal == nil || c.Proposal.KeyPackage == nil {
			return wrongContent("a new member proposes something other than to add itself")
		}
		return id.ownsKeyPackage(c.Proposal.KeyPackage)
	}
	return foreign("the sender is not a member")
}

// inGroup checks that a message and its GroupContext belong together.
func (id signer) inGroup(t *framing.ContentTBS) error {
	if err := id.is(t.Context.Version, t.Context.CipherSuite); err != nil {
		return err
	}
	if !bytes.Equal(t.Context.GroupID, t.Content.GroupID) || t.Context.Epoch != t.Content.Epoch {
		return wrongContent("the GroupContext has another group or epoch")
	}
	return nil
}

// checkMember checks the leaf nodes that replace a member's own.
func (id signer) checkMember(c *framing.Content) error {
	switch {
	case c.Commit != nil && c.Commit.Leaf != nil:
		return id.ownsSource(c.Commit.Leaf, keypackage.SourceCommit)
	case c.Proposal != nil && c.Proposal.Leaf != nil:
		return id.ownsSource(c.Proposal.Leaf, keypackage.SourceUpdate)
	}
	return nil
}

func (id signer) ownsSource(l *keypackage.LeafNode, want keypackage.LeafNodeSource) error {
	if l.Source != want {
		return wrongContent("the leaf node's source is not " + want.String())
	}
	return id.owns(l)
}

func (id signer) ownsKeyPackage(kp *keypackage.KeyPackage) error {
	if err := id.is(kp.Version, kp.CipherSuite); err != nil {
		return err
	}
	return id.owns(&kp.LeafNode)
}

// contextOf fails if a context of DecryptWithLabel is not a GroupContext of the key package's
// suite.
func contextOf(record *store.KeyPackage, b []byte) error {
	c, rest, err := keypackage.ReadGroupContext(b)
	if err != nil || len(rest) > 0 {
		return wrongContent("context is not a GroupContext")
	}
	if c.Version != keypackage.MLS10 || uint16(c.CipherSuite) != record.Suite {
		return foreign("the context has another version or cipher suite")
	}
	return nil
}
