package interop

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// TestADeviceIsGivenItsPrivateKeys provisions devices of another MLS library with custody release: the
// library makes the release key and opens what was released with its own HPKE (@hpke/core), and the device
// joins a group with it. Its signature key stays in the token.
func TestADeviceIsGivenItsPrivateKeys(t *testing.T) {
	ours := newMembers(t)
	i := slices.IndexFunc(kits, func(k kit) bool { return k.folder == "ts-mls" })
	device := start(t, kits[i].command(t))
	device.sign = ours.sign
	for suite := uint16(1); suite <= 7; suite++ {
		t.Run(fmt.Sprintf("suite %d", suite), func(t *testing.T) {
			key, err := device.call(request{Op: "releaseKey", Suite: suite})
			if err != nil {
				t.Fatalf("releaseKey: %v", err)
			}
			released := ours.release(t, suite, key.Data)
			r := released.Released
			opened, err := device.call(request{Op: "openReleased", Suite: suite, Device: key.Device, KeyPackage: released.Message, Enc: r.Enc, Ciphertext: r.Ciphertext})
			if err != nil {
				t.Fatalf("openReleased: %v", err)
			}
			kp := keyPackage{message: released.Message, init: opened.InitPrivateKey, encryption: opened.EncryptionPrivateKey}
			if err := exchange(device, device, suite, kp); err != nil {
				t.Errorf("the device joins a group: %v", err)
			}
			ours.program.Run("handover", "confirm", released.Ref)
		})
	}
}

// release makes a key package for a device with this release key, and hands it over.
func (m *members) release(t *testing.T, suite uint16, releaseKey []byte) program.ReleasedKeyPackage {
	t.Helper()
	manifest := filepath.Join(t.TempDir(), "device.jsonl")
	line := fmt.Sprintf(`{"name":"%s","suite":%d,"custody":"release","release_key":"%s"}`, inToken(suite), suite, base64.StdEncoding.EncodeToString(releaseKey))
	if err := os.WriteFile(manifest, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	all, err := program.ParseProvisioned(bytes.NewReader(m.program.Run("provision", "--manifest", manifest, "--json")))
	if err != nil || len(all) != 1 || len(all[0].KeyPackages) != 1 || all[0].KeyPackages[0].Released == nil {
		t.Fatalf("provision printed %+v, %v", all, err)
	}
	return all[0].KeyPackages[0]
}
