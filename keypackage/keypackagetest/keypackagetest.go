// Package keypackagetest makes key packages with keys in software, for tests.
package keypackagetest

import (
	"crypto"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/sample"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// NewSigner returns a new signature key of the suite, in memory.
func NewSigner(tb testing.TB, suite *ciphersuite.Suite) crypto.Signer {
	tb.Helper()
	key, err := sample.NewSigner(suite)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// Template returns a template with a basic credential and the default capabilities.
func Template(suite *ciphersuite.Suite, identity string, lifetime keypackage.Lifetime) keypackage.Template {
	return keypackage.Template{
		Suite:        suite,
		Credential:   keypackage.BasicCredential([]byte(identity)),
		Capabilities: keypackage.DefaultCapabilities(suite),
		Lifetime:     lifetime,
	}
}

// Build returns a new key package of a template, and the private key of its init_key.
func Build(tb testing.TB, t keypackage.Template, signer crypto.Signer) (*keypackage.KeyPackage, *hpke.SecretKey) {
	tb.Helper()
	kp, init, err := sample.KeyPackage(t, signer)
	if err != nil {
		tb.Fatal(err)
	}
	return kp, init
}
