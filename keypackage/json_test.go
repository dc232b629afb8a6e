package keypackage_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func TestKeyPackageInJSON(t *testing.T) {
	kp := &keypackage.KeyPackage{
		Version:     keypackage.MLS10,
		CipherSuite: 2,
		InitKey:     []byte{0xA1},
		LeafNode: keypackage.LeafNode{
			EncryptionKey: []byte{0xB1},
			SignatureKey:  []byte{0xC1},
			Credential:    keypackage.BasicCredential([]byte("zoë")),
			Capabilities: keypackage.Capabilities{
				Versions:     []keypackage.ProtocolVersion{1},
				CipherSuites: []ciphersuite.ID{2, 0x0A0A},
				Extensions:   []keypackage.ExtensionType{10, 0xF001},
				Credentials:  []keypackage.CredentialType{1},
			},
			Source:    keypackage.SourceKeyPackage,
			Lifetime:  keypackage.Lifetime{NotBefore: 1_800_000_000, NotAfter: 1<<64 - 1},
			Signature: []byte{0xE1},
		},
		Extensions: []keypackage.Extension{{Type: 10}},
		Signature:  []byte{0xF1},
	}
	wantJSON(t, kp, `{
  "version": {"value": 1, "name": "mls10"},
  "cipher_suite": {"value": 2, "name": "MLS_128_DHKEMP256_AES128GCM_SHA256_P256"},
  "init_key": "a1",
  "leaf_node": {
    "encryption_key": "b1",
    "signature_key": "c1",
    "credential": {"credential_type": {"value": 1, "name": "basic"}, "identity": "7a6fc3ab", "identity_text": "zoë"},
    "capabilities": {
      "versions": [{"value": 1, "name": "mls10"}],
      "cipher_suites": [{"value": 2, "name": "MLS_128_DHKEMP256_AES128GCM_SHA256_P256"}, {"value": 2570, "name": "GREASE"}],
      "extensions": [{"value": 10, "name": "last_resort"}, {"value": 61441}],
      "proposals": [],
      "credentials": [{"value": 1, "name": "basic"}]
    },
    "leaf_node_source": {"value": 1, "name": "key_package"},
    "lifetime": {"not_before": 1800000000, "not_before_time": "2027-01-15T08:00:00Z", "not_after": 18446744073709551615},
    "extensions": [],
    "signature": "e1"
  },
  "extensions": [{"extension_type": {"value": 10, "name": "last_resort"}, "extension_data": ""}],
  "signature": "f1"
}`)
}

func TestLeafNodeInJSONHasTheFieldsOfItsSource(t *testing.T) {
	for source, want := range map[keypackage.LeafNodeSource][2]bool{
		keypackage.SourceKeyPackage: {true, false},
		keypackage.SourceUpdate:     {false, false},
		keypackage.SourceCommit:     {false, true},
	} {
		b, err := json.Marshal(&keypackage.LeafNode{Source: source})
		if err != nil {
			t.Fatal(err)
		}
		got := [2]bool{bytes.Contains(b, []byte(`"lifetime"`)), bytes.Contains(b, []byte(`"parent_hash"`))}
		if got != want {
			t.Errorf("%v: lifetime and parent_hash present = %v, want %v: %s", source, got, want, b)
		}
	}
}

func TestCredentialInJSON(t *testing.T) {
	wantJSON(t, keypackage.X509Credential([][]byte{{0x30, 0x01}, {0x30, 0x02}}),
		`{"credential_type": {"value": 2, "name": "x509"}, "certificates": ["3001", "3002"]}`)
	wantJSON(t, keypackage.X509Credential(nil), `{"credential_type": {"value": 2, "name": "x509"}, "certificates": []}`)
	wantJSON(t, keypackage.Credential{Type: 0xF001, Raw: []byte{1}},
		`{"credential_type": {"value": 61441}, "content": "01"}`)
	wantJSON(t, keypackage.BasicCredential([]byte("a\x1b[31m")),
		`{"credential_type": {"value": 1, "name": "basic"}, "identity": "611b5b33316d"}`)
	wantJSON(t, keypackage.BasicCredential(nil),
		`{"credential_type": {"value": 1, "name": "basic"}, "identity": ""}`)
}

func TestRefInJSON(t *testing.T) {
	wantJSON(t, keypackage.Ref{0xAB}, `"ab"`)
}

// wantJSON compares without regard to space.
func wantJSON(t *testing.T, v any, want string) {
	t.Helper()
	got, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("Marshal() err = %v, want nil", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(want)); err != nil {
		t.Fatal(err)
	}
	if string(got) != compact.String() {
		t.Errorf("JSON = %s, want %s", got, &compact)
	}
}
