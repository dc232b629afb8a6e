package profile

import (
	"crypto/elliptic"
	"fmt"
	"slices"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// rule is a rule that RFC 9420 does not have, or states differently.
type rule struct {
	id, message string
	// broken reports whether a key package breaks the rule, and by which value.
	broken func(*keypackage.KeyPackage) (value string, broken bool)
	ofKeys bool // it examines keys
}

var (
	bothCredentials = rule{id: "credentials-not-both-listed", message: "capabilities must list both credentials, basic and x509",
		broken: func(kp *keypackage.KeyPackage) (string, bool) {
			for _, t := range []keypackage.CredentialType{keypackage.CredentialBasic, keypackage.CredentialX509} {
				if !slices.Contains(kp.LeafNode.Capabilities.Credentials, t) {
					return fmt.Sprintf("%v is missing", t), true
				}
			}
			return "", false
		}}
	noLastResort = rule{id: "last-resort-refused", message: "it refuses the last_resort extension",
		broken: func(kp *keypackage.KeyPackage) (string, bool) { return "", kp.LastResort() }}
	applicationIDListed = rule{id: "application-id-not-listed", message: "application_id must be listed in capabilities, which RFC 9420 forbids",
		broken: func(kp *keypackage.KeyPackage) (string, bool) {
			return "", hasApplicationID(kp) && !slices.Contains(kp.LeafNode.Capabilities.Extensions, keypackage.ExtensionApplicationID)
		}}
	noApplicationID = rule{id: "application-id-refused", message: "it takes application_id neither listed in capabilities nor unlisted",
		broken: func(kp *keypackage.KeyPackage) (string, bool) { return "", hasApplicationID(kp) }}
	basicListed = rule{id: "basic-not-listed", message: "capabilities must list the credential basic, which the members of its groups have",
		broken: func(kp *keypackage.KeyPackage) (string, bool) {
			return "", !slices.Contains(kp.LeafNode.Capabilities.Credentials, keypackage.CredentialBasic)
		}}
	noX509 = rule{id: "x509-refused", message: "its clients list the credential basic alone, and so its groups take no other",
		broken: func(kp *keypackage.KeyPackage) (string, bool) { return "", isX509(kp) }}
	x509NeedsAnchors = rule{id: "x509-needs-anchors", message: "it takes x509 credentials only where its application has set trust anchors",
		broken: func(kp *keypackage.KeyPackage) (string, bool) { return "", isX509(kp) }}
	initKeyNoPoint = rule{id: "init-key-no-point", message: "init_key is not a public key, compressed or not",
		ofKeys: true,
		broken: func(kp *keypackage.KeyPackage) (string, bool) { return "", !isPoint(kp.CipherSuite, kp.InitKey) }}
	signatureKeyNoPoint = rule{id: "signature-key-no-point", message: "leaf_node.signature_key is not a public key, compressed or not",
		ofKeys: true,
		broken: func(kp *keypackage.KeyPackage) (string, bool) {
			return "", !isSignaturePoint(kp.CipherSuite, kp.LeafNode.SignatureKey)
		}}
	noGREASEExtension = rule{id: "grease-extension-refused", message: "it ignores GREASE in capabilities and so refuses extensions of such types",
		broken: func(kp *keypackage.KeyPackage) (string, bool) {
			return findExtension(kp, func(t keypackage.ExtensionType) bool { return keypackage.IsGREASE(uint16(t)) })
		}}
	knownExtensions = rule{id: "extension-unknown-to-it", message: "it decodes no extension types but those of RFC 9420 and GREASE",
		broken: func(kp *keypackage.KeyPackage) (string, bool) {
			return findExtension(kp, func(t keypackage.ExtensionType) bool {
				return t > keypackage.ExtensionExternalSenders && !keypackage.IsGREASE(uint16(t))
			})
		}}
	shortLifetime = rule{id: "lifetime-over-90-days", message: "as a joiner it refuses a total lifetime over 90 days",
		broken: func(kp *keypackage.KeyPackage) (string, bool) {
			l := kp.LeafNode.Lifetime
			const limit = 90 * 24 * 60 * 60
			return fmt.Sprintf("%d s", l.NotAfter-l.NotBefore), l.NotAfter >= l.NotBefore && l.NotAfter-l.NotBefore > limit
		}}
)

// findExtension returns the first type in leaf node or key package that fits.
func findExtension(kp *keypackage.KeyPackage, fits func(keypackage.ExtensionType) bool) (string, bool) {
	for _, e := range slices.Concat(kp.LeafNode.Extensions, kp.Extensions) {
		if fits(e.Type) {
			return e.Type.String(), true
		}
	}
	return "", false
}

func hasApplicationID(kp *keypackage.KeyPackage) bool {
	return slices.ContainsFunc(kp.LeafNode.Extensions, func(e keypackage.Extension) bool { return e.Type == keypackage.ExtensionApplicationID })
}

// suites lists cipher suites by number.
func suites(numbers ...ciphersuite.ID) []ciphersuite.ID { return numbers }

func isX509(kp *keypackage.KeyPackage) bool {
	return kp.LeafNode.Credential.Type == keypackage.CredentialX509
}

// isPoint reports whether b is an HPKE public key of the suite, or a compressed point of its curve.
// It accepts everything for an unknown suite.
func isPoint(id ciphersuite.ID, b []byte) bool {
	s, ok := ciphersuite.Lookup(id)
	return !ok || hpke.ValidPublicKey(s, b) == nil || hpke.ValidPublicKey(s, decompress(s.Signature, b)) == nil
}

// isSignaturePoint is like isPoint for a public signature key.
func isSignaturePoint(id ciphersuite.ID, b []byte) bool {
	s, ok := ciphersuite.Lookup(id)
	if !ok {
		return true
	}
	if _, err := s.Signature.ParsePublicKey(b); err == nil {
		return true
	}
	_, err := s.Signature.ParsePublicKey(decompress(s.Signature, b))
	return err == nil
}

// decompress returns a compressed point of the scheme's curve in uncompressed
// form, or nothing.
func decompress(scheme ciphersuite.SignatureScheme, b []byte) []byte {
	curve, ok := curves[scheme]
	if !ok {
		return nil
	}
	x, y := elliptic.UnmarshalCompressed(curve, b)
	if x == nil {
		return nil
	}
	size := (curve.Params().BitSize + 7) / 8
	point := make([]byte, 1+2*size)
	point[0] = 4
	x.FillBytes(point[1 : 1+size])
	y.FillBytes(point[1+size:])
	return point
}

var curves = map[ciphersuite.SignatureScheme]elliptic.Curve{
	ciphersuite.ECDSA_SECP256R1_SHA256: elliptic.P256(),
	ciphersuite.ECDSA_SECP384R1_SHA384: elliptic.P384(),
	ciphersuite.ECDSA_SECP521R1_SHA512: elliptic.P521(),
}
