// Package welcometest makes Welcomes for tests. That the sender's half (package sample) and the
// receiver's (package welcome) are right, and not only each other's, the official vectors show in
// tests/vectors, and the peers in tests/interop.
package welcometest

import (
	"bytes"
	"crypto"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/sample"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/keypackage/keypackagetest"
)

// forever is the lifetime of what is made here.
var forever = keypackage.Lifetime{NotAfter: 1<<64 - 1}

// Group is a sample group. Fields may be changed before Welcome is called.
type Group struct {
	tb testing.TB
	*sample.Group
	// Spoil changes the GroupInfo after its tag was made and before it is signed.
	Spoil func(*keypackage.GroupInfo)
}

// NewGroup makes a group called "group", at epoch 5, whose ratchet tree is in its
// GroupInfo.
func NewGroup(tb testing.TB, suite *ciphersuite.Suite) *Group {
	tb.Helper()
	g, err := sample.NewGroup(suite, forever)
	if err != nil {
		tb.Fatal(err)
	}
	g.Info.GroupContext.GroupID, g.Info.GroupContext.Epoch = []byte("group"), 5
	return &Group{tb: tb, Group: g}
}

// KeyPackage makes a key package that is valid for all time, with the private key of
// its init_key.
func KeyPackage(tb testing.TB, suite *ciphersuite.Suite, signer crypto.Signer) (*keypackage.KeyPackage, *hpke.SecretKey) {
	tb.Helper()
	return keypackagetest.Build(tb, keypackagetest.Template(suite, "member", forever), signer)
}

// Welcome makes the Welcome that adds the clients of some key packages.
func (g *Group) Welcome(kps ...*keypackage.KeyPackage) *keypackage.Welcome {
	g.tb.Helper()
	info, err := g.Confirm()
	if err != nil {
		g.tb.Fatal(err)
	}
	if g.Spoil != nil {
		info.GroupContext.ConfirmedTranscriptHash = bytes.Clone(info.GroupContext.ConfirmedTranscriptHash)
		g.Spoil(&info)
	}
	w, err := g.Group.Welcome(info, kps...)
	if err != nil {
		g.tb.Fatal(err)
	}
	return w
}
