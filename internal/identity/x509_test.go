package identity_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

var (
	now    = time.Unix(1_800_000_000, 0)
	policy = identity.Policy{Lifetime: 84 * 24 * time.Hour, Backdate: time.Hour}
)

// withChain makes an identity with the certificates that issue makes for its key.
func withChain(t *testing.T, issue func(public any) certificate.Chain) *identity.Identity {
	t.Helper()
	signer, public := newSigner(t)
	credential := keypackage.X509Credential(issue(signer.Public()).DER())
	id, err := identity.New("alice", suite1(t), credential, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestLifetimeIsClampedToTheChain(t *testing.T) {
	day := 24 * time.Hour
	for name, test := range map[string]struct {
		leafFrom, leafTo, subTo time.Time
		want                    keypackage.Lifetime
	}{
		"long certificates": {now.Add(-day), now.Add(365 * day), now.Add(365 * day), keypackage.Lifetime{NotBefore: 1_799_996_400, NotAfter: 1_807_257_600}},
		"short leaf":        {now.Add(-day), now.Add(10 * day), now.Add(365 * day), keypackage.Lifetime{NotBefore: 1_799_996_400, NotAfter: 1_800_864_000}},
		"short issuer":      {now.Add(-day), now.Add(365 * day), now.Add(5 * day), keypackage.Lifetime{NotBefore: 1_799_996_400, NotAfter: 1_800_432_000}},
		"fresh leaf":        {now.Add(-time.Minute), now.Add(365 * day), now.Add(365 * day), keypackage.Lifetime{NotBefore: 1_799_999_940, NotAfter: 1_807_257_600}},
	} {
		id := withChain(t, func(public any) certificate.Chain {
			sub := certificatetest.NewRoot(t).Sub(t, "sub", func(c *x509.Certificate) { c.NotAfter = test.subTo })
			leaf := sub.Issue(t, public, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = test.leafFrom, test.leafTo })
			return certificate.Chain{leaf, sub.Certificate}
		})
		template, err := id.Template(policy, now, false)
		if err != nil || template.Lifetime != test.want {
			t.Errorf("%s: Template() lifetime = %+v, %v, want %+v", name, template.Lifetime, err, test.want)
		}
	}
}

func TestTemplateRefusesChains(t *testing.T) {
	root := certificatetest.NewRoot(t)
	for name, test := range map[string]struct {
		change certificatetest.Change
		roots  *x509.CertPool
		want   string
	}{
		"expired":       {func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }, nil, "expired at 2027-01-15T07:59:59Z"},
		"not yet valid": {func(c *x509.Certificate) { c.NotBefore = now.Add(time.Second) }, nil, "not valid before"},
		"ends at once":  {func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now, now }, nil, "before a lifetime could begin"},
		"unknown root":  {func(*x509.Certificate) {}, x509.NewCertPool(), "none of the roots"},
	} {
		id := withChain(t, func(public any) certificate.Chain {
			return certificate.Chain{root.Issue(t, public, test.change), root.Certificate}
		})
		p := policy
		p.Roots = test.roots
		_, err := id.Template(p, now, false)
		if _, ok := errors.AsType[*identity.ChainError](err); !ok || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Template() err = %v, want a *ChainError with %q", name, err, test.want)
		}
	}
	signer, public := newSigner(t)
	id, err := identity.New("alice", suite1(t), keypackage.X509Credential(nil), public, signer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.Template(policy, now, false); !errors.Is(err, identity.ErrNoCertificate) {
		t.Errorf("Template() without certificates err = %v, want ErrNoCertificate", err)
	}
}

func TestCheckChainTellsAllFaults(t *testing.T) {
	root := certificatetest.NewRoot(t)
	_, public := newSigner(t)
	leaf := root.Issue(t, certificatetest.NewKey(t).Public(), func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })
	err := identity.CheckChain(certificate.Chain{leaf, root.Certificate}, public, certificate.Options{Now: now})
	e, ok := errors.AsType[*identity.ChainError](err)
	if !ok || len(e.Faults) != 2 || !strings.Contains(err.Error(), "another key") || !strings.Contains(err.Error(), "expired") {
		t.Errorf("CheckChain() err = %v, want the key and the date", err)
	}
}

func TestGREASEIsListedAndMeansNothing(t *testing.T) {
	signer, public := newSigner(t)
	id, err := identity.New("alice", suite1(t), keypackage.BasicCredential([]byte("alice")), public, signer)
	if err != nil {
		t.Fatal(err)
	}
	p := policy
	p.GREASE = bytes.NewReader([]byte{0, 1, 14, 15})
	template, err := id.Template(p, now, false)
	if err != nil {
		t.Fatal(err)
	}
	c := template.Capabilities
	got := []uint16{uint16(c.CipherSuites[1]), uint16(c.Extensions[0]), uint16(c.Proposals[0]), uint16(c.Credentials[2])}
	if want := []uint16{0x0A0A, 0x1A1A, 0xEAEA, 0x0A0A}; !slices.Equal(got, want) {
		t.Errorf("GREASE = %04X, want %04X", got, want)
	}
	if _, err := keypackage.NewBuilder(template, signer); err != nil {
		t.Errorf("NewBuilder() err = %v, want nil", err)
	}
	p.GREASE = bytes.NewReader(nil)
	if _, err := id.Template(p, now, false); err == nil {
		t.Error("Template() without randomness err = nil, want one")
	}
}

func TestRequiredCapabilitiesAreSeenTo(t *testing.T) {
	signer, public := newSigner(t)
	id, err := identity.New("alice", suite1(t), keypackage.BasicCredential([]byte("alice")), public, signer)
	if err != nil {
		t.Fatal(err)
	}
	p := policy
	p.Required = keypackage.RequiredCapabilities{Extensions: []keypackage.ExtensionType{0xF001}}
	_, err = id.Template(p, now, false)
	if e, ok := errors.AsType[*identity.MissingError](err); !ok || !slices.Equal(e.Missing, []string{"extension 0xF001"}) {
		t.Errorf("Template() err = %v, want a *MissingError of extension 0xF001", err)
	}
	p.LeafExtensions = []keypackage.Extension{{Type: 0xF001}} // its type is listed automatically
	if _, err := id.Template(p, now, false); err != nil {
		t.Errorf("Template() err = %v, want nil", err)
	}
}
