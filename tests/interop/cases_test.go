package interop

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/keypackage/keypackagetest"
)

// variant is a key package that differs from a plain one in one thing. It is properly signed unless the
// difference is a signature. Every peer gets each variant.
type variant struct {
	name string
	// change changes the key package before it is signed.
	change func(*keypackage.KeyPackage)
	// damage changes it afterwards, in the decoded form.
	damage func(*keypackage.KeyPackage)
	// raw changes the encoded bytes.
	raw func([]byte) []byte
}

type (
	extensions = []keypackage.Extension
	capability = []keypackage.ExtensionType
)

// variantSuite is the suite of all variants: every peer has it.
const variantSuite = ciphersuite.MLS_128_DHKEMP256_AES128GCM_SHA256_P256

func variants(t *testing.T, signer crypto.Signer) []variant {
	const day = 24 * 60 * 60
	now := uint64(time.Now().Unix())
	root := certificatetest.NewRoot(t)
	certified := func(public crypto.PublicKey, changes ...certificatetest.Change) func(*keypackage.KeyPackage) {
		chain := certificate.Chain{root.Issue(t, public, changes...), root.Certificate}
		return func(kp *keypackage.KeyPackage) { kp.LeafNode.Credential = keypackage.X509Credential(chain.DER()) }
	}
	leaf := func(change func(*keypackage.LeafNode)) func(*keypackage.KeyPackage) {
		return func(kp *keypackage.KeyPackage) { change(&kp.LeafNode) }
	}
	lifetime := func(from, to uint64) func(*keypackage.KeyPackage) {
		return leaf(func(l *keypackage.LeafNode) { l.Lifetime = keypackage.Lifetime{NotBefore: from, NotAfter: to} })
	}
	// listed sets the extensions of leaf node and key package, and the types that capabilities list.
	listed := func(inLeaf, outer extensions, types capability) func(*keypackage.KeyPackage) {
		return func(kp *keypackage.KeyPackage) {
			kp.LeafNode.Extensions, kp.Extensions, kp.LeafNode.Capabilities.Extensions = inLeaf, outer, types
		}
	}
	applicationID := extensions{keypackage.ApplicationID([]byte("phone"))}
	lastResort := extensions{{Type: keypackage.ExtensionLastResort}}
	private := extensions{{Type: 0xF001, Data: []byte{1}}}
	grease := extensions{{Type: 0x2A2A, Data: []byte{1}}}
	return []variant{
		{name: "plain", change: func(*keypackage.KeyPackage) {}},

		{name: "expired", change: lifetime(now-10*day, now-day)},
		{name: "not yet valid", change: lifetime(now+day, now+10*day)},
		{name: "not_after before not_before", change: lifetime(now+day, now-day)},
		{name: "lifetime of one year", change: lifetime(now-3600, now+365*day)},
		{name: "lifetime from 0 to 2^64-1", change: lifetime(0, 1<<64-1)},

		{name: "init_key = encryption_key", change: func(kp *keypackage.KeyPackage) { kp.InitKey = kp.LeafNode.EncryptionKey }},
		{name: "init_key is no point", change: func(kp *keypackage.KeyPackage) { kp.InitKey = offCurve(kp.InitKey) }},
		{name: "init_key compressed", change: func(kp *keypackage.KeyPackage) { kp.InitKey = compressed(kp.InitKey) }},
		{name: "encryption_key is no point", change: leaf(func(l *keypackage.LeafNode) { l.EncryptionKey = offCurve(l.EncryptionKey) })},
		{name: "encryption_key compressed", change: leaf(func(l *keypackage.LeafNode) { l.EncryptionKey = compressed(l.EncryptionKey) })},
		{name: "signature_key compressed", change: leaf(func(l *keypackage.LeafNode) { l.SignatureKey = compressed(l.SignatureKey) })},

		{name: "signature_key is no point", change: leaf(func(l *keypackage.LeafNode) { l.SignatureKey = offCurve(l.SignatureKey) })},

		{name: "version 2", change: func(kp *keypackage.KeyPackage) { kp.Version = 2 }},
		{name: "source update", change: leaf(func(l *keypackage.LeafNode) { l.Source = keypackage.SourceUpdate })},

		{name: "bad signature", damage: func(kp *keypackage.KeyPackage) { kp.Signature = otherSignature(t, kp.Signature) }},
		{name: "bad leaf signature", damage: func(kp *keypackage.KeyPackage) {
			kp.LeafNode.Signature = otherSignature(t, kp.LeafNode.Signature)
			resign(t, kp, signer)
		}},
		{name: "signatures as r || s", damage: func(kp *keypackage.KeyPackage) {
			kp.LeafNode.Signature = rs(t, kp.LeafNode.Signature)
			resign(t, kp, signer)
			kp.Signature = rs(t, kp.Signature)
		}},

		{name: "own version not listed", change: leaf(func(l *keypackage.LeafNode) { l.Capabilities.Versions = nil })},
		{name: "own suite not listed", change: leaf(func(l *keypackage.LeafNode) { l.Capabilities.CipherSuites = []ciphersuite.ID{1} })},
		{name: "own credential not listed", change: leaf(func(l *keypackage.LeafNode) { l.Capabilities.Credentials = []keypackage.CredentialType{2} })},
		{name: "basic alone listed", change: leaf(func(l *keypackage.LeafNode) { l.Capabilities.Credentials = []keypackage.CredentialType{1} })},
		{name: "default extension listed", change: listed(nil, nil, capability{keypackage.ExtensionRequiredCapabilities})},
		{name: "default proposal listed", change: leaf(func(l *keypackage.LeafNode) {
			l.Capabilities.Proposals = []keypackage.ProposalType{keypackage.ProposalAdd}
		})},
		{name: "GREASE in all capabilities", change: leaf(func(l *keypackage.LeafNode) {
			c := &l.Capabilities
			c.CipherSuites, c.Extensions = append(c.CipherSuites, 0x0A0A), append(c.Extensions, 0x1A1A)
			c.Proposals, c.Credentials = append(c.Proposals, 0x3A3A), append(c.Credentials, 0x4A4A)
		})},

		{name: "last_resort, listed", change: listed(nil, lastResort, capability{keypackage.ExtensionLastResort})},
		{name: "last_resort, not listed", change: listed(nil, lastResort, nil)},
		{name: "application_id, not listed", change: listed(applicationID, nil, nil)},
		{name: "application_id, listed", change: listed(applicationID, nil, capability{keypackage.ExtensionApplicationID})},
		{name: "private leaf extension, listed", change: listed(private, nil, capability{0xF001})},
		{name: "private leaf extension, not listed", change: listed(private, nil, nil)},
		{name: "private extension, listed", change: listed(nil, private, capability{0xF001})},
		{name: "private extension, not listed", change: listed(nil, private, nil)},
		{name: "GREASE leaf extension, listed", change: listed(grease, nil, capability{0x2A2A})},
		{name: "GREASE extension, listed", change: listed(nil, grease, capability{0x2A2A})},
		{name: "extension twice", change: listed(nil, append(private, private...), capability{0xF001})},
		{name: "leaf extension twice", change: listed(append(private, private...), nil, capability{0xF001})},
		{name: "ratchet_tree as an extension", change: listed(nil, extensions{{Type: keypackage.ExtensionRatchetTree, Data: []byte{0}}}, nil)},

		{name: "empty identity", change: leaf(func(l *keypackage.LeafNode) { l.Credential = keypackage.BasicCredential(nil) })},
		{name: "unknown credential", change: leaf(func(l *keypackage.LeafNode) {
			l.Credential = keypackage.Credential{Type: 0xF001, Raw: []byte{1}}
			l.Capabilities.Credentials = append(l.Capabilities.Credentials, 0xF001)
		})},
		{name: "x509", change: certified(signer.Public())},
		{name: "x509 of another key", change: certified(certificatetest.NewKey(t).Public())},
		{name: "x509, expired", change: certified(signer.Public(), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) })},
		{name: "x509 without certificates", change: leaf(func(l *keypackage.LeafNode) { l.Credential = keypackage.X509Credential(nil) })},

		{name: "a byte after the end", raw: func(b []byte) []byte { return append(b, 0) }},
	}
}

