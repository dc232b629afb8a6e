// Package keypackagetest makes key packages with keys in software, for tests.
package keypackagetest

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

// NewSigner makes a signature key of the suite, in software.
func NewSigner(tb testing.TB, suite *ciphersuite.Suite) crypto.Signer {
	tb.Helper()
	var key crypto.Signer
	var err error
	switch suite.Signature {
	case ciphersuite.ED25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case ciphersuite.ED448:
		_, key, err = ed448.GenerateKey(rand.Reader)
	case ciphersuite.ECDSA_SECP384R1_SHA384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case ciphersuite.ECDSA_SECP521R1_SHA512:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	default:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// Template returns a plain template: a basic credential, the default capabilities.
func Template(suite *ciphersuite.Suite, identity string, lifetime keypackage.Lifetime) keypackage.Template {
	return keypackage.Template{
		Suite:        suite,
		Credential:   keypackage.BasicCredential([]byte(identity)),
		Capabilities: keypackage.DefaultCapabilities(suite),
		Lifetime:     lifetime,
	}
}

// Build makes a key package of a template, with the private key of its init_key.
func Build(tb testing.TB, t keypackage.Template, signer crypto.Signer) (*keypackage.KeyPackage, *hpke.SecretKey) {
	tb.Helper()
	b, err := keypackage.NewBuilder(t, signer)
	if err != nil {
		tb.Fatalf("NewBuilder() err = %v, want nil", err)
	}
	var keys [2]*hpke.SecretKey
	for i := range keys {
		if keys[i], err = hpke.GenerateKeyPair(t.Suite, rand.Reader); err != nil {
			tb.Fatal(err)
		}
	}
	v, err := b.Build(rand.Reader, keys[0].PublicKey(), keys[1].PublicKey())
	if err != nil {
		tb.Fatalf("Build() err = %v, want nil", err)
	}
	return v.KeyPackage(), keys[0]
}
