package keypackage_test

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// seeds are key packages of each signature scheme, plain and rich.
func seeds(f *testing.F) []*keypackage.Verified {
	f.Helper()
	var all []*keypackage.Verified
	for _, s := range ciphersuite.All() {
		all = append(all, build(f, newTemplate(s)), build(f, richTemplate(s)))
	}
	signer := newSigner(f, suiteOf(f, 2))
	template := newTemplate(suiteOf(f, 2))
	template.Credential = keypackage.X509Credential([][]byte{newCertificate(f, signer)})
	return append(all, buildWith(f, template, signer))
}

func FuzzParse(f *testing.F) {
	for _, v := range seeds(f) {
		f.Add(v.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		kp, err := keypackage.Parse(b)
		if err != nil {
			return
		}
		wantEqual(t, "Bytes()", kp.Bytes(), b)
		if _, err := json.Marshal(kp); err != nil {
			t.Errorf("Marshal() err = %v, want nil", err)
		}
		if v, ok := keypackage.Validate(kp, keypackage.Policy{Now: now}).Verified(); ok {
			wantEqual(t, "Verified.Bytes()", v.Bytes(), b)
		}
	})
}

// FuzzCertificates puts whatever it is given into an x509 credential.
func FuzzCertificates(f *testing.F) {
	s := suiteOf(f, 2)
	signer := newSigner(f, s)
	valid := buildWith(f, newTemplate(s), signer)
	root := certificatetest.NewRoot(f)
	sub := root.Sub(f, "sub")
	good := keypackage.X509Credential(certificate.Chain{sub.Issue(f, signer.Public()), sub.Certificate, root.Certificate}.DER())
	f.Add(good.Bytes()[2:])
	f.Add(keypackage.X509Credential([][]byte{newCertificate(f, signer)}).Bytes()[2:])
	f.Add(keypackage.X509Credential(nil).Bytes()[2:])
	f.Fuzz(func(t *testing.T, content []byte) {
		c, err := keypackage.ParseCredential(append([]byte{0, 2}, content...))
		if err != nil {
			return
		}
		wantEqual(t, "Bytes()", c.Bytes()[2:], content)
		kp := valid.KeyPackage()
		kp.LeafNode.Credential = c
		report := keypackage.Validate(kp, keypackage.Policy{Now: now})
		if report.OK() {
			t.Error("OK() = true for a credential that nobody signed")
		}
		if _, err := c.Chain(); (err != nil) != slices.Contains(ids(report), "certificates-malformed") {
			t.Errorf("Chain() err = %v, Validate() found %v", err, report.Findings)
		}
	})
}

func FuzzParseMessage(f *testing.F) {
	for _, v := range seeds(f) {
		f.Add(v.Message())
	}
	f.Add([]byte{0, 1, 0, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := keypackage.ParseMessage(b)
		if err != nil {
			return
		}
		if m.Version != keypackage.MLS10 {
			t.Errorf("Version = %v, want %v", m.Version, keypackage.MLS10)
		}
		wantEqual(t, "Body", m.Body, b[4:])
		if (m.KeyPackage != nil) != (m.WireFormat == keypackage.WireFormatKeyPackage) {
			t.Errorf("KeyPackage = %v in a message of %v", m.KeyPackage, m.WireFormat)
		}
		if m.KeyPackage != nil && !bytes.Equal(m.KeyPackage.Bytes(), m.Body) {
			t.Errorf("KeyPackage.Bytes() = %x, want %x", m.KeyPackage.Bytes(), m.Body)
		}
	})
}

func FuzzParseLeafNode(f *testing.F) {
	for _, v := range seeds(f) {
		leaf := v.KeyPackage().LeafNode
		f.Add(leaf.Bytes())
		leaf.Source = keypackage.SourceUpdate
		f.Add(leaf.Bytes())
		leaf.Source, leaf.ParentHash = keypackage.SourceCommit, make([]byte, 32)
		f.Add(leaf.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		leaf, err := keypackage.ParseLeafNode(b)
		if err != nil {
			return
		}
		wantEqual(t, "Bytes()", leaf.Bytes(), b)
	})
}

func FuzzParseCredential(f *testing.F) {
	for _, v := range seeds(f) {
		f.Add(v.KeyPackage().LeafNode.Credential.Bytes())
	}
	f.Add(keypackage.Credential{Type: 0x0A0A, Raw: []byte{1, 2, 3}}.Bytes())
	f.Add(keypackage.X509Credential([][]byte{nil, {1}}).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := keypackage.ParseCredential(b)
		if err != nil {
			return
		}
		wantEqual(t, "Bytes()", c.Bytes(), b)
	})
}

func FuzzParseWelcome(f *testing.F) {
	w := keypackage.Welcome{CipherSuite: 2, EncryptedGroupInfo: []byte("info"), Secrets: []keypackage.EncryptedGroupSecrets{
		{NewMember: bytes.Repeat([]byte{1}, 32), KEMOutput: []byte("kem output"), Ciphertext: []byte("ciphertext")},
		{NewMember: bytes.Repeat([]byte{2}, 32)},
	}}
	f.Add(w.Bytes())
	f.Add((&keypackage.Welcome{}).Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := keypackage.ParseWelcome(b)
		if err == nil {
			wantEqual(t, "Bytes()", w.Bytes(), b)
		}
	})
}
