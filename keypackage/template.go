package keypackage

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// Template is what the key packages of a Builder have in common.
type Template struct {
	Suite        *ciphersuite.Suite
	Credential   Credential
	Capabilities Capabilities
	Lifetime     Lifetime
	// LeafExtensions are those of the leaf node, Extensions those of the key package. The
	// Builder adds their types to the capabilities if they are missing.
	LeafExtensions []Extension
	Extensions     []Extension
}

// Unsigned returns a key package of the template without keys and signatures, for
// ValidateUnsigned. It shares the slices of the template.
func (t *Template) Unsigned() *KeyPackage {
	return &KeyPackage{
		Version:     MLS10,
		CipherSuite: t.Suite.ID,
		LeafNode: LeafNode{
			Credential:   t.Credential,
			Capabilities: t.Supported(),
			Source:       SourceKeyPackage,
			Lifetime:     t.Lifetime,
			Extensions:   t.LeafExtensions,
		},
		Extensions: t.Extensions,
	}
}

// check returns everything in the template that RFC 9420 forbids, joined.
func (t *Template) check() error {
	return errors.Join(
		t.checkCapabilities(),
		t.checkCredential(),
		t.checkLifetime(),
		CheckExtensions(t.LeafExtensions, t.Extensions),
		t.checkSize(),
	)
}

func (t *Template) checkCapabilities() error {
	var errs []error
	if !slices.Contains(t.Capabilities.Versions, MLS10) {
		errs = append(errs, fmt.Errorf("capabilities do not list the version %v", MLS10))
	}
	if !slices.Contains(t.Capabilities.CipherSuites, t.Suite.ID) {
		errs = append(errs, fmt.Errorf("capabilities do not list the cipher suite %v", t.Suite.ID))
	}
	for _, e := range t.Capabilities.Extensions {
		if e.Default() {
			errs = append(errs, fmt.Errorf("capabilities list the default extension type %v", e))
		}
	}
	for _, p := range t.Capabilities.Proposals {
		if p.Default() {
			errs = append(errs, fmt.Errorf("capabilities list the default proposal type %v", p))
		}
	}
	return errors.Join(errs...)
}

func (t *Template) checkCredential() error {
	switch {
	case grease(t.Credential.Type):
		return fmt.Errorf("credential type is %v, which has no meaning", t.Credential.Type)
	case !slices.Contains(t.Capabilities.Credentials, t.Credential.Type):
		return fmt.Errorf("capabilities do not list the credential type %v", t.Credential.Type)
	}
	return nil
}

func (t *Template) checkLifetime() error {
	if t.Lifetime.NotAfter <= t.Lifetime.NotBefore {
		return fmt.Errorf("lifetime ends at %d, which is not after its start at %d", t.Lifetime.NotAfter, t.Lifetime.NotBefore)
	}
	return nil
}

// checkSize ensures that every vector can be encoded: no part is longer than the whole. The
// keys and signatures that follow are short.
func (t *Template) checkSize() error {
	const room = 1 << 16
	size := t.Credential.size() + t.Capabilities.size() + sizeExtensions(t.LeafExtensions) + sizeExtensions(t.Extensions)
	if size > wire.MaxVectorLen-room {
		return fmt.Errorf("template has %d bytes, more than a vector can hold", size)
	}
	return nil
}

// CheckExtensions returns what RFC 9420 forbids in the extensions of a leaf node (leaf) and
// of a key package (outer), joined: types that are not allowed there (Section 17.3) or are
// repeated (Section 13.4), and malformed data of application_id and last_resort.
func CheckExtensions(leaf, outer []Extension) error {
	return errors.Join(
		checkExtensions("leaf_node.extensions", leaf, ExtensionType.allowedInLeafNode),
		checkExtensions("extensions", outer, ExtensionType.allowedInKeyPackage),
	)
}

func checkExtensions(where string, extensions []Extension, allowed func(ExtensionType) bool) error {
	var errs []error
	for i, e := range extensions {
		switch {
		case !allowed(e.Type):
			errs = append(errs, fmt.Errorf("%s may not hold %v", where, e.Type))
		case repeats(extensions, i):
			errs = append(errs, fmt.Errorf("%s hold %v more than once", where, e.Type))
		case !e.wellFormed():
			errs = append(errs, fmt.Errorf("%s hold malformed %v", where, e.Type))
		}
	}
	return errors.Join(errs...)
}

// Supported returns the capabilities of the key packages, in new memory: those of the
// template, and the types of its extensions that they lack and that are not default, in their
// order, each once.
func (t *Template) Supported() Capabilities {
	c := t.Capabilities.clone()
	for _, e := range slices.Concat(t.LeafExtensions, t.Extensions) {
		if !c.supports(e.Type) {
			c.Extensions = append(c.Extensions, e.Type)
		}
	}
	return c
}

// checkCertificate returns an error if the end entity of an x509 credential has another key
// than signatureKey.
func (t *Template) checkCertificate(signatureKey []byte) error {
	if t.Credential.Type != CredentialX509 {
		return nil
	}
	chain, err := certificate.Parse(t.Credential.Certificates)
	if err == nil && !chain.Certifies(signatureKey) {
		err = errors.New("end-entity certificate has another key than the signer")
	}
	return err
}
