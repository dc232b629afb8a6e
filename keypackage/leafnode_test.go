package keypackage_test

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// RFC 9420, Section 7.2: leaf nodes of source update and commit are signed
// together with group_id and leaf_index, those of a key package without.
func TestLeafNodeIsBoundToItsGroup(t *testing.T) {
	s := suiteOf(t, 2)
	signer := newSigner(t, s)
	groupID := []byte("group")
	for _, source := range []keypackage.LeafNodeSource{keypackage.SourceUpdate, keypackage.SourceCommit} {
		leaf := buildWith(t, newTemplate(s), signer).KeyPackage().LeafNode
		leaf.Source = source
		leaf.Signature = nil
		encoded := leaf.Bytes()
		tbs := wire.AppendVector(encoded[:len(encoded)-1], groupID)
		tbs = binary.BigEndian.AppendUint32(tbs, 7)
		var err error
		if leaf.Signature, err = s.Signature.SignWithLabel(rand.Reader, signer, "LeafNodeTBS", tbs); err != nil {
			t.Fatal(err)
		}
		if err := leaf.Verify(s, groupID, 7); err != nil {
			t.Errorf("%v: Verify() err = %v, want nil", source, err)
		}
		if err := leaf.Verify(s, groupID, 8); !errors.Is(err, ciphersuite.ErrSignature) {
			t.Errorf("%v: Verify() at another index err = %v, want %v", source, err, ciphersuite.ErrSignature)
		}
		if err := leaf.Verify(s, []byte("other"), 7); !errors.Is(err, ciphersuite.ErrSignature) {
			t.Errorf("%v: Verify() in another group err = %v, want %v", source, err, ciphersuite.ErrSignature)
		}
	}
}

func TestLeafNodeOfAKeyPackageIsBoundToNoGroup(t *testing.T) {
	s := suiteOf(t, 1)
	leaf := build(t, newTemplate(s)).KeyPackage().LeafNode
	for _, groupID := range []string{"", "one", "another"} {
		if err := leaf.Verify(s, []byte(groupID), 3); err != nil {
			t.Errorf("Verify(%q) err = %v, want nil", groupID, err)
		}
	}
	leaf.SignatureKey = leaf.SignatureKey[1:]
	if err := leaf.Verify(s, nil, 0); err == nil {
		t.Error("Verify() with a short key err = nil, want one")
	}
}

func TestReadLeafNodeLeavesWhatFollows(t *testing.T) {
	leaf := build(t, richTemplate(suiteOf(t, 2))).KeyPackage().LeafNode
	r := wire.NewReader(append(leaf.Bytes(), 0xAB))
	wantEqual(t, "ReadLeafNode().Bytes()", wire.Next(r, keypackage.ReadLeafNode).Bytes(), leaf.Bytes())
	if next := r.Uint8(); next != 0xAB || r.Finish() != nil {
		t.Errorf("after it = %x, err %v, want ab", next, r.Err())
	}
}
