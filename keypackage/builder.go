package keypackage

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// ErrSignerFault reports a signer whose signature does not verify under its own public key:
// the device is faulty, or its key was replaced.
var ErrSignerFault = errors.New("the signer made a signature that does not verify")

// Builder makes key packages from one template with one signature key. It is immutable, and
// safe for concurrent use if its signer is.
type Builder struct {
	suite  *ciphersuite.Suite
	signer crypto.Signer
	public *ciphersuite.PublicKey
	// signatureKey is public, encoded.
	signatureKey []byte
	// leaf has the encoded fields of a leaf node from signature_key to extensions,
	// extensions those of the key package. They are the same in all key packages.
	leaf, extensions []byte
}

// NewBuilder checks the template and returns its Builder, which copies what it needs of the
// template. signer has the private key of the credential. Its public key is of the suite's
// signature scheme and of a type that ciphersuite.MarshalPublicKey takes.
//
// NewBuilder refuses what RFC 9420 forbids in a key package: capabilities that lack mls10,
// the suite or the type of the credential, or list default types (Section 7.2); a lifetime
// that does not end after it begins; extensions that are repeated (Section 13.4) or may not be
// there (Section 17.3); an x509 credential for another key than the signer's (Section 5.3).
// The error reports all faults of the template, joined.
func NewBuilder(t Template, signer crypto.Signer) (*Builder, error) {
	if t.Suite == nil {
		return nil, errors.New("prepare key packages: the template has no cipher suite")
	}
	scheme, signatureKey, err := ciphersuite.MarshalPublicKey(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("prepare key packages: %w", err)
	}
	if scheme != t.Suite.Signature {
		return nil, fmt.Errorf("prepare key packages: a %v key cannot sign for %v", scheme, t.Suite.ID)
	}
	public, err := scheme.ParsePublicKey(signatureKey)
	if err != nil {
		return nil, fmt.Errorf("prepare key packages: %w", err)
	}
	if err := errors.Join(t.check(), t.checkCertificate(signatureKey)); err != nil {
		return nil, fmt.Errorf("prepare key packages: %w", err)
	}
	leaf := LeafNode{
		SignatureKey: signatureKey,
		Credential:   t.Credential,
		Capabilities: t.Supported(),
		Source:       SourceKeyPackage,
		Lifetime:     t.Lifetime,
		Extensions:   t.LeafExtensions,
	}
	return &Builder{
		suite:        t.Suite,
		signer:       signer,
		public:       public,
		signatureKey: signatureKey,
		leaf:         leaf.appendSigner(nil),
		extensions:   appendExtensions(nil, t.Extensions),
	}, nil
}

// Build makes a key package (RFC 9420, Section 10) with two HPKE public keys of the suite,
// Npk bytes each, which must be different. It copies them. Their private keys stay with the
// caller.
//
// The signer signs LeafNodeTBS, then KeyPackageTBS; rand is for the signer, which may ignore
// it. Build verifies both signatures in software. The error wraps ErrSignerFault if one does
// not verify, wraps the signer's error if it fails, or says what is wrong with the keys.
func (b *Builder) Build(rand io.Reader, initPublic, encryptionPublic []byte) (*Verified, error) {
	if err := b.checkKeys(initPublic, encryptionPublic); err != nil {
		return nil, fmt.Errorf("build key package: %w", err)
	}
	e := newEncoding(MLS10, b.suite.ID, initPublic, b.size(encryptionPublic))
	e.message = wire.AppendVector(e.message, encryptionPublic)
	e.message = append(e.message, b.leaf...)
	e.leafEnd = len(e.message)
	signature, err := b.sign(rand, labelLeafNode, e.leafNodeTBS())
	if err != nil {
		return nil, fmt.Errorf("build key package: sign leaf node: %w", err)
	}
	e.message = wire.AppendVector(e.message, signature)
	e.message = append(e.message, b.extensions...)
	e.end = len(e.message)
	signature, err = b.sign(rand, labelKeyPackage, e.keyPackageTBS())
	if err != nil {
		return nil, fmt.Errorf("build key package: sign key package: %w", err)
	}
	e.message = wire.AppendVector(e.message, signature)
	return newVerified(b.suite, e), nil
}

// checkKeys returns an error if a key is not an HPKE public key of the suite, or if two keys
// are the same. RFC 9420, Section 10.1, requires init_key and encryption_key to differ,
// Section 16.8 HPKE keys and signature keys.
func (b *Builder) checkKeys(initPublic, encryptionPublic []byte) error {
	if err := hpke.ValidPublicKey(b.suite, initPublic); err != nil {
		return fmt.Errorf("check init key: %w", err)
	}
	if err := hpke.ValidPublicKey(b.suite, encryptionPublic); err != nil {
		return fmt.Errorf("check encryption key: %w", err)
	}
	switch {
	case bytes.Equal(initPublic, encryptionPublic):
		return errors.New("init key and encryption key are the same")
	case bytes.Equal(initPublic, b.signatureKey), bytes.Equal(encryptionPublic, b.signatureKey):
		return errors.New("an HPKE key is the signature key")
	}
	return nil
}

// size returns how many bytes follow init_key, or slightly more.
func (b *Builder) size(encryptionPublic []byte) int {
	const maxSignature = 2 + 139 // P-521 in DER, and its length
	return sizeVector(encryptionPublic) + len(b.leaf) + len(b.extensions) + 2*maxSignature
}

// sign makes a signature and verifies it.
func (b *Builder) sign(rand io.Reader, label string, content []byte) ([]byte, error) {
	signature, err := b.suite.Signature.SignWithLabel(rand, b.signer, label, content)
	if err != nil {
		return nil, err
	}
	if err := b.public.VerifyWithLabel(label, content, signature); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignerFault, err)
	}
	return signature, nil
}
