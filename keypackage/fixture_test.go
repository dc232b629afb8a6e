package keypackage_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"github.com/cloudflare/circl/sign/ed448"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// The lifetime of all fixtures, and a moment within it.
var lifetime = keypackage.Lifetime{NotBefore: 1_799_996_400, NotAfter: 1_807_257_600}

const now = 1_800_000_000

func suiteOf(tb testing.TB, id ciphersuite.ID) *ciphersuite.Suite {
	tb.Helper()
	s, ok := ciphersuite.Lookup(id)
	if !ok {
		tb.Fatalf("Lookup(%v) ok = false, want true", id)
	}
	return s
}

func newSigner(tb testing.TB, s *ciphersuite.Suite) crypto.Signer {
	tb.Helper()
	var key crypto.Signer
	var err error
	switch s.Signature {
	case ciphersuite.ECDSA_SECP256R1_SHA256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ciphersuite.ECDSA_SECP384R1_SHA384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case ciphersuite.ECDSA_SECP521R1_SHA512:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case ciphersuite.ED448:
		_, key, err = ed448.GenerateKey(rand.Reader)
	default:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func newTemplate(s *ciphersuite.Suite) keypackage.Template {
	return keypackage.Template{
		Suite:        s,
		Credential:   keypackage.BasicCredential([]byte("alice@example.com")),
		Capabilities: keypackage.DefaultCapabilities(s),
		Lifetime:     lifetime,
	}
}

func newPublicKey(tb testing.TB, s *ciphersuite.Suite) []byte {
	tb.Helper()
	key, err := hpke.GenerateKeyPair(s, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key.PublicKey()
}

// build makes a key package of the template with a new signature key.
func build(tb testing.TB, t keypackage.Template) *keypackage.Verified {
	tb.Helper()
	return buildWith(tb, t, newSigner(tb, t.Suite))
}

func buildWith(tb testing.TB, t keypackage.Template, signer crypto.Signer) *keypackage.Verified {
	tb.Helper()
	b, err := keypackage.NewBuilder(t, signer)
	if err != nil {
		tb.Fatalf("NewBuilder() err = %v, want nil", err)
	}
	v, err := b.Build(rand.Reader, newPublicKey(tb, t.Suite), newPublicKey(tb, t.Suite))
	if err != nil {
		tb.Fatalf("Build() err = %v, want nil", err)
	}
	return v
}

// richTemplate uses every part of the wire format, and code points that nobody
// knows.
func richTemplate(s *ciphersuite.Suite) keypackage.Template {
	t := newTemplate(s)
	t.Capabilities.Versions = append(t.Capabilities.Versions, 0xF00D)
	t.Capabilities.CipherSuites = append(t.Capabilities.CipherSuites, 0x1A1A, 0xF00D)
	t.Capabilities.Extensions = []keypackage.ExtensionType{0x2A2A}
	t.Capabilities.Proposals = []keypackage.ProposalType{0x0008, 0x3A3A}
	t.Capabilities.Credentials = append(t.Capabilities.Credentials, 0x4A4A)
	t.LeafExtensions = []keypackage.Extension{
		{Type: keypackage.ExtensionApplicationID, Data: []byte("\x05phone")},
		{Type: 0x5A5A, Data: make([]byte, 100)},
	}
	t.Extensions = []keypackage.Extension{{Type: keypackage.ExtensionLastResort}, {Type: 0xF001, Data: []byte{1, 2, 3}}}
	return t
}
