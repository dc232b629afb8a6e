package vectors

import (
	"bytes"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

type welcomeVector struct {
	CipherSuite    uint16 `json:"cipher_suite"`
	KeyPackage     octets `json:"key_package"`
	Welcome        octets
	InitPriv       octets `json:"init_priv"`
	EncryptionPriv octets `json:"encryption_priv"` // passive-client-welcome only
}

// Key packages of the vectors are named by their Welcomes and fit their private keys.
// TestEverything checks the rest.
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

// contains reports whether a Welcome names ref among its secrets.
func contains(t *testing.T, welcome []byte, ref keypackage.Ref) bool {
	t.Helper()
	message, err := keypackage.ParseMessage(welcome)
	if err != nil {
		t.Fatalf("ParseMessage(welcome) err = %v, want nil", err)
	}
	w, err := keypackage.ParseWelcome(message.Body)
	if err != nil {
		t.Fatalf("ParseWelcome() err = %v, want nil", err)
	}
	return slices.ContainsFunc(w.Secrets, func(s keypackage.EncryptedGroupSecrets) bool { return bytes.Equal(s.NewMember, ref) })
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

// nextNode reads one optional<Node> of a ratchet tree (RFC 9420, Section 7.8)
// and returns the leaf in it, or nil for a parent or a blank.
func nextNode(r *wire.Reader) *keypackage.LeafNode {
	if r.Uint8() == 0 {
		return nil
	}
	switch r.Uint8() {
	case 1:
		return wire.Next(r, keypackage.ReadLeafNode)
	case 2:
		r.Vector() // encryption_key
		r.Vector() // parent_hash
		r.Vector() // unmerged_leaves
	default:
		r.Fail(wire.ErrLength)
	}
	return nil
}
