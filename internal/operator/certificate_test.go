package operator

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
)

// gateway creates an identity that waits for certificates.
func (f *fixture) gateway(t *testing.T, name string) {
	t.Helper()
	if _, err := f.CreateIdentity(t.Context(), CreateIdentityRequest{Name: name, X509: true}); err != nil {
		t.Fatal(err)
	}
}

// trust makes a CA's certificate the config's root.
func (f *fixture) trust(t *testing.T, ca *certificatetest.CA) {
	t.Helper()
	f.settings.X509.Roots = filepath.Join(t.TempDir(), "roots.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate.Raw})
	if err := os.WriteFile(f.settings.X509.Roots, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// parseRequest reads a certification request, and checks its signature.
func parseRequest(t *testing.T, r CertificateRequested) *x509.CertificateRequest {
	t.Helper()
	block, rest := pem.Decode(r.PEM)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) != 0 {
		t.Fatalf("the request is %q", r.PEM)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// certified answers a request for a certificate with a chain of two.
func (f *fixture) certified(t *testing.T, ca *certificatetest.CA, r RequestCertificateRequest) certificate.Chain {
	t.Helper()
	requested, err := f.RequestCertificate(t.Context(), r)
	if err != nil {
		t.Fatalf("RequestCertificate() err = %v, want nil", err)
	}
	csr := parseRequest(t, requested)
	leaf := ca.Issue(t, csr.PublicKey, func(c *x509.Certificate) {
		c.RawSubject, c.Subject, c.DNSNames, c.EmailAddresses, c.URIs = csr.RawSubject, pkix.Name{}, csr.DNSNames, csr.EmailAddresses, csr.URIs
	})
	return certificate.Chain{leaf, ca.Certificate}
}

func TestCertifyAnIdentity(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		root := certificatetest.NewRoot(t)
		issuing := root.Sub(t, "issuing")
		f.trust(t, root)
		f.gateway(t, "gateway")

		chain := f.certified(t, issuing, RequestCertificateRequest{Identity: "gateway", DNSNames: []string{"gw.example.com"}})
		if e := f.lastEntry(t, "gateway"); e.Act != audit.Requested || e.Detail != "certificate for CN=gateway" || len(e.KeyID) == 0 {
			t.Errorf("the trail says %+v of the request", e)
		}
		record, err := f.ImportCertificate(t.Context(), "gateway", chain)
		if err != nil || !bytes.Equal(record.Credential, keypackage.X509Credential(chain.DER()).Bytes()) {
			t.Fatalf("ImportCertificate() = %+v, %v, want the chain", record, err)
		}
		details, err := f.Identity(t.Context(), "gateway")
		if err != nil || !bytes.Equal(details.Credential, record.Credential) {
			t.Fatalf("Identity() = %+v, %v, want the chain", details, err)
		}
		if _, err := f.OpenIdentity(t.Context(), &details.Identity); err != nil {
			t.Errorf("OpenIdentity() err = %v, want nil: the stamp is over the chain", err)
		}
		if len(f.reported.warnings) != 0 {
			t.Errorf("warnings are %v, want none", f.reported.warnings)
		}

		// A renewal requests the names in the certificate, unless the request has others.
		again, err := f.RequestCertificate(t.Context(), RequestCertificateRequest{Identity: "gateway"})
		if err != nil || !slices.Equal(again.DNSNames, []string{"gw.example.com"}) {
			t.Errorf("RequestCertificate() again = %+v, %v, want the names of the certificate", again.Request, err)
		}
		subject := "CN=Gateway 7,O=Example"
		other, err := f.RequestCertificate(t.Context(), RequestCertificateRequest{Identity: "gateway", Subject: &subject, URIs: []string{"spiffe://example.com/gw"}})
		if err != nil || other.Subject.String() != subject || len(other.DNSNames) != 0 || parseRequest(t, other).URIs[0].String() != "spiffe://example.com/gw" {
			t.Errorf("RequestCertificate() = %+v, %v, want what was asked for", other.Request, err)
		}
		if renewed, err := f.ImportCertificate(t.Context(), "gateway", f.certified(t, issuing, RequestCertificateRequest{Identity: "gateway"})); err != nil || bytes.Equal(renewed.Credential, record.Credential) {
			t.Errorf("ImportCertificate() of a renewed one = %v, want another chain", err)
		}
	})
}

func TestTheConfigSaysWhatACertificateIsAskedFor(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.settings.X509.Subject = "O=Example\\, Inc.,C=CH"
		f.settings.Identities = map[string]config.Identity{"own": {Subject: "CN=Own", Emails: []string{"own@example.com"}}}
		f.gateway(t, "gateway")
		f.gateway(t, "own")
		none := ""
		for _, c := range []struct {
			request RequestCertificateRequest
			subject string
			emails  []string
		}{
			{RequestCertificateRequest{Identity: "gateway"}, "CN=gateway,O=Example\\, Inc.,C=CH", nil},
			{RequestCertificateRequest{Identity: "own"}, "CN=Own", []string{"own@example.com"}},
			{RequestCertificateRequest{Identity: "own", Subject: &none}, "", []string{"own@example.com"}},
		} {
			got, err := f.RequestCertificate(t.Context(), c.request)
			if err != nil || got.Subject.String() != c.subject || !slices.Equal(got.Emails, c.emails) {
				t.Errorf("RequestCertificate(%+v) = %+v, %v, want %s and %v", c.request, got.Request, err, c.subject, c.emails)
			}
		}
		for what, r := range map[string]RequestCertificateRequest{
			"nobody":      {Identity: "gateway", Subject: &none},
			"no DNS name": {Identity: "gateway", DNSNames: []string{"https://example.com"}},
		} {
			var refused *act.RequestError
			if _, err := f.RequestCertificate(t.Context(), r); !errors.As(err, &refused) {
				t.Errorf("RequestCertificate() for %s err = %v, want a RequestError", what, err)
			}
		}
		if _, err := f.RequestCertificate(t.Context(), RequestCertificateRequest{Identity: "nobody"}); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("RequestCertificate(nobody) err = %v, want %v", err, ErrNoIdentity)
		}
	})
}