// make returns the variant as an MLSMessage.
func (v variant) make(t *testing.T, signer crypto.Signer) []byte {
	t.Helper()
	suite, _ := ciphersuite.Lookup(variantSuite)
	now := uint64(time.Now().Unix())
	kp, _ := keypackagetest.Build(t, keypackagetest.Template(suite, "00000000-0000-4000-8000-000000000077:1@hsm.example",
		keypackage.Lifetime{NotBefore: now - 3600, NotAfter: now + 84*24*60*60}), signer)
	if v.change != nil {
		v.change(kp)
		kp.LeafNode.Signature = signed(t, signer, "LeafNodeTBS", kp.LeafNode.Bytes(), kp.LeafNode.Signature)
		resign(t, kp, signer)
	}
	if v.damage != nil {
		v.damage(kp)
	}
	message := append([]byte{0, 1, 0, 5}, kp.Bytes()...) // an MLSMessage of mls10, whatever the version inside
	if v.raw != nil {
		message = v.raw(message)
	}
	return message
}

// resign signs the outer structure again.
func resign(t *testing.T, kp *keypackage.KeyPackage, signer crypto.Signer) {
	t.Helper()
	kp.Signature = signed(t, signer, "KeyPackageTBS", kp.Bytes(), kp.Signature)
}

// signed signs the part of an encoding before its signature, which is the last field.
func signed(t *testing.T, signer crypto.Signer, label string, encoded, signature []byte) []byte {
	t.Helper()
	content := bytes.TrimSuffix(encoded, signature)
	content = content[:len(content)-lengthOf(len(signature))]
	made, err := ciphersuite.ECDSA_SECP256R1_SHA256.SignWithLabel(rand.Reader, signer, label, content)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// lengthOf returns the number of bytes of a vector's length (RFC 9420, Section 2.1.2).
func lengthOf(n int) int {
	if n < 64 {
		return 1
	}
	return 2
}

// otherSignature returns a well-formed signature of something else.
func otherSignature(t *testing.T, der []byte) []byte {
	r, s := integers(t, der)
	b, err := asn1.Marshal(struct{ R, S *big.Int }{r, s.Xor(s, big.NewInt(1))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rs returns a signature as two integers of 32 bytes each.
func rs(t *testing.T, der []byte) []byte {
	r, s := integers(t, der)
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
}

func integers(t *testing.T, der []byte) (r, s *big.Int) {
	t.Helper()
	var both struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &both); err != nil {
		t.Fatal(err)
	}
	return both.R, both.S
}

// offCurve returns an uncompressed point with another y.
func offCurve(point []byte) []byte {
	b := bytes.Clone(point)
	b[len(b)-1] ^= 1
	return b
}

// compressed returns a point of P-256 in 33 bytes.
func compressed(point []byte) []byte { return append([]byte{2 + point[64]&1}, point[1:33]...) }
