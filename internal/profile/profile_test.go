package profile_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/profile"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/keypackage/keypackagetest"
)

const now = 1_800_000_000

// plain makes a key package of suite 2 as hsm-kp makes them by default.
func plain(t *testing.T) *keypackage.KeyPackage {
	t.Helper()
	suite, _ := ciphersuite.Lookup(2)
	lifetime := keypackage.Lifetime{NotBefore: now - 3600, NotAfter: now + 84*24*60*60}
	kp, _ := keypackagetest.Build(t, keypackagetest.Template(suite, "alice", lifetime), keypackagetest.NewSigner(t, suite))
	return kp
}

// refused returns which implementations refuse kp, and why: "openmls:lifetime-expired".
func refused(kp *keypackage.KeyPackage) []string {
	findings := keypackage.Validate(kp, keypackage.Policy{Now: now}).Findings
	var out []string
	for _, p := range profile.All() {
		for _, r := range p.Refusals(kp, findings) {
			out = append(out, r.Peer+":"+r.ID)
		}
	}
	return out
}

func TestNobodyRefusesWhatIsMadeByDefault(t *testing.T) {
	if got := refused(plain(t)); len(got) > 0 {
		t.Errorf("a plain key package is refused: %v", got)
	}
	suite, _ := ciphersuite.Lookup(2)
	template := keypackage.Template{Suite: suite, Credential: keypackage.BasicCredential([]byte("alice")), Capabilities: keypackage.DefaultCapabilities(suite)}
	for _, p := range profile.All() {
		if got := p.RefusalsUnsigned(template.Unsigned(), nil); len(got) > 0 {
			t.Errorf("a plain template is refused: %v", got)
		}
	}
}

// tests/interop checks the profiles against the implementations. Here, each rule that is not a
// finding must fire and name the implementations that have it.
func TestRules(t *testing.T) {
	applicationID := []keypackage.Extension{keypackage.ApplicationID([]byte("phone"))}
	for want, change := range map[string]func(*keypackage.KeyPackage){
		"core-crypto:credentials-not-both-listed": func(kp *keypackage.KeyPackage) {
			kp.LeafNode.Capabilities.Credentials = []keypackage.CredentialType{1}
		},
		"core-crypto:last-resort-refused": func(kp *keypackage.KeyPackage) {
			kp.Extensions = []keypackage.Extension{{Type: keypackage.ExtensionLastResort}}
		},
		"bcmls:extension-unknown-to-it": func(kp *keypackage.KeyPackage) {
			kp.LeafNode.Extensions = []keypackage.Extension{{Type: 0xF001}}
		},
		"openmls:grease-extension-refused": func(kp *keypackage.KeyPackage) { kp.Extensions = []keypackage.Extension{{Type: 0x2A2A}} },
		"mls-go:application-id-not-listed": func(kp *keypackage.KeyPackage) { kp.LeafNode.Extensions = applicationID },
		"mls-rs:application-id-refused":    func(kp *keypackage.KeyPackage) { kp.LeafNode.Extensions = applicationID },
		"mls-rs:basic-not-listed": func(kp *keypackage.KeyPackage) {
			kp.LeafNode.Capabilities.Credentials = []keypackage.CredentialType{2}
		},
		"mls-go:x509-refused":            func(kp *keypackage.KeyPackage) { kp.LeafNode.Credential = keypackage.X509Credential(nil) },
		"core-crypto:x509-needs-anchors": func(kp *keypackage.KeyPackage) { kp.LeafNode.Credential = keypackage.X509Credential(nil) },
		"mls-rs:init-key-no-point":       func(kp *keypackage.KeyPackage) { kp.InitKey[64] ^= 1 },
		"openmls:signature-key-no-point": func(kp *keypackage.KeyPackage) { kp.LeafNode.SignatureKey[64] ^= 1 },
		"go-mls:lifetime-over-90-days":   func(kp *keypackage.KeyPackage) { kp.LeafNode.Lifetime.NotAfter = 1<<64 - 1 },
		"openmls:suite-not-served":       func(kp *keypackage.KeyPackage) { kp.CipherSuite = 7 },
		"mls-go:identity-empty":          func(kp *keypackage.KeyPackage) { kp.LeafNode.Credential = keypackage.BasicCredential(nil) },
	} {
		kp := plain(t)
		change(kp)
		if got := refused(kp); !slices.Contains(got, want) {
			t.Errorf("refused = %v, want %s among them", got, want)
		}
	}
}

// A compressed point is invalid for our validator, but valid for some peers.
func TestCompressedPoints(t *testing.T) {
	kp := plain(t)
	kp.InitKey = append([]byte{2 + kp.InitKey[64]&1}, kp.InitKey[1:33]...)
	got := strings.Join(refused(kp), " ")
	if strings.Contains(got, "mls-rs:init-key") || !strings.Contains(got, "ts-mls:init-key-invalid") {
		t.Errorf("refused = %s, want ts-mls and not mls-rs to refuse the init key", got)
	}
}

func TestProfilesAreNamed(t *testing.T) {
	names := profile.Names()
	for _, want := range []string{"openmls", "core-crypto", "mls-rs", "mlspp", "ts-mls", "mls-go", "go-mls"} {
		if !slices.Contains(names, want) {
			t.Errorf("Names() = %v, want %s among them", names, want)
		}
	}
	for _, name := range names {
		p, ok := profile.Lookup(name)
		if !ok || p.Name != name || p.Version == "" || p.Basis == "" {
			t.Errorf("Lookup(%q) = %+v, %v, want its profile", name, p, ok)
		}
	}
	if _, ok := profile.Lookup("nobody"); ok {
		t.Error("Lookup(nobody) ok = true, want false")
	}
}
