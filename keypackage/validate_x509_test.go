package keypackage_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Each case breaks one rule of X.509 in a key package that is well signed, and
// names all findings that it draws; "" is a good chain.
func TestValidateFindsInChains(t *testing.T) {
	s := suiteOf(t, 2)
	signer := newSigner(t, s)
	valid := buildWith(t, newTemplate(s), signer)
	at := time.Unix(now, 0)
	root, other := certificatetest.NewRoot(t), certificatetest.NewRoot(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	expired := func(c *x509.Certificate) { c.NotAfter = at.Add(-time.Hour) }
	for name, test := range map[string]struct {
		chain func() []*x509.Certificate
		roots []*certificatetest.CA
		want  string
	}{
		"good":         {func() []*x509.Certificate { return chain(root.Issue(t, signer.Public()), root.Certificate) }, nil, ""},
		"good, anchor": {func() []*x509.Certificate { return chain(root.Issue(t, signer.Public())) }, []*certificatetest.CA{root}, ""},
		"wrong key": {func() []*x509.Certificate { return chain(root.Issue(t, newSigner(t, s).Public()), root.Certificate) },
			nil, "certificate-key-mismatch"},
		"RSA leaf": {func() []*x509.Certificate { return chain(root.Issue(t, rsaKey.Public()), root.Certificate) },
			nil, "certificate-key-mismatch"},
		"wrong order": {func() []*x509.Certificate {
			sub := root.Sub(t, "sub")
			return chain(sub.Issue(t, signer.Public()), root.Certificate, sub.Certificate)
		}, nil, "certificate-out-of-order certificate-out-of-order"},
		"expired": {func() []*x509.Certificate { return chain(root.Issue(t, signer.Public(), expired), root.Certificate) },
			nil, "certificate-expired lifetime-beyond-certificates"},
		"issuer expired": {func() []*x509.Certificate {
			sub := root.Sub(t, "sub", expired)
			return chain(sub.Issue(t, signer.Public()), sub.Certificate)
		}, nil, "certificate-expired lifetime-beyond-certificates"},
		"not yet valid": {func() []*x509.Certificate {
			return chain(root.Issue(t, signer.Public(), func(c *x509.Certificate) { c.NotBefore = at.Add(time.Hour) }), root.Certificate)
		}, nil, "certificate-not-yet-valid lifetime-beyond-certificates"},
		"ends before the lifetime": {func() []*x509.Certificate {
			return chain(root.Issue(t, signer.Public(), func(c *x509.Certificate) { c.NotAfter = at.Add(time.Hour) }), root.Certificate)
		}, nil, "lifetime-beyond-certificates"},
		"issuer is no CA": {func() []*x509.Certificate {
			sub := root.Sub(t, "sub", func(c *x509.Certificate) { c.IsCA = false })
			return chain(sub.Issue(t, signer.Public()), sub.Certificate)
		}, nil, "certificate-may-not-sign"},
		"path too long": {func() []*x509.Certificate {
			top := certificatetest.NewRoot(t, func(c *x509.Certificate) { c.MaxPathLenZero = true })
			sub := top.Sub(t, "sub")
			return chain(sub.Issue(t, signer.Public()), sub.Certificate, top.Certificate)
		}, nil, "certificate-path-too-long"},
		"leaf may not sign": {func() []*x509.Certificate {
			return chain(root.Issue(t, signer.Public(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), root.Certificate)
		}, nil, "certificate-usage"},
		"signature of another CA": {func() []*x509.Certificate { return chain(root.Issue(t, signer.Public()), other.Certificate) },
			nil, "certificate-signature-invalid"},
		"unknown root": {func() []*x509.Certificate { return chain(root.Issue(t, signer.Public()), root.Certificate) },
			[]*certificatetest.CA{other}, "certificate-root-unknown"},
		"name constraint": {func() []*x509.Certificate {
			sub := root.Sub(t, "sub", func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"example.com"} })
			return chain(sub.Issue(t, signer.Public()), sub.Certificate)
		}, nil, "certificate-not-acceptable"},
	} {
		t.Run(name, func(t *testing.T) {
			kp := valid.KeyPackage()
			var der [][]byte
			for _, c := range test.chain() {
				der = append(der, c.Raw)
			}
			useCredential(kp, keypackage.X509Credential(der))
			sign(t, kp, signer)
			policy := keypackage.Policy{Now: now}
			for _, ca := range test.roots {
				if policy.Roots == nil {
					policy.Roots = x509.NewCertPool()
				}
				policy.Roots.AddCert(ca.Certificate)
			}
			if got := strings.Join(ids(keypackage.Validate(kp, policy)), " "); got != test.want {
				t.Errorf("Validate() found %q, want %q", got, test.want)
			}
		})
	}
}

func chain(certificates ...*x509.Certificate) []*x509.Certificate { return certificates }

func ids(r keypackage.Report) []string {
	var ids []string
	for _, f := range r.Findings {
		ids = append(ids, f.ID)
	}
	return ids
}

