package integrations

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	stdhpke "crypto/hpke"

	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// process processes a commit of the other member with a path and no proposals, in a PublicMessage.
// Its path secret is encrypted to the member's leaf.
func (m *member) process(message []byte) error {
	r := wire.NewReader(message)
	version, format := r.Uint16(), r.Uint16()
	rest := r.Bytes(r.Len())
	begin := m.framed(0, nil, commit, nil)
	content, ok := bytes.CutPrefix(rest, begin)
	if version != 1 || format != publicMessage || !ok {
		return errors.New("not a commit of the other member in a PublicMessage")
	}
	r = wire.NewReader(content)
	proposals, path := r.Vector(), r.Uint8()
	leaf := wire.Next(r, keypackage.ReadLeafNode)
	nodes := wire.NewReader(r.Vector())
	content = content[:len(content)-r.Len()]
	signature, tag, membership := r.Vector(), r.Vector(), r.Vector()
	root, secrets := nodes.Vector(), wire.NewReader(nodes.Vector())
	kemOutput, ciphertext := secrets.Vector(), secrets.Vector()
	if err := errors.Join(r.Finish(), nodes.Finish(), secrets.Finish()); err != nil || len(proposals) > 0 || path != 1 {
		return fmt.Errorf("a commit with proposals, without a path or with more than one node: %w", err)
	}
	framed := slices.Concat(begin, content)
	tbs := m.tbs(publicMessage, framed)
	if !hmac.Equal(membership, m.mac(m.membership, slices.Concat(tbs, vector(signature), vector(tag)))) {
		return errors.New("the membership tag is another")
	}
	if err := errors.Join(m.verify(0, tbs, signature), leaf.Verify(m.suite, m.context.GroupID, 0)); err != nil {
		return err
	}
	provisional := m.provisional([2]*keypackage.LeafNode{leaf, m.leaves[1]}, root)
	secret, err := hpke.DecryptWithLabel(m.leaf, "UpdatePathNode", provisional.Bytes(), kemOutput, ciphertext)
	if err != nil {
		return err
	}
	if derived, err := m.derive(secret); err != nil || !bytes.Equal(derived.PublicKey().Bytes(), root) {
		return fmt.Errorf("the path secret is not the root's: %w", err)
	}
	next, err := m.after(provisional, framed, signature, secret, tag)
	if err != nil {
		return err
	}
	m.epoch, m.leaves[0] = next, leaf
	return nil
}

// commit commits with a path and no proposals, in a PublicMessage. After that, the member has the
// leaf's private key itself.
func (m *member) commit(ctx context.Context) ([]byte, error) {
	own := make([]byte, m.suite.Nh)
	rand.Read(own)
	private, err := m.derive(own)
	if err != nil {
		return nil, err
	}
	secret, err := m.suite.DeriveSecret(own, "path")
	if err != nil {
		return nil, err
	}
	rootKey, err := m.derive(secret)
	if err != nil {
		return nil, err
	}
	root := rootKey.PublicKey().Bytes()
	leaf := *m.leaves[1]
	leaf.Source, leaf.EncryptionKey = keypackage.SourceCommit, private.PublicKey().Bytes()
	leaf.ParentHash = m.hash(vector(root), vector(nil), vector(m.leafHash(0, m.leaves[0])))
	if err := m.signLeaf(ctx, &leaf); err != nil {
		return nil, err
	}
	provisional := m.provisional([2]*keypackage.LeafNode{m.leaves[0], &leaf}, root)
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(m.suite, m.leaves[0].EncryptionKey, "UpdatePathNode", provisional.Bytes(), secret)
	if err != nil {
		return nil, err
	}
	node := slices.Concat(vector(root), vector(slices.Concat(vector(kemOutput), vector(ciphertext))))
	framed := m.framed(1, nil, commit, slices.Concat(vector(nil), []byte{1}, leaf.Bytes(), vector(node)))
	tbs := m.tbs(publicMessage, framed)
	signature, err := m.signer.SignWithLabel(ctx, "FramedContentTBS", tbs)
	if err != nil {
		return nil, err
	}
	next, err := m.after(provisional, framed, signature, secret, nil)
	if err != nil {
		return nil, err
	}
	auth := slices.Concat(vector(signature), vector(next.tag()))
	membership := m.mac(m.membership, slices.Concat(tbs, auth))
	b, err := private.Bytes()
	if err != nil {
		return nil, err
	}
	if m.leaf, err = hpke.NewSecretKey(m.suite, leaf.EncryptionKey, b); err != nil {
		return nil, err
	}
	m.epoch, m.leaves[1] = next, &leaf
	return slices.Concat(uint16s(1), uint16s(publicMessage), framed, auth, vector(membership)), nil
}

// signLeaf signs a LeafNodeTBS of source commit (Section 7.2).
func (m *member) signLeaf(ctx context.Context, leaf *keypackage.LeafNode) (err error) {
	leaf.Signature = nil
	whole := leaf.Bytes() // it ends with the empty signature
	tbs := slices.Concat(whole[:len(whole)-1], vector(m.context.GroupID), uint32s(1))
	leaf.Signature, err = m.signer.SignContent(ctx, slices.Concat(vector([]byte("MLS 1.0 LeafNodeTBS")), vector(tbs)))
	return err
}

// derive derives a node's key pair from its path secret (Section 7.4).
func (m *member) derive(pathSecret []byte) (stdhpke.PrivateKey, error) {
	secret, err := m.suite.DeriveSecret(pathSecret, "node")
	if err != nil {
		return nil, err
	}
	kem, err := stdhpke.NewKEM(m.suite.KEM)
	if err != nil {
		return nil, err
	}
	return kem.DeriveKeyPair(secret)
}

// provisional returns the GroupContext under which path secrets are encrypted (Section 7.6): that
// of the next epoch, with its tree and the transcript of this one.
func (m *member) provisional(leaves [2]*keypackage.LeafNode, root []byte) keypackage.GroupContext {
	c := m.context
	c.Epoch++
	parent := slices.Concat(vector(root), vector(nil), vector(nil)) // no parent_hash, no unmerged_leaves
	c.TreeHash = m.hash([]byte{2, 1}, parent, vector(m.leafHash(0, leaves[0])), vector(m.leafHash(1, leaves[1])))
	return c
}

// leafHash returns the tree hash of a leaf (Section 7.8).
func (m *member) leafHash(index uint32, leaf *keypackage.LeafNode) []byte {
	return m.hash([]byte{1}, uint32s(index), []byte{1}, leaf.Bytes())
}

// after returns the epoch that a commit begins. rootSecret is the path secret of the root.
func (m *member) after(c keypackage.GroupContext, framed, signature, rootSecret, tag []byte) (*epoch, error) {
	commitSecret, err := m.suite.DeriveSecret(rootSecret, "path")
	if err != nil {
		return nil, err
	}
	c.ConfirmedTranscriptHash = m.hash(m.interim, uint16s(publicMessage), framed, vector(signature))
	return m.next(commitSecret, c, tag)
}
