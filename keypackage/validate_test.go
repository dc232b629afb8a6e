package keypackage_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func TestBuiltKeyPackageHasNoFindings(t *testing.T) {
	for _, s := range ciphersuite.All() {
		for name, template := range map[string]keypackage.Template{"plain": newTemplate(s), "rich": richTemplate(s)} {
			built := build(t, template)
			report := keypackage.Validate(built.KeyPackage(), keypackage.Policy{Now: now, MaxLifetime: 7_261_200})
			if len(report.Findings) != 0 {
				t.Errorf("%v, %s: Validate() found %v, want nothing", s.ID, name, report.Findings)
			}
			v, ok := report.Verified()
			if !ok || !report.OK() {
				t.Fatalf("%v, %s: Verified() ok = %v, OK() = %v, want true", s.ID, name, ok, report.OK())
			}
			wantEqual(t, "Verified.Message()", v.Message(), built.Message())
			wantEqual(t, "Verified.Ref()", v.Ref(), built.Ref())
		}
	}
}

// sign replaces both signatures of kp, for key packages that Builder refuses to make.
func sign(t *testing.T, kp *keypackage.KeyPackage, signer crypto.Signer) {
	t.Helper()
	scheme, _, err := ciphersuite.MarshalPublicKey(signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	signed := func(label string, encoded []byte) []byte {
		// With no signature the encoding ends in its length, one zero byte.
		signature, err := scheme.SignWithLabel(rand.Reader, signer, label, encoded[:len(encoded)-1])
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
	kp.LeafNode.Signature, kp.Signature = nil, nil
	kp.LeafNode.Signature = signed("LeafNodeTBS", kp.LeafNode.Bytes())
	kp.Signature = signed("KeyPackageTBS", kp.Bytes())
}

// Each case breaks one rule in a key package that is well signed, and names all
// findings that it draws.
func TestValidateFinds(t *testing.T) {
	s := suiteOf(t, 2)
	signer := newSigner(t, s)
	valid := buildWith(t, newTemplate(s), signer)
	type (
		keyPackage = keypackage.KeyPackage
		list       = []keypackage.Extension
	)
	for name, test := range map[string]struct {
		change func(*keyPackage)
		want   string
	}{
		"another version":     {func(kp *keyPackage) { kp.Version = 2 }, "version-unsupported version-not-listed"},
		"unknown suite":       {func(kp *keyPackage) { kp.CipherSuite = 0x0A0A }, "suite-unknown suite-not-listed"},
		"suite of other keys": {func(kp *keyPackage) { kp.CipherSuite = 1 }, "init-key-invalid encryption-key-invalid signature-key-invalid suite-not-listed"},
		"short init key":      {func(kp *keyPackage) { kp.InitKey = kp.InitKey[1:] }, "init-key-invalid"},
		"compressed encryption key": {func(kp *keyPackage) {
			kp.LeafNode.EncryptionKey = append([]byte{2}, kp.LeafNode.EncryptionKey[1:33]...)
		}, "encryption-key-invalid"},
		"init key off the curve":    {func(kp *keyPackage) { kp.InitKey = offCurve(s, kp.InitKey) }, "init-key-invalid"},
		"signature key off curve":   {func(kp *keyPackage) { kp.LeafNode.SignatureKey = offCurve(s, kp.LeafNode.SignatureKey) }, "signature-key-invalid"},
		"one HPKE key for both":     {func(kp *keyPackage) { kp.LeafNode.EncryptionKey = kp.InitKey }, "init-key-reused"},
		"signature key to encrypt":  {func(kp *keyPackage) { kp.LeafNode.EncryptionKey = kp.LeafNode.SignatureKey }, "signature-key-reused"},
		"signature key as init key": {func(kp *keyPackage) { kp.InitKey = kp.LeafNode.SignatureKey }, "signature-key-reused"},

		"update":        {func(kp *keyPackage) { kp.LeafNode.Source = keypackage.SourceUpdate }, "source-not-key-package"},
		"commit":        {func(kp *keyPackage) { kp.LeafNode.Source = keypackage.SourceCommit }, "source-not-key-package"},
		"expired":       {func(kp *keyPackage) { kp.LeafNode.Lifetime.NotAfter = now - 1 }, "lifetime-expired"},
		"not yet valid": {func(kp *keyPackage) { kp.LeafNode.Lifetime.NotBefore = now + 1 }, "lifetime-not-yet-valid"},
		"inverted": {func(kp *keyPackage) {
			kp.LeafNode.Lifetime = keypackage.Lifetime{NotBefore: now + 1, NotAfter: now - 1}
		}, "lifetime-inverted"},
		"one second over the max": {func(kp *keyPackage) { kp.LeafNode.Lifetime.NotAfter++ }, "lifetime-too-long"},
		"unbounded":               {func(kp *keyPackage) { kp.LeafNode.Lifetime = keypackage.Lifetime{NotAfter: 1<<64 - 1} }, "lifetime-too-long"},
		"only this second":        {func(kp *keyPackage) { kp.LeafNode.Lifetime = keypackage.Lifetime{NotBefore: now, NotAfter: now} }, ""},

		"own version unlisted":     {func(kp *keyPackage) { kp.LeafNode.Capabilities.Versions = nil }, "version-not-listed"},
		"own suite unlisted":       {func(kp *keyPackage) { kp.LeafNode.Capabilities.CipherSuites = []ciphersuite.ID{1} }, "suite-not-listed"},
		"own credential unlisted":  {func(kp *keyPackage) { kp.LeafNode.Capabilities.Credentials = []keypackage.CredentialType{2} }, "credential-not-listed"},
		"default extensions":       {func(kp *keyPackage) { kp.LeafNode.Capabilities.Extensions = []keypackage.ExtensionType{5, 1, 1} }, "default-extension-listed default-extension-listed"},
		"default proposals":        {func(kp *keyPackage) { kp.LeafNode.Capabilities.Proposals = []keypackage.ProposalType{7, 8, 1} }, "default-proposal-listed default-proposal-listed"},
		"GREASE in capabilities":   {func(kp *keyPackage) { kp.LeafNode.Capabilities.Extensions = []keypackage.ExtensionType{0x0A0A} }, ""},
		"GREASE as a version":      {func(kp *keyPackage) { kp.LeafNode.Capabilities.Versions = []keypackage.ProtocolVersion{1, 0x0A0A} }, "grease-misplaced"},
		"GREASE as a credential":   {func(kp *keyPackage) { useCredential(kp, keypackage.Credential{Type: 0x1A1A}) }, "grease-misplaced credential-unknown"},
		"leaf extension unlisted":  {func(kp *keyPackage) { kp.LeafNode.Extensions = list{{Type: 0xF001}} }, "leaf-extension-not-listed"},
		"extension unlisted":       {func(kp *keyPackage) { kp.Extensions = list{{Type: 0x0A0A}} }, "extension-not-listed"},
		"last_resort unlisted":     {func(kp *keyPackage) { kp.Extensions = list{{Type: 10}} }, "extension-not-listed"},
		"leaf extension repeated":  {func(kp *keyPackage) { useExtensions(kp, slices.Repeat(list{{Type: 0xF001}}, 9), nil) }, "leaf-extension-repeated"},
		"extension repeated":       {func(kp *keyPackage) { useExtensions(kp, nil, slices.Repeat(list{{Type: 0xF001}}, 9)) }, "extension-repeated"},
		"same type in both lists":  {func(kp *keyPackage) { useExtensions(kp, list{{Type: 0xF001}}, list{{Type: 0xF001}}) }, ""},
		"ratchet_tree in leaf":     {func(kp *keyPackage) { kp.LeafNode.Extensions = list{{Type: 2}} }, "leaf-extension-misplaced"},
		"application_id outside":   {func(kp *keyPackage) { kp.Extensions = list{{Type: 1, Data: []byte{0}}} }, "extension-misplaced"},
		"reserved type":            {func(kp *keyPackage) { kp.Extensions = list{{Type: 0}} }, "extension-misplaced"},
		"application_id unlisted":  {func(kp *keyPackage) { kp.LeafNode.Extensions = list{{Type: 1, Data: []byte{1, 'x'}}} }, ""},
		"application_id malformed": {func(kp *keyPackage) { kp.LeafNode.Extensions = list{{Type: 1, Data: []byte{2, 'x'}}} }, "application-id-malformed"},
		"last_resort with data":    {func(kp *keyPackage) { useExtensions(kp, nil, list{{Type: 10, Data: []byte{0}}}) }, "last-resort-malformed"},
		"last_resort in leaf":      {func(kp *keyPackage) { useExtensions(kp, list{{Type: 10}}, nil) }, "last-resort-malformed"},

		"empty identity":     {func(kp *keyPackage) { kp.LeafNode.Credential = keypackage.BasicCredential(nil) }, "identity-empty"},
		"unknown credential": {func(kp *keyPackage) { useCredential(kp, keypackage.Credential{Type: 0xF001}) }, "credential-unknown"},
		"no certificate":     {func(kp *keyPackage) { useCredential(kp, keypackage.X509Credential(nil)) }, "certificates-malformed"},
		"no DER":             {func(kp *keyPackage) { useCredential(kp, keypackage.X509Credential([][]byte{{1}})) }, "certificates-malformed"},
		"no DER behind the end entity": {func(kp *keyPackage) {
			useCredential(kp, keypackage.X509Credential([][]byte{newCertificate(t, signer), {1}}))
		}, "certificates-malformed"},
		"certificate of another key": {func(kp *keyPackage) {
			useCredential(kp, keypackage.X509Credential([][]byte{newCertificate(t, newSigner(t, s))}))
		}, "certificate-key-mismatch"},
		"certificate of a curve that MLS lacks": {func(kp *keyPackage) {
			key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			useCredential(kp, keypackage.X509Credential([][]byte{newCertificate(t, key)}))
		}, "certificate-key-mismatch"},
		"certificate": {func(kp *keyPackage) {
			useCredential(kp, keypackage.X509Credential([][]byte{newCertificate(t, signer)}))
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			kp := valid.KeyPackage()
			test.change(kp)
			sign(t, kp, signer)
			wantFindings(t, kp, test.want)
		})
	}
}

// useExtensions sets both lists and lists their types.
func useExtensions(kp *keypackage.KeyPackage, leaf, outer []keypackage.Extension) {
	kp.LeafNode.Extensions, kp.Extensions = leaf, outer
	for _, e := range slices.Concat(leaf, outer) {
		kp.LeafNode.Capabilities.Extensions = append(kp.LeafNode.Capabilities.Extensions, e.Type)
	}
}

// useCredential sets the credential and lists its type.
func useCredential(kp *keypackage.KeyPackage, c keypackage.Credential) {
	kp.LeafNode.Credential = c
	kp.LeafNode.Capabilities.Credentials = append(kp.LeafNode.Capabilities.Credentials, c.Type)
}

func wantFindings(t *testing.T, kp *keypackage.KeyPackage, want string) {
	t.Helper()
	report := keypackage.Validate(kp, keypackage.Policy{Now: now, MaxLifetime: 7_261_200})
	var ids []string
	ok := true
	for _, f := range report.Findings {
		ids = append(ids, f.ID)
		ok = ok && f.Severity == keypackage.Warning
		if f.Section == "" || f.Message == "" {
			t.Errorf("finding %+v lacks section or message", f)
		}
	}
	if got := strings.Join(ids, " "); got != want {
		t.Errorf("Validate() found %q, want %q: %v", got, want, report.Findings)
	}
	if report.OK() != ok {
		t.Errorf("OK() = %v, want %v", report.OK(), ok)
	}
	if _, verified := report.Verified(); verified != ok {
		t.Errorf("Verified() ok = %v, want %v", verified, ok)
	}
}

func TestEveryChangedByteOfASignatureIsFound(t *testing.T) {
	for _, s := range ciphersuite.All() {
		v := build(t, newTemplate(s))
		n := len(v.KeyPackage().Signature)
		for i := 0; i < n; i += max(1, n/8) {
			kp := v.KeyPackage()
			kp.Signature[i] ^= 0x40
			wantFindings(t, kp, "signature-invalid")
		}
		kp := v.KeyPackage()
		kp.LeafNode.Signature[4] ^= 0x40
		wantFindings(t, kp, "leaf-signature-invalid signature-invalid")
	}
}

func TestSignatureOfAnotherKeyIsFound(t *testing.T) {
	s := suiteOf(t, 2)
	kp := build(t, newTemplate(s)).KeyPackage()
	sign(t, kp, newSigner(t, s))
	wantFindings(t, kp, "leaf-signature-invalid signature-invalid")
}

func TestSignaturesCannotBeSwapped(t *testing.T) {
	kp := build(t, newTemplate(suiteOf(t, 1))).KeyPackage()
	kp.Signature, kp.LeafNode.Signature = kp.LeafNode.Signature, kp.Signature
	wantFindings(t, kp, "leaf-signature-invalid signature-invalid")
}

// RFC 9420, Section 5.1.2: ECDSA signatures are DER, not r || s.
func TestECDSASignatureAsTwoIntegersIsRefused(t *testing.T) {
	kp := build(t, newTemplate(suiteOf(t, 2))).KeyPackage()
	kp.Signature = bytes.Repeat([]byte{1}, 64)
	wantFindings(t, kp, "signature-invalid")
}

func TestEmptyKeyPackageIsInvalid(t *testing.T) {
	report := keypackage.Validate(new(keypackage.KeyPackage), keypackage.Policy{Now: now})
	if report.OK() || len(report.Findings) == 0 {
		t.Errorf("Validate() = %+v, want errors", report)
	}
}

func TestVerifiedIsWhatWasValidated(t *testing.T) {
	built := build(t, newTemplate(suiteOf(t, 2)))
	kp := built.KeyPackage()
	v, ok := keypackage.Validate(kp, keypackage.Policy{Now: now}).Verified()
	if !ok {
		t.Fatal("Verified() ok = false, want true")
	}
	kp.InitKey[5] ^= 1
	kp.CipherSuite = 7
	v.KeyPackage().Signature[0] ^= 1
	wantEqual(t, "Verified.Bytes()", v.Bytes(), built.Bytes())
	wantEqual(t, "Verified.KeyPackage()", v.KeyPackage().Bytes(), built.Bytes())
}

// Validate must not take quadratic time for long lists, nor return a finding for each entry.
func TestHostileListsAreFoundQuickly(t *testing.T) {
	s := suiteOf(t, 2)
	kp := build(t, newTemplate(s)).KeyPackage()
	const n = 200_000
	kp.LeafNode.Extensions = make([]keypackage.Extension, n)
	kp.Extensions = make([]keypackage.Extension, n)
	kp.LeafNode.Capabilities.Extensions = make([]keypackage.ExtensionType, n)
	for i := range n {
		kp.LeafNode.Extensions[i].Type = keypackage.ExtensionType(i)
		kp.Extensions[i].Type = keypackage.ExtensionType(i)
		kp.LeafNode.Capabilities.Extensions[i] = keypackage.ExtensionApplicationID
	}
	start := time.Now()
	report := keypackage.Validate(kp, keypackage.Policy{Now: now})
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("Validate() took %v, want far less than a second", took)
	}
	if most := 5 * 1 << 16; len(report.Findings) > most {
		t.Errorf("Validate() has %d findings, want at most %d", len(report.Findings), most)
	}
}

func TestFindingInJSON(t *testing.T) {
	kp := build(t, newTemplate(suiteOf(t, 2))).KeyPackage()
	report := keypackage.Validate(kp, keypackage.Policy{Now: lifetime.NotAfter + 1})
	got, err := json.Marshal(report.Findings)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"id":"lifetime-expired","severity":"error","section":"RFC 9420, Section 7.3","message":"the lifetime is over","value":"not_after 2027-04-09T08:00:00Z"}]`
	if string(got) != want {
		t.Errorf("findings = %s, want %s", got, want)
	}
	if got, want := report.Findings[0].String(), "error: the lifetime is over (not_after 2027-04-09T08:00:00Z)"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}

// Each rule has a case in the tables of this package that breaks it.
func TestEveryRuleIsProven(t *testing.T) {
	var tables []byte
	for _, name := range []string{"validate_test.go", "validate_x509_test.go"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tables = append(tables, text...)
	}
	rules := keypackage.Rules()
	if len(rules) < 40 {
		t.Fatalf("there are %d rules, want 40 and more", len(rules))
	}
	seen := make(map[string]bool)
	for _, rule := range rules {
		if expected := regexp.MustCompile(`"[a-z -]*\b` + rule.ID + `\b[a-z -]*"`); !expected.Match(tables) {
			t.Errorf("no case expects the finding %s", rule.ID)
		}
		if seen[rule.ID] || rule.Section == "" || rule.Message == "" || rule.Strict != keypackage.Error {
			t.Errorf("rule %+v is there twice, or lacks something", rule)
		}
		seen[rule.ID] = true
	}
}
