package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestLibrariesJoinBySamples lets every peer join the group of `hsm-kp welcome sample`: MLS libraries,
// which check the tree and its hash, accept the sample too.
func TestLibrariesJoinBySamples(t *testing.T) {
	ours := newMembers(t)
	for _, k := range kits {
		t.Run(k.folder, func(t *testing.T) {
			p := start(t, k.command(t))
			p.sign = ours.sign
			for _, suite := range p.hello.Suites {
				if suite > 7 {
					continue
				}
				if err := ours.joinSample(t, p, suite); err != nil {
					t.Errorf("suite %d: %v", suite, err)
				}
			}
		})
	}
}

// joinSample lets a peer join by a sample, and compares its epoch with that of hsm-kp.
func (m *members) joinSample(t *testing.T, p *peer, suite uint16) error {
	kp := m.generate(suite, p.external())
	dir := t.TempDir()
	file, out := filepath.Join(dir, "kp.mls"), filepath.Join(dir, "welcome.mls")
	if err := os.WriteFile(file, kp.message, 0o600); err != nil {
		return err
	}
	m.program.Run("welcome", "sample", file, "--out", out)
	message, err := os.ReadFile(out)
	if err != nil {
		return err
	}
	joined, err := p.call(request{
		Op: "join", Suite: suite, KeyPackage: kp.message,
		InitPrivateKey: kp.init, EncryptionPrivateKey: kp.encryption, SignaturePrivateKey: kp.signature, Welcome: message,
	})
	if errors.Is(err, errUnsupported) {
		t.Logf("suite %d: %v", suite, err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	var opened struct {
		EpochAuthenticator octets `json:"epoch_authenticator"`
	}
	if err := json.Unmarshal(m.program.Run("welcome", "open", "--consume", "--json", out), &opened); err != nil {
		return err
	}
	return sameEpoch(joined, reply{EpochAuthenticator: opened.EpochAuthenticator})
}
