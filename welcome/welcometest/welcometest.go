// Package welcometest makes Welcomes for tests: the sender's half of package welcome (RFC
// 9420, Sections 8 and 12.4.3). The official vectors (tests/vectors) and the peers
// (tests/interop) check that the halves are right and do not only fit each other.
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

// forever is the lifetime of the key packages of this package.
var forever = keypackage.Lifetime{NotAfter: 1<<64 - 1}

// Group is a group in one epoch, with its creator at leaf 0. A test may change fields before
// it calls Welcome.
type Group struct {
	tb     testing.TB
	Suite  *ciphersuite.Suite
	Signer crypto.Signer // the creator's
	// Info lacks its confirmation tag and its signature.
	Info   keypackage.GroupInfo
	Joiner []byte // joiner_secret
	Path   []byte // optional<PathSecret>
	PSKs   []byte // PreSharedKeyID psks, without the length before it
	// PSKSecret is psk_secret.
	PSKSecret []byte
	// Spoil, if not nil, changes the GroupInfo between its tag and its signature.
	Spoil func(*keypackage.GroupInfo)
}

// NewGroup returns a group with the id "group" at epoch 5. Its GroupInfo has the ratchet tree.
func NewGroup(tb testing.TB, suite *ciphersuite.Suite) *Group {
	tb.Helper()
	g, err := sample.NewGroup(suite, forever)
	if err != nil {
		tb.Fatal(err)
	}
	g.Info.GroupContext.GroupID, g.Info.GroupContext.Epoch = []byte("group"), 5
	return &Group{
		tb: tb, Suite: g.Suite, Signer: g.Signer, Info: g.Info,
		Joiner: g.Joiner, Path: g.Path, PSKs: g.PSKs, PSKSecret: g.PSKSecret,
	}
}

// KeyPackage returns a new key package that is valid at any time, and the private key of its
// init_key.
func KeyPackage(tb testing.TB, suite *ciphersuite.Suite, signer crypto.Signer) (*keypackage.KeyPackage, *hpke.SecretKey) {
	tb.Helper()
	return keypackagetest.Build(tb, keypackagetest.Template(suite, "member", forever), signer)
}

// Welcome returns the Welcome that adds the clients of the key packages.
func (g *Group) Welcome(kps ...*keypackage.KeyPackage) *keypackage.Welcome {
	g.tb.Helper()
	group := sample.Group{
		Suite: g.Suite, Signer: g.Signer, Info: g.Info,
		Joiner: g.Joiner, Path: g.Path, PSKs: g.PSKs, PSKSecret: g.PSKSecret,
	}
	info, err := group.Confirm()
	if err != nil {
		g.tb.Fatal(err)
	}
	if g.Spoil != nil {
		info.GroupContext.ConfirmedTranscriptHash = bytes.Clone(info.GroupContext.ConfirmedTranscriptHash)
		g.Spoil(&info)
	}
	w, err := group.Welcome(info, kps...)
	if err != nil {
		g.tb.Fatal(err)
	}
	return w
}