func TestRequiredCapabilities(t *testing.T) {
	s := suiteOf(t, 2)
	template := newTemplate(s)
	template.Capabilities.Extensions = []keypackage.ExtensionType{0xF001}
	template.Capabilities.Proposals = []keypackage.ProposalType{0xF002}
	kp := build(t, template).KeyPackage()
	for name, test := range map[string]struct {
		required keypackage.RequiredCapabilities
		want     string
	}{
		"nothing":         {keypackage.RequiredCapabilities{}, ""},
		"what is listed":  {keypackage.RequiredCapabilities{Extensions: []keypackage.ExtensionType{0xF001}, Proposals: []keypackage.ProposalType{0xF002}, Credentials: []keypackage.CredentialType{1, 2}}, ""},
		"default types":   {keypackage.RequiredCapabilities{Extensions: []keypackage.ExtensionType{1, 3, 5}, Proposals: []keypackage.ProposalType{1, 7}}, ""},
		"what is missing": {keypackage.RequiredCapabilities{Extensions: []keypackage.ExtensionType{0xF001, 0xF003}, Proposals: []keypackage.ProposalType{8}, Credentials: []keypackage.CredentialType{3}}, "extension 0xF003, proposal 0x0008, credential 0x0003"},
	} {
		report := keypackage.Validate(kp, keypackage.Policy{Now: now, Required: test.required})
		got := ""
		for _, f := range report.Findings {
			got += f.Value
			if f.ID != "required-capability-missing" || f.Severity != keypackage.Error {
				t.Errorf("%s: Validate() found %+v, want an error required-capability-missing", name, f)
			}
		}
		if got != test.want {
			t.Errorf("%s: Validate() found %q missing, want %q", name, got, test.want)
		}
	}
}

// What a finding weighs at each level: the RFC's MUST for those who add a client
// is an error of LevelRFC, what cannot be used at all is one of LevelLenient.
func TestLevels(t *testing.T) {
	s := suiteOf(t, 2)
	signer := newSigner(t, s)
	valid := buildWith(t, newTemplate(s), signer)
	for name, test := range map[string]struct {
		change               func(*keypackage.KeyPackage)
		strict, rfc, lenient keypackage.Severity
	}{
		"suite unlisted": {func(kp *keypackage.KeyPackage) { kp.LeafNode.Capabilities.CipherSuites = nil },
			keypackage.Error, keypackage.Warning, keypackage.Warning},
		"extension unlisted": {func(kp *keypackage.KeyPackage) { kp.Extensions = []keypackage.Extension{{Type: 10}} },
			keypackage.Error, keypackage.Warning, keypackage.Warning},
		"leaf extension unlisted": {func(kp *keypackage.KeyPackage) { kp.LeafNode.Extensions = []keypackage.Extension{{Type: 0xF001}} },
			keypackage.Error, keypackage.Error, keypackage.Warning},
		"expired": {func(kp *keypackage.KeyPackage) { kp.LeafNode.Lifetime.NotAfter = now - 1 },
			keypackage.Error, keypackage.Error, keypackage.Warning},
		"one key for both": {func(kp *keypackage.KeyPackage) { kp.LeafNode.EncryptionKey = kp.InitKey },
			keypackage.Error, keypackage.Error, keypackage.Error},
	} {
		kp := valid.KeyPackage()
		test.change(kp)
		sign(t, kp, signer)
		for level, want := range map[keypackage.Level]keypackage.Severity{
			keypackage.LevelStrict: test.strict, keypackage.LevelRFC: test.rfc, keypackage.LevelLenient: test.lenient,
		} {
			report := keypackage.Validate(kp, keypackage.Policy{Now: now, Level: level})
			if len(report.Findings) != 1 || report.Findings[0].Severity != want {
				t.Errorf("%s: Validate() at level %v found %v, want one %v", name, level, report.Findings, want)
			}
			if report.OK() != (want == keypackage.Warning) {
				t.Errorf("%s: OK() at level %v = %v, want %v", name, level, report.OK(), want == keypackage.Warning)
			}
		}
	}
}

// What is found in a template before it is signed is found in the key package too,
// and the other way round but for keys and signatures.
func TestUnsigned(t *testing.T) {
	s := suiteOf(t, 2)
	signer := newSigner(t, s)
	template := richTemplate(s)
	template.Credential = keypackage.X509Credential([][]byte{newCertificate(t, signer)})
	built := buildWith(t, template, signer).KeyPackage()
	unsigned := template.Unsigned()
	unsigned.InitKey, unsigned.Signature = built.InitKey, built.Signature
	unsigned.LeafNode.EncryptionKey, unsigned.LeafNode.SignatureKey = built.LeafNode.EncryptionKey, built.LeafNode.SignatureKey
	unsigned.LeafNode.Signature = built.LeafNode.Signature
	wantEqual(t, "Unsigned() with keys and signatures", unsigned.Bytes(), built.Bytes())

	for want, policy := range map[string]keypackage.Policy{
		"":                                     {Now: now},
		"lifetime-too-long":                    {Now: now, MaxLifetime: 3600},
		"lifetime-expired certificate-expired": {Now: now + 10*365*24*60*60},
	} {
		got := strings.Join(findingIDs(keypackage.ValidateUnsigned(template.Unsigned(), policy)), " ")
		if got != want {
			t.Errorf("ValidateUnsigned() found %q, want %q", got, want)
		}
		if signed := strings.Join(ids(keypackage.Validate(built, policy)), " "); got != signed {
			t.Errorf("ValidateUnsigned() found %q, Validate() %q, want the same", got, signed)
		}
	}
}

func findingIDs(findings []keypackage.Finding) []string {
	return ids(keypackage.Report{Findings: findings})
}
