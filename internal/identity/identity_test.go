package identity_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func newSigner(t *testing.T) (ed25519.PrivateKey, []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

func suite1(t *testing.T) *ciphersuite.Suite {
	t.Helper()
	s, ok := ciphersuite.Lookup(ciphersuite.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519)
	if !ok {
		t.Fatal("suite 1 is not in the table")
	}
	return s
}

func TestNewRefusesAKeyThatWasSwapped(t *testing.T) {
	signer, _ := newSigner(t)
	_, recorded := newSigner(t)
	_, err := identity.New("alice", suite1(t), keypackage.BasicCredential([]byte("alice")), recorded, signer)
	if !errors.Is(err, identity.ErrKeyMismatch) {
		t.Errorf("New() err = %v, want %v", err, identity.ErrKeyMismatch)
	}
}

func TestNewRefusesAKeyOfAnotherScheme(t *testing.T) {
	signer, public := newSigner(t)
	p256, _ := ciphersuite.Lookup(ciphersuite.MLS_128_DHKEMP256_AES128GCM_SHA256_P256)
	if _, err := identity.New("alice", p256, keypackage.BasicCredential([]byte("alice")), public, signer); err == nil {
		t.Error("New() err = nil, want one: an Ed25519 key cannot sign for suite 2")
	}
}

func TestCheckName(t *testing.T) {
	good := []string{"alice", "alice@example.com", "Zoë Müller", "fleet/7/phone", "x", strings.Repeat("n", identity.MaxNameBytes)}
	for _, name := range good {
		if err := identity.CheckName(name); err != nil {
			t.Errorf("CheckName(%q) err = %v, want nil", name, err)
		}
	}
	bad := []string{"", " alice", "alice ", "--json", "a\tb", "a\nb", "a\x00b", "a\u202eb", "\xff", strings.Repeat("n", identity.MaxNameBytes+1)}
	for _, name := range bad {
		if err := identity.CheckName(name); !errors.Is(err, identity.ErrName) {
			t.Errorf("CheckName(%q) err = %v, want %v", name, err, identity.ErrName)
		}
	}
}

func TestTemplateFollowsThePolicy(t *testing.T) {
	signer, public := newSigner(t)
	id, err := identity.New("alice", suite1(t), keypackage.BasicCredential([]byte("alice")), public, signer)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	policy := identity.Policy{
		Lifetime: 84 * 24 * time.Hour,
		Backdate: time.Hour,
		Supported: keypackage.Capabilities{
			CipherSuites: []ciphersuite.ID{1, 3},
			Extensions:   []keypackage.ExtensionType{0xF001},
		},
	}
	tmpl, err := id.Template(policy, now, true)
	if err != nil {
		t.Fatalf("Template() err = %v, want nil", err)
	}
	if got, want := tmpl.Lifetime, (keypackage.Lifetime{NotBefore: 1_799_996_400, NotAfter: 1_807_257_600}); got != want {
		t.Errorf("Lifetime = %+v, want %+v", got, want)
	}
	if total := tmpl.Lifetime.NotAfter - tmpl.Lifetime.NotBefore; total != 7_261_200 {
		t.Errorf("total lifetime = %d s, want 7261200 s, the most that every peer takes", total)
	}
	if got, want := tmpl.Capabilities.CipherSuites, []ciphersuite.ID{1, 3}; !slices.Equal(got, want) {
		t.Errorf("CipherSuites = %v, want %v: each once", got, want)
	}
	if got, want := tmpl.Capabilities.Extensions, []keypackage.ExtensionType{0xF001}; !slices.Equal(got, want) {
		t.Errorf("Extensions = %v, want %v", got, want)
	}
	if len(tmpl.Extensions) != 1 || tmpl.Extensions[0].Type != keypackage.ExtensionLastResort || len(tmpl.Extensions[0].Data) != 0 {
		t.Errorf("Extensions = %v, want last_resort with no data", tmpl.Extensions)
	}
	if plain, err := id.Template(policy, now, false); err != nil || len(plain.Extensions) != 0 {
		t.Errorf("Extensions without last resort = %v, want none", plain.Extensions)
	}
}
