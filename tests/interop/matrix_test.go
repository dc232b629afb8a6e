// Package interop hands the key packages of hsm-kp to the MLS libraries that can
// be installed here, and judges by what they do: each validates them, adds them to
// a group, and joins with private keys that came back from the token.
package interop

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

func TestPeers(t *testing.T) {
	ours := newMembers(t, ciphersuite.All())
	running := make(map[string]*peer)
	for _, k := range kits {
		t.Run("build "+k.folder, func(s *testing.T) {
			command := k.command(s)
			p := start(t, command)
			p.sign = ours.sign
			running[k.folder] = p
			t.Logf("%s %s serves %v, signer %s", p.hello.Name, p.hello.Version, p.hello.Suites, p.hello.Signer)
		})
	}
	for _, suite := range ciphersuite.All() {
		number := uint16(suite.ID)
		for _, founder := range kits {
			for _, joiner := range kits {
				a, b := running[founder.folder], running[joiner.folder]
				if a == nil || b == nil || !slices.Contains(a.hello.Suites, number) || !slices.Contains(b.hello.Suites, number) {
					continue
				}
				t.Run(fmt.Sprintf("suite %d/%s adds, %s joins", number, founder.folder, joiner.folder), func(t *testing.T) {
					if err := exchange(a, b, number, ours.generate(number, b.external())); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

// exchange has the founder add our key package to a new group, the joiner join
// with its private keys, and each send the other a message.
func exchange(founder, joiner *peer, suite uint16, kp keyPackage) error {
	if _, err := founder.call(request{Op: "validate", Suite: suite, KeyPackage: kp.message}); err != nil && !errors.Is(err, errUnsupported) {
		return fmt.Errorf("validate: %w", err)
	}
	added, err := founder.call(request{Op: "add", Suite: suite, KeyPackage: kp.message})
	if err != nil {
		return fmt.Errorf("add: %w", err)
	}
	joined, err := joiner.call(request{
		Op: "join", Suite: suite, KeyPackage: kp.message,
		InitPrivateKey: kp.init, EncryptionPrivateKey: kp.encryption, SignaturePrivateKey: kp.signature,
		Welcome: added.Welcome, RatchetTree: added.RatchetTree,
	})
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if !bytes.Equal(joined.EpochAuthenticator, added.EpochAuthenticator) {
		return fmt.Errorf("join: epoch authenticator %x, of the group it is %x", joined.EpochAuthenticator, added.EpochAuthenticator)
	}
	if err := send(founder, added.Group, joiner, joined.Group, suite); err != nil {
		return fmt.Errorf("founder to joiner: %w", err)
	}
	if err := send(joiner, joined.Group, founder, added.Group, suite); err != nil {
		return fmt.Errorf("joiner to founder: %w", err)
	}
	return nil
}

func send(from *peer, fromGroup string, to *peer, toGroup string, suite uint16) error {
	data := []byte("a message of " + from.hello.Name)
	sent, err := from.call(request{Op: "send", Suite: suite, Group: fromGroup, Data: data})
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	got, err := to.call(request{Op: "receive", Suite: suite, Group: toGroup, Message: sent.Message})
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	if !bytes.Equal(got.Data, data) {
		return fmt.Errorf("receive: got %q, sent %q", got.Data, data)
	}
	return nil
}
