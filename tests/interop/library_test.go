package interop

import (
	"encoding/hex"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/tests/library"
)

// Every peer takes the key package that the program of docs/LIBRARY.md makes, and the
// program opens the Welcome with the private keys that its token sealed.
func TestPeersTakeTheKeyPackageOfAProgramOutsideTheTree(t *testing.T) {
	outside := library.Build(t)
	message := outside.Issue()
	parsed, err := keypackage.ParseMessage(message)
	if err != nil {
		t.Fatalf("ParseMessage() err = %v, want nil", err)
	}
	suite := uint16(parsed.KeyPackage.CipherSuite)
	for _, k := range kits {
		t.Run(k.folder, func(t *testing.T) {
			p := start(t, k.command(t))
			if _, err := p.call(request{Op: "validate", Suite: suite, KeyPackage: message}); err != nil && !errors.Is(err, errUnsupported) {
				t.Errorf("validate: %v", err)
			}
			added, err := p.call(request{Op: "add", Suite: suite, KeyPackage: message})
			if err != nil {
				t.Fatalf("add: %v", err)
			}
			got, err := hex.DecodeString(outside.Join(added.Welcome))
			if err != nil {
				t.Fatalf("the program printed something else than an epoch authenticator: %v", err)
			}
			if err := sameEpoch(reply{EpochAuthenticator: got}, added); err != nil {
				t.Error(err)
			}
			t.Logf("%s %s added the key package, and the program is in its epoch", p.hello.Name, p.hello.Version)
		})
	}
}
