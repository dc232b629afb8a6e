package vectors

import (
	"testing"

	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/wire"
)

type welcomeVector struct {
	CipherSuite    uint16 `json:"cipher_suite"`
	KeyPackage     octets `json:"key_package"`
	Welcome        octets
	InitPriv       octets `json:"init_priv"`
	EncryptionPriv octets `json:"encryption_priv"` // passive-client-welcome only
}

// Every key package in the vectors decodes, encodes to the same bytes, has no
// error at a time within its lifetime, and fits its private keys.
func TestKeyPackages(t *testing.T) {
	for name, want := range map[string]int{"welcome": 7, "passive-client-welcome": 56} {
		t.Run(name, func(t *testing.T) {
			var count tally
			for _, v := range load[welcomeVector](t, name) {
				if _, ok := served(v.CipherSuite); !ok {
					count.passedOver++
					continue
				}
				count.looked++
				testKeyPackage(t, &v)
			}
			count.want(t, want)
		})
	}
}

func testKeyPackage(t *testing.T, v *welcomeVector) {
	t.Helper()
	message, err := keypackage.ParseMessage(v.KeyPackage)
	if err != nil || message.KeyPackage == nil {
		t.Fatalf("ParseMessage() = %+v, %v, want a key package", message, err)
	}
	kp := message.KeyPackage
	wantEqual(t, "Message()", kp.Message(), v.KeyPackage)
	bare, err := keypackage.Parse(kp.Bytes())
	if err != nil {
		t.Fatalf("Parse() err = %v, want nil", err)
	}
	wantEqual(t, "Bytes()", bare.Bytes(), kp.Bytes())

	now := kp.LeafNode.Lifetime.NotBefore
	report := keypackage.Validate(kp, keypackage.Policy{Now: now})
	for _, f := range report.Findings {
		if f.Severity == keypackage.Error {
			t.Errorf("suite %d: Validate() found %s: %s (%s)", v.CipherSuite, f.ID, f.Message, f.Value)
		}
	}
	ref, err := kp.Ref()
	if err != nil {
		t.Fatalf("Ref() err = %v, want nil", err)
	}
	if !contains(t, v.Welcome, ref) {
		t.Errorf("Ref() = %v, which the vector's Welcome does not name", ref)
	}
	testPrivateKey(t, v, "init", v.InitPriv, kp.InitKey)
	if v.EncryptionPriv != nil {
		testPrivateKey(t, v, "encryption", v.EncryptionPriv, kp.LeafNode.EncryptionKey)
	}
}

// contains reports whether a Welcome names ref among its secrets, found by
// reading as much of it as that needs (RFC 9420, Section 12.4.3.1).
func contains(t *testing.T, welcome []byte, ref keypackage.Ref) bool {
	t.Helper()
	message, err := keypackage.ParseMessage(welcome)
	if err != nil {
		t.Fatalf("ParseMessage(welcome) err = %v, want nil", err)
	}
	r := wire.NewReader(message.Body)
	r.Uint16() // cipher_suite
	secrets := wire.NewReader(r.Vector())
	for secrets.Len() > 0 && secrets.Err() == nil {
		newMember := secrets.Vector()
		secrets.Vector() // kem_output
		secrets.Vector() // ciphertext
		if string(newMember) == string(ref) {
			return true
		}
	}
	return false
}

func testPrivateKey(t *testing.T, v *welcomeVector, name string, private, public []byte) {
	t.Helper()
	s, _ := served(v.CipherSuite)
	key, err := hpke.ParsePrivateKey(s, private)
	if err != nil {
		t.Errorf("suite %d: ParsePrivateKey(%s) err = %v, want nil", v.CipherSuite, name, err)
		return
	}
	wantEqual(t, name+" key's PublicKey()", key.PublicKey(), public)
}

type treeValidation struct {
	CipherSuite uint16 `json:"cipher_suite"`
	Tree        octets
	GroupID     octets `json:"group_id"`
}

// Every leaf node of the trees decodes, encodes to the same bytes, and its
// signature verifies with the group and index that it was made for.
func TestLeafNodes(t *testing.T) {
	var count tally
	leaves := map[keypackage.LeafNodeSource]int{}
	for i, v := range load[treeValidation](t, "tree-validation") {
		s, ok := served(v.CipherSuite)
		if !ok {
			count.passedOver++
			continue
		}
		count.looked++
		nodes := wire.NewReader(v.Tree)
		tree := wire.NewReader(nodes.Vector())
		for index := uint32(0); tree.Len() > 0 && tree.Err() == nil; index++ {
			leaf := nextNode(tree)
			if leaf == nil {
				continue
			}
			leaves[leaf.Source]++
			again, err := keypackage.ParseLeafNode(leaf.Bytes())
			if err != nil {
				t.Fatalf("tree %d: ParseLeafNode() err = %v, want nil", i, err)
			}
			wantEqual(t, "LeafNode.Bytes()", again.Bytes(), leaf.Bytes())
			if err := leaf.Verify(s, v.GroupID, index/2); err != nil {
				t.Errorf("tree %d, leaf %d (%v): Verify() err = %v, want nil", i, index/2, leaf.Source, err)
			}
			if leaf.Source != keypackage.SourceKeyPackage && leaf.Verify(s, v.GroupID, index/2+1) == nil {
				t.Errorf("tree %d, leaf %d: Verify() at another index err = nil, want one", i, index/2)
			}
		}
		if err := tree.Finish(); err != nil {
			t.Fatalf("tree %d: %v", i, err)
		}
	}
	count.want(t, 98)
	for _, source := range []keypackage.LeafNodeSource{keypackage.SourceKeyPackage, keypackage.SourceUpdate, keypackage.SourceCommit} {
		if leaves[source] == 0 {
			t.Logf("no leaf node of source %v in the vectors", source)
		}
	}
	if leaves[keypackage.SourceKeyPackage] == 0 {
		t.Error("no leaf node of source key_package was looked at")
	}
	t.Logf("leaf nodes: %v", leaves)
}

// nextNode reads one optional<Node> of a ratchet tree (RFC 9420, Section 7.8)
// and returns the leaf in it, or nil for a parent or a blank.
func nextNode(r *wire.Reader) *keypackage.LeafNode {
	if r.Uint8() == 0 {
		return nil
	}
	switch r.Uint8() {
	case 1:
		return keypackage.ReadLeafNode(r)
	case 2:
		r.Vector() // encryption_key
		r.Vector() // parent_hash
		r.Vector() // unmerged_leaves
	default:
		r.Fail(wire.ErrLength)
	}
	return nil
}
