package certificate_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign/ed448"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
)

func TestRequestOfEveryKind(t *testing.T) {
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	subject, err := certificate.ParseName("CN=relay 7,OU=Messaging,O=Example\\, Inc.,C=CH")
	if err != nil {
		t.Fatalf("ParseName() err = %v, want nil", err)
	}
	r := certificate.Request{Subject: subject, DNSNames: []string{"relay-7.example.com"},
		Emails: []string{"relay-7@example.com"}, URIs: []string{"spiffe://example.com/relay/7"}}
	for _, key := range []crypto.Signer{certificatetest.NewKey(t), p521, edKey} {
		der, err := r.DER(key)
		if err != nil {
			t.Fatalf("DER() err = %v, want nil", err)
		}
		got, err := x509.ParseCertificateRequest(der)
		if err != nil {
			t.Fatal(err)
		}
		if got.Subject.String() != "CN=relay 7,OU=Messaging,O=Example\\, Inc.,C=CH" {
			t.Errorf("subject = %s", got.Subject)
		}
		if len(got.DNSNames) != 1 || len(got.EmailAddresses) != 1 || len(got.URIs) != 1 || got.URIs[0].String() != r.URIs[0] {
			t.Errorf("alternative names = %v %v %v, want one each", got.DNSNames, got.EmailAddresses, got.URIs)
		}
	}
}

func TestRequestIsRefused(t *testing.T) {
	_, ed448Key, err := ed448.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (certificate.Request{DNSNames: []string{"a.example"}}).DER(ed448Key); !errors.Is(err, certificate.ErrKey) {
		t.Errorf("DER() of an Ed448 key err = %v, want ErrKey", err)
	}
	key := certificatetest.NewKey(t)
	for name, r := range map[string]certificate.Request{
		"nobody":      {},
		"no DNS name": {DNSNames: []string{"https://a.example"}},
		"no address":  {Emails: []string{"Alice <a@a.example>"}},
		"two dots":    {DNSNames: []string{"a..b"}},
		"newline":     {DNSNames: []string{"a.example\n"}},
		"shell":       {DNSNames: []string{"$(x).example"}},
		"star within": {DNSNames: []string{"a.*.example"}},
		"no ASCII":    {Emails: []string{"jürg@a.example"}},
		"no URI":      {URIs: []string{"a.example"}},
	} {
		if _, err := r.DER(key); err == nil {
			t.Errorf("%s: DER() err = nil, want one", name)
		}
	}
}

// crypto/x509 parses the DER to the name that the text of RFC 4514 states.
func TestParseName(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "",
		"CN=alice":                         "CN=alice",
		"cn = alice , o=Example":           "CN=alice,O=Example",
		`CN=\ two  spaces \ ,C=CH`:         `CN=\ two  spaces \ ,C=CH`,
		`CN=a\,b\+c\"d\\e\<f\>g\;h`:        `CN=a\,b\+c\"d\\e\<f\>g\;h`,
		`CN=\#1`:                           `CN=\#1`,
		`CN=J\C3\BCrg`:                     `CN=Jürg`,
		"CN=Jürg,ST=Zürich":                "CN=Jürg,ST=Zürich",
		"SERIALNUMBER=1234,O=Example":      "SERIALNUMBER=1234,O=Example",
		"CN=alice+SERIALNUMBER=7,O=A":      "CN=alice+SERIALNUMBER=7,O=A",
		"OU=Devices,OU=Messaging,O=A,C=CH": "OU=Devices,OU=Messaging,O=A,C=CH",
	} {
		name, err := certificate.ParseName(text)
		if err != nil {
			t.Errorf("ParseName(%q) err = %v, want nil", text, err)
			continue
		}
		if got := name.String(); got != want {
			t.Errorf("ParseName(%q) = %q, want %q", text, got, want)
		}
	}
	name, err := certificate.ParseName("DC=example,DC=com,emailAddress=a@b.c,1.3.6.1.4.1.99999.1=x")
	if err != nil || len(name) != 4 || !name[0][0].Type.Equal([]int{1, 3, 6, 1, 4, 1, 99999, 1}) {
		t.Errorf("ParseName() = %v, %v, want four parts, the last first", name, err)
	}
}

func TestParseNameRefuses(t *testing.T) {
	for _, text := range []string{"alice", "=alice", "CN=", "CN= ", "XX=a", "CN=a,", "CN=a,,O=b", `CN=a\`, `CN=a\g`, `CN=a\C`, "CN=#0500",
		"CN=a;O=b", `CN="a"`, "C=CHE", "C=1!", "C=é", "CN=\xff", `CN=\FF`, "DC=ü", "9.9.9=a", "1.a=b", "CN=a\x00b", "CN=a+"} {
		if name, err := certificate.ParseName(text); err == nil {
			t.Errorf("ParseName(%q) = %v, want an error", text, name)
		}
	}
}

func FuzzParseName(f *testing.F) {
	f.Add(`CN=a\,b,O=c+OU=d`)
	f.Fuzz(func(t *testing.T, text string) {
		name, err := certificate.ParseName(text)
		if err != nil {
			return
		}
		if len(name) == 0 && strings.TrimSpace(text) != "" {
			t.Errorf("ParseName(%q) = nothing", text)
		}
		_, err = certificate.Request{Subject: name, DNSNames: []string{"a.example"}}.DER(certificatetest.NewKey(t))
		if err != nil {
			t.Errorf("ParseName(%q) = %v, which cannot be asked for: %v", text, name, err)
		}
	})
}

func TestParsePEM(t *testing.T) {
	root := certificatetest.NewRoot(t)
	leaf := root.Issue(t, certificatetest.NewKey(t).Public())
	block := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	text := "subject: alice\n" + block("CERTIFICATE", leaf.Raw) + "\nissuer: root\n" + block("CERTIFICATE", root.Certificate.Raw)
	chain, err := certificate.ParsePEM([]byte("\ufeff" + text))
	if err != nil || len(chain) != 2 || !bytes.Equal(chain.DER()[0], leaf.Raw) || !bytes.Equal(chain.DER()[1], root.Certificate.Raw) {
		t.Errorf("ParsePEM() = %v, %v, want both certificates in order", chain, err)
	}
	for name, text := range map[string]string{
		"nothing":     "",
		"DER":         string(leaf.Raw),
		"private key": block("CERTIFICATE", leaf.Raw) + block("PRIVATE KEY", []byte{1}),
		"cut short":   block("CERTIFICATE", leaf.Raw) + block("CERTIFICATE", root.Certificate.Raw)[:200],
		"key damaged": block("CERTIFICATE", leaf.Raw) + "-----BEGIN PRIVATE KEY-----\n*\n-----END PRIVATE KEY-----\n",
		"damaged":     block("CERTIFICATE", leaf.Raw[:40]),
	} {
		if _, err := certificate.ParsePEM([]byte(text)); !errors.Is(err, certificate.ErrMalformed) {
			t.Errorf("%s: ParsePEM() err = %v, want ErrMalformed", name, err)
		}
	}
}

func TestEscapedValuesComeBack(t *testing.T) {
	for _, value := range []string{"alice", " a, b ", `"\\+;<>=#`, "#1", "Jürg", "a\x01b"} {
		name, err := certificate.ParseName("CN=" + certificate.EscapeValue(value))
		if err != nil || len(name) != 1 || name[0][0].Value != value {
			t.Errorf("ParseName(EscapeValue(%q)) = %v, %v, want the value", value, name, err)
		}
	}
}
