// Package welcometest makes Welcomes for tests: the sender's half of what package
// welcome does (RFC 9420, Sections 8 and 12.4.3). That the two halves are right, and
// not only each other's, the official vectors say in tests/vectors, and the peers in
// tests/interop.
package welcometest

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/keypackage/keypackagetest"
)

// Group is a group in one epoch, with its founder at leaf 0. Fields may be changed
// before Welcome is called.
type Group struct {
	tb     testing.TB
	Suite  *ciphersuite.Suite
	Signer crypto.Signer
	Info   keypackage.GroupInfo
	Joiner []byte // joiner_secret
	Path   []byte // optional<PathSecret>
	PSKs   []byte // PreSharedKeyID psks, without the length before them
	// PSKSecret is psk_secret.
	PSKSecret []byte
	// Spoil changes the GroupInfo after its tag was made and before it is signed.
	Spoil func(*keypackage.GroupInfo)
}

// NewGroup makes a group called "group", at epoch 5, whose ratchet tree is in its
// GroupInfo.
func NewGroup(tb testing.TB, suite *ciphersuite.Suite) *Group {
	tb.Helper()
	g := &Group{
		tb: tb, Suite: suite, Signer: keypackagetest.NewSigner(tb, suite), Path: []byte{0},
		Joiner: random(tb, suite.Nh), PSKSecret: make([]byte, suite.Nh),
	}
	founder, _ := KeyPackage(tb, suite, g.Signer)
	nodes := append([]byte{1, 1}, founder.LeafNode.Bytes()...) // present, leaf
	g.Info = keypackage.GroupInfo{
		GroupContext: keypackage.GroupContext{
			Version: keypackage.MLS10, CipherSuite: suite.ID, GroupID: []byte("group"), Epoch: 5,
			TreeHash: random(tb, suite.Nh), ConfirmedTranscriptHash: random(tb, suite.Nh),
		},
		Extensions: []keypackage.Extension{{Type: keypackage.ExtensionRatchetTree, Data: wire.AppendVector(nil, nodes)}},
	}
	return g
}

func random(tb testing.TB, n int) []byte {
	tb.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		tb.Fatal(err)
	}
	return b
}

// KeyPackage makes a key package that is valid for all time, with the private key of
// its init_key.
func KeyPackage(tb testing.TB, suite *ciphersuite.Suite, signer crypto.Signer) (*keypackage.KeyPackage, *hpke.SecretKey) {
	tb.Helper()
	return keypackagetest.Build(tb, keypackagetest.Template(suite, "member", keypackage.Lifetime{NotAfter: 1<<64 - 1}), signer)
}

// Welcome makes the Welcome that adds the clients of some key packages.
func (g *Group) Welcome(kps ...*keypackage.KeyPackage) *keypackage.Welcome {
	g.tb.Helper()
	s := g.Suite
	intermediate := g.must(s.Extract(g.Joiner, g.PSKSecret))
	epoch := g.must(s.ExpandWithLabel(intermediate, "epoch", g.Info.GroupContext.Bytes(), s.Nh))
	mac := hmac.New(s.Hash.New, g.must(s.DeriveSecret(epoch, "confirm")))
	mac.Write(g.Info.GroupContext.ConfirmedTranscriptHash)
	info := g.Info
	info.ConfirmationTag = mac.Sum(nil)
	if g.Spoil != nil {
		info.GroupContext.ConfirmedTranscriptHash = bytes.Clone(info.GroupContext.ConfirmedTranscriptHash)
		g.Spoil(&info)
	}
	unsigned := info.Bytes() // ends in the length of no signature
	info.Signature = g.must(s.Signature.SignWithLabel(rand.Reader, g.Signer, "GroupInfoTBS", unsigned[:len(unsigned)-1]))

	secret := g.must(s.DeriveSecret(intermediate, "welcome"))
	aead, err := s.NewAEAD(g.must(s.ExpandWithLabel(secret, "key", nil, s.Nk)))
	if err != nil {
		g.tb.Fatal(err)
	}
	w := &keypackage.Welcome{CipherSuite: s.ID}
	w.EncryptedGroupInfo = aead.Seal(nil, g.must(s.ExpandWithLabel(secret, "nonce", nil, s.Nn)), info.Bytes(), nil)
	secrets := append(wire.AppendVector(nil, g.Joiner), g.Path...)
	secrets = wire.AppendVector(secrets, g.PSKs)
	for _, kp := range kps {
		ref, err := kp.Ref()
		if err != nil {
			g.tb.Fatal(err)
		}
		kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, kp.InitKey, "Welcome", w.EncryptedGroupInfo, secrets)
		if err != nil {
			g.tb.Fatal(err)
		}
		w.Secrets = append(w.Secrets, keypackage.EncryptedGroupSecrets{NewMember: ref, KEMOutput: kemOutput, Ciphertext: ciphertext})
	}
	return w
}

func (g *Group) must(b []byte, err error) []byte {
	g.tb.Helper()
	if err != nil {
		g.tb.Fatal(err)
	}
	return b
}

// Message returns a Welcome in an MLSMessage.
func Message(w *keypackage.Welcome) []byte {
	return append([]byte{0, 1, 0, 3}, w.Bytes()...)
}
