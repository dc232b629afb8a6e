package sample_test

import (
	"bytes"
	"crypto"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/internal/sample"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/welcome"
)

var now = time.Unix(1_800_000_000, 0)

// credentials are one of each type that the signature key of a suite can have.
func credentials(t *testing.T, suite *ciphersuite.Suite, public crypto.PublicKey) []keypackage.Credential {
	out := []keypackage.Credential{keypackage.BasicCredential([]byte("alice"))}
	if suite.Signature != ciphersuite.ED448 { // which Go's certificates do not have
		leaf := certificatetest.NewRoot(t).Issue(t, public)
		out = append(out, keypackage.X509Credential([][]byte{leaf.Raw}))
	}
	return out
}

func TestASampleOpensInEverySuiteWithEveryCredential(t *testing.T) {
	for _, suite := range ciphersuite.All() {
		signer, err := sample.NewSigner(suite)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range credentials(t, suite, signer.Public()) {
			t.Run(fmt.Sprintf("suite %d, %v", uint16(suite.ID), c.Type), func(t *testing.T) {
				kp, init, err := sample.KeyPackage(keypackage.Template{
					Suite: suite, Credential: c, Capabilities: keypackage.DefaultCapabilities(suite),
					Lifetime: keypackage.Lifetime{NotAfter: 1<<64 - 1},
				}, signer)
				if err != nil {
					t.Fatal(err)
				}
				w, err := sample.Welcome(kp, now)
				if err != nil {
					t.Fatalf("Welcome() err = %v, want nil", err)
				}
				opened, err := welcome.Open(w, kp, init, welcome.Options{})
				if err != nil || !opened.SignatureVerified {
					t.Fatalf("Open() err = %v, want nil and the signature verified", err)
				}
				checkGroup(t, suite, opened.GroupInfo, kp)
			})
		}
	}
}

// checkGroup checks that a group is marked as a sample, and what is in its tree.
func checkGroup(t *testing.T, suite *ciphersuite.Suite, info *keypackage.GroupInfo, kp *keypackage.KeyPackage) {
	t.Helper()
	if g := info.GroupContext; g.Epoch != 1 || !strings.HasPrefix(string(g.GroupID), sample.Name+" ") {
		t.Errorf("the group is %q in epoch %d, want one whose id begins with %q in epoch 1", g.GroupID, g.Epoch, sample.Name)
	}
	tree, _ := info.RatchetTree()
	creator, err := keypackage.LeafAt(tree, 0)
	if err != nil || creator == nil {
		t.Fatalf("LeafAt(0) = %v, %v, want the creator", creator, err)
	}
	if err := creator.Verify(suite, nil, 0); err != nil {
		t.Errorf("Verify() of the creator's leaf err = %v, want nil", err)
	}
	if l := creator.Lifetime; l.NotBefore > uint64(now.Unix()) || l.NotAfter <= uint64(now.Unix()) {
		t.Errorf("the creator's lifetime is %+v, want one that has now in it", l)
	}
	if !slices.Contains(creator.Capabilities.Credentials, kp.LeafNode.Credential.Type) {
		t.Errorf("the creator does not support credentials of type %v", kp.LeafNode.Credential.Type)
	}
	member, err := keypackage.LeafAt(tree, 1)
	if err != nil || member == nil || !bytes.Equal(member.Bytes(), kp.LeafNode.Bytes()) {
		t.Errorf("LeafAt(1) = %v, %v, want the new member's leaf", member, err)
	}
}

func TestWhatHasNoSample(t *testing.T) {
	if _, err := sample.Welcome(&keypackage.KeyPackage{CipherSuite: 0x0A0A}, now); err == nil {
		t.Error("Welcome() for an unknown cipher suite err = nil, want one")
	}
	if _, err := sample.Welcome(&keypackage.KeyPackage{CipherSuite: 2, InitKey: []byte("no point")}, now); err == nil {
		t.Error("Welcome() for a malformed init_key err = nil, want one")
	}
}

// No two samples are of the same group.
func TestSamplesDiffer(t *testing.T) {
	suite, _ := ciphersuite.Lookup(2)
	a, err := sample.NewGroup(suite, keypackage.Lifetime{NotAfter: 1})
	if err != nil {
		t.Fatal(err)
	}
	b, err := sample.NewGroup(suite, keypackage.Lifetime{NotAfter: 1})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a.Info.GroupContext.GroupID, b.Info.GroupContext.GroupID) || bytes.Equal(a.Joiner, b.Joiner) {
		t.Errorf("two groups have the id %q", a.Info.GroupContext.GroupID)
	}
}
