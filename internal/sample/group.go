package sample

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"slices"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Name is the identity of a group's creator, and how the id of the group begins.
const Name = "hsm-kp sample"

// Group is a group in one epoch, with its creator at leaf 0. Fields may be changed before
// Confirm and Welcome are called.
type Group struct {
	Suite  *ciphersuite.Suite
	Signer crypto.Signer // the creator's
	// Info lacks its confirmation tag and its signature.
	Info   keypackage.GroupInfo
	Joiner []byte // joiner_secret
	Path   []byte // optional<PathSecret>
	PSKs   []byte // PreSharedKeyID psks, without the length before them
	// PSKSecret is psk_secret.
	PSKSecret []byte
}

// NewGroup makes a group in epoch 1, whose ratchet tree is in its GroupInfo: its creator, whose
// leaf node is valid for l, and members, from leaf 1 on. The values that a commit would have
// determined, the joiner secret and the transcript hash, are random.
func NewGroup(suite *ciphersuite.Suite, l keypackage.Lifetime, members ...*keypackage.KeyPackage) (*Group, error) {
	g := &Group{Suite: suite, Path: []byte{0}, Joiner: random(suite.Nh), PSKSecret: make([]byte, suite.Nh)}
	var err error
	if g.Signer, err = NewSigner(suite); err != nil {
		return nil, err
	}
	creator, err := g.creator(l, members)
	if err != nil {
		return nil, err
	}
	t := tree{suite: suite, leaves: [][]byte{creator.LeafNode.Bytes()}}
	for _, m := range members {
		t.leaves = append(t.leaves, m.LeafNode.Bytes())
	}
	g.Info = keypackage.GroupInfo{
		GroupContext: keypackage.GroupContext{
			Version: keypackage.MLS10, CipherSuite: suite.ID, GroupID: []byte(Name + " " + rand.Text()), Epoch: 1,
			TreeHash: t.hash(), ConfirmedTranscriptHash: random(suite.Nh),
		},
		Extensions: []keypackage.Extension{{Type: keypackage.ExtensionRatchetTree, Data: t.bytes()}},
	}
	return g, nil
}

// creator makes the key package of a client that supports the credentials of all members.
func (g *Group) creator(l keypackage.Lifetime, members []*keypackage.KeyPackage) (*keypackage.KeyPackage, error) {
	t := keypackage.Template{
		Suite: g.Suite, Credential: keypackage.BasicCredential([]byte(Name)),
		Capabilities: keypackage.DefaultCapabilities(g.Suite), Lifetime: l,
	}
	for _, m := range members {
		if c := m.LeafNode.Credential.Type; !slices.Contains(t.Capabilities.Credentials, c) {
			t.Capabilities.Credentials = append(t.Capabilities.Credentials, c)
		}
	}
	kp, _, err := KeyPackage(t, g.Signer)
	return kp, err
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// Confirm returns the GroupInfo with its confirmation tag (RFC 9420, Section 8.1), not signed.
func (g *Group) Confirm() (keypackage.GroupInfo, error) {
	info := g.Info
	intermediate, err := g.Suite.Extract(g.Joiner, g.PSKSecret)
	if err != nil {
		return info, err
	}
	epoch, err := g.Suite.ExpandWithLabel(intermediate, "epoch", info.GroupContext.Bytes(), g.Suite.Nh)
	if err != nil {
		return info, err
	}
	key, err := g.Suite.DeriveSecret(epoch, "confirm")
	if err != nil {
		return info, err
	}
	mac := hmac.New(g.Suite.Hash.New, key)
	mac.Write(info.GroupContext.ConfirmedTranscriptHash)
	info.ConfirmationTag = mac.Sum(nil)
	return info, nil
}

// Welcome signs a GroupInfo and makes the Welcome that adds the clients of some key packages
// (RFC 9420, Section 12.4.3.1).
func (g *Group) Welcome(info keypackage.GroupInfo, kps ...*keypackage.KeyPackage) (*keypackage.Welcome, error) {
	info.Signature = nil
	unsigned := info.Bytes() // ends in the length of no signature
	var err error
	if info.Signature, err = g.Suite.Signature.SignWithLabel(rand.Reader, g.Signer, "GroupInfoTBS", unsigned[:len(unsigned)-1]); err != nil {
		return nil, err
	}
	w := &keypackage.Welcome{CipherSuite: g.Suite.ID}
	if w.EncryptedGroupInfo, err = g.encrypt(info.Bytes()); err != nil {
		return nil, err
	}
	secrets := append(wire.AppendVector(nil, g.Joiner), g.Path...)
	secrets = wire.AppendVector(secrets, g.PSKs)
	for _, kp := range kps {
		ref, err := kp.Ref()
		if err != nil {
			return nil, err
		}
		kemOutput, ciphertext, err := hpke.EncryptWithLabel(g.Suite, kp.InitKey, "Welcome", w.EncryptedGroupInfo, secrets)
		if err != nil {
			return nil, err
		}
		w.Secrets = append(w.Secrets, keypackage.EncryptedGroupSecrets{NewMember: ref, KEMOutput: kemOutput, Ciphertext: ciphertext})
	}
	return w, nil
}

// encrypt encrypts a GroupInfo under the key that comes from welcome_secret.
func (g *Group) encrypt(info []byte) ([]byte, error) {
	intermediate, err := g.Suite.Extract(g.Joiner, g.PSKSecret)
	if err != nil {
		return nil, err
	}
	secret, err := g.Suite.DeriveSecret(intermediate, "welcome")
	if err != nil {
		return nil, err
	}
	key, err := g.Suite.ExpandWithLabel(secret, "key", nil, g.Suite.Nk)
	if err != nil {
		return nil, err
	}
	nonce, err := g.Suite.ExpandWithLabel(secret, "nonce", nil, g.Suite.Nn)
	if err != nil {
		return nil, err
	}
	aead, err := g.Suite.NewAEAD(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nonce, info, nil), nil
}