func TestTheNextKeyIsCertifiedBeforeItSigns(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		f.gateway(t, "gateway")
		first, err := f.RequestCertificate(t.Context(), RequestCertificateRequest{Identity: "gateway", Next: true})
		if err != nil {
			t.Fatal(err)
		}
		second, err := f.RequestCertificate(t.Context(), RequestCertificateRequest{Identity: "gateway", Next: true})
		if err != nil {
			t.Fatal(err)
		}
		details, err := f.Identity(t.Context(), "gateway")
		if err != nil || len(details.Versions) != 2 || details.Version != 1 || details.Versions[1].State != store.Next {
			t.Fatalf("Identity() = %+v, %v, want a next version beside the current one", details, err)
		}
		if a, b := parseRequest(t, first).RawSubjectPublicKeyInfo, parseRequest(t, second).RawSubjectPublicKeyInfo; !bytes.Equal(a, b) {
			t.Error("two requests for the next key are for different keys")
		}
		if bytes.Equal(details.Versions[1].KeyID, details.Versions[0].KeyID) {
			t.Error("the next version has the key of the current one")
		}
		f.nothingUnfinished(t)
	})
}

func TestARefusedChainChangesNothing(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		root, stranger := certificatetest.NewRoot(t), certificatetest.NewRoot(t)
		f.trust(t, root)
		f.gateway(t, "gateway")
		f.gateway(t, "other")
		chain := f.certified(t, root, RequestCertificateRequest{Identity: "gateway"})
		public := chain[0].PublicKey
		expired := root.Issue(t, public, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.Add(time.Hour) })
		before := f.entries(t, "gateway")
		for what, refused := range map[string]certificate.Chain{
			"another key":       f.certified(t, root, RequestCertificateRequest{Identity: "other"}),
			"an unknown root":   {stranger.Issue(t, public), stranger.Certificate},
			"the wrong order":   {root.Certificate, chain[0]},
			"expired":           {expired, root.Certificate},
			"an issuer missing": {root.Sub(t, "sub").Issue(t, public), root.Certificate},
		} {
			var fault *identity.ChainError
			if _, err := f.ImportCertificate(t.Context(), "gateway", refused); !errors.As(err, &fault) {
				t.Errorf("ImportCertificate() of %s err = %v, want a ChainError", what, err)
			}
		}
		var refused *act.RequestError
		if _, err := f.ImportCertificate(t.Context(), "gateway", nil); !errors.As(err, &refused) {
			t.Errorf("ImportCertificate() of nothing err = %v, want a RequestError", err)
		}
		if _, err := f.ImportCertificate(t.Context(), "nobody", chain); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("ImportCertificate() for nobody err = %v, want %v", err, ErrNoIdentity)
		}
		if after := f.entries(t, "gateway"); len(after) != len(before) {
			t.Errorf("the trail has %+v beside what it had", after[len(before):])
		}
		details, err := f.Identity(t.Context(), "gateway")
		if credential, _ := credentialOf(&details.Identity); err != nil || len(credential.Certificates) != 0 {
			t.Errorf("Identity() = %+v, %v, want no certificate", details, err)
		}
	})
}

func TestAChainThatNobodyVouchesForIsWarnedOf(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		root := certificatetest.NewRoot(t)
		f.gateway(t, "gateway")
		chain := f.certified(t, root.Sub(t, "issuing"), RequestCertificateRequest{Identity: "gateway"})
		if _, err := f.ImportCertificate(t.Context(), "gateway", chain[:1]); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"the end of the chain was not checked", `peers must have that of its issuer, "CN=issuing"`} {
			if !f.warned(text) {
				t.Errorf("warnings are %v, want %q among them", f.reported.warnings, text)
			}
		}
	})
}

// A record that was tampered with is not stamped again with a chain.
func TestAChangedRecordIsNotCertified(t *testing.T) {
	onBothStores(t, func(t *testing.T, f *fixture) {
		root := certificatetest.NewRoot(t)
		f.gateway(t, "gateway")
		chain := f.certified(t, root, RequestCertificateRequest{Identity: "gateway"})
		record, err := f.store.Identity(t.Context(), "gateway")
		if err != nil {
			t.Fatal(err)
		}
		was := record.Stamp
		record.Credential = keypackage.BasicCredential([]byte("mallory")).Bytes()
		if err := f.store.ChangeIdentity(t.Context(), record, was, f.clock.Now()); err != nil {
			t.Fatal(err)
		}
		if _, err := f.ImportCertificate(t.Context(), "gateway", chain); !errors.Is(err, vault.ErrStamp) {
			t.Errorf("ImportCertificate() err = %v, want %v", err, vault.ErrStamp)
		}
		if e := f.lastEntry(t, "gateway"); e.Act != audit.Refused {
			t.Errorf("the trail says %+v, want a refusal", e)
		}
	})
}
