// Package sample makes key packages, groups and Welcomes with keys in software, to try out and
// to test with. It is the sender's half of what package welcome does (RFC 9420, Sections 8 and
// 12.4.3). The keys are discarded, so such a group has no working members.
//
// Randomness comes from crypto/rand.
package sample

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/cloudflare/circl/sign/ed448"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// lifetime is how long the creator of a group says that its leaf node is valid.
const lifetime = 84 * 24 * time.Hour

// Welcome makes a group whose creator adds the client of kp in the first epoch, and returns its
// Welcome. The ratchet tree is in the GroupInfo.
func Welcome(kp *keypackage.KeyPackage, now time.Time) (*keypackage.Welcome, error) {
	suite, ok := ciphersuite.Lookup(kp.CipherSuite)
	if !ok {
		return nil, fmt.Errorf("make a sample Welcome: unknown cipher suite %v", kp.CipherSuite)
	}
	g, err := NewGroup(suite, keypackage.Lifetime{
		NotBefore: uint64(now.Add(-time.Hour).Unix()), NotAfter: uint64(now.Add(lifetime).Unix()),
	}, kp)
	if err != nil {
		return nil, fmt.Errorf("make a sample group: %w", err)
	}
	info, err := g.Confirm()
	if err != nil {
		return nil, fmt.Errorf("make a sample GroupInfo: %w", err)
	}
	w, err := g.Welcome(info, kp)
	if err != nil {
		return nil, fmt.Errorf("make a sample Welcome: %w", err)
	}
	return w, nil
}

// NewSigner makes a signature key of the suite.
func NewSigner(suite *ciphersuite.Suite) (key crypto.Signer, err error) {
	switch suite.Signature {
	case ciphersuite.ED25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case ciphersuite.ED448:
		_, key, err = ed448.GenerateKey(rand.Reader)
	case ciphersuite.ECDSA_SECP256R1_SHA256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ciphersuite.ECDSA_SECP384R1_SHA384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case ciphersuite.ECDSA_SECP521R1_SHA512:
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	default:
		err = fmt.Errorf("make a signature key: unknown scheme %v", suite.Signature)
	}
	return key, err
}

// KeyPackage makes a key package of a template, with the private key of its init_key.
func KeyPackage(t keypackage.Template, signer crypto.Signer) (*keypackage.KeyPackage, *hpke.SecretKey, error) {
	b, err := keypackage.NewBuilder(t, signer)
	if err != nil {
		return nil, nil, err
	}
	var keys [2]*hpke.SecretKey
	for i := range keys {
		if keys[i], err = hpke.GenerateKeyPair(t.Suite, rand.Reader); err != nil {
			return nil, nil, err
		}
	}
	v, err := b.Build(rand.Reader, keys[0].PublicKey(), keys[1].PublicKey())
	if err != nil {
		return nil, nil, err
	}
	return v.KeyPackage(), keys[0], nil
}
