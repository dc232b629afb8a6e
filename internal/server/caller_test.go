package server

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"slices"
	"testing"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
)

// withNames puts URIs into the certificate byte for byte, where Certificate.URIs would parse them.
func withNames(uris ...string) certificatetest.Change {
	return func(c *x509.Certificate) {
		var b cryptobyte.Builder
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
			for _, u := range uris {
				b.AddASN1(cbasn1.Tag(6).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes([]byte(u)) })
			}
		})
		c.DNSNames = nil
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: subjectAltName, Value: b.BytesOrPanic()})
	}
}

func TestURIsAreReadAsTheyAre(t *testing.T) {
	ca := certificatetest.NewRoot(t)
	for _, uris := range [][]string{{"spiffe://example.com/app"}, {"SPIFFE://example.com/app"}, {"spiffe://example.com/app#"}, {"spiffe://a", "spiffe://b"}} {
		c := ca.Issue(t, certificatetest.NewKey(t).Public(), withNames(uris...))
		if got := callerOf(c); !slices.Equal(got.URIs, uris) {
			t.Errorf("callerOf() URIs = %q, want %q", got.URIs, uris)
		}
	}
	c := ca.Issue(t, certificatetest.NewKey(t).Public(), func(c *x509.Certificate) {
		c.DNSNames, c.URIs = []string{"a.example"}, []*url.URL{{Scheme: "spiffe", Host: "a"}}
	})
	if got := callerOf(c); !slices.Equal(got.URIs, []string{"spiffe://a"}) || !slices.Equal(got.DNSNames, []string{"a.example"}) {
		t.Errorf("callerOf() = %+v, want one URI and one DNS name", got)
	}
	if got, want := (Caller{URIs: []string{"spiffe://a", "spiffe://b"}}).String(), "uri:spiffe://a,uri:spiffe://b"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}

// A subject with two common names is neither.
func TestASubjectIsAllOfIt(t *testing.T) {
	ca := certificatetest.NewRoot(t)
	commonName := asn1.ObjectIdentifier{2, 5, 4, 3}
	rule := Rule{Subjects: []string{"CN=op"}}
	for _, tt := range []struct {
		names []string
		want  bool
	}{{[]string{"op"}, true}, {[]string{"mallory", "op"}, false}, {[]string{"op", "mallory"}, false}, {[]string{"op,CN=x"}, false}} {
		c := ca.Issue(t, certificatetest.NewKey(t).Public(), func(c *x509.Certificate) {
			c.DNSNames = nil
			var subject pkix.RDNSequence
			for _, n := range tt.names {
				subject = append(subject, pkix.RelativeDistinguishedNameSET{{Type: commonName, Value: n}})
			}
			der, err := asn1.Marshal(subject)
			if err != nil {
				t.Fatal(err)
			}
			c.RawSubject = der
		})
		if got := rule.is(callerOf(c)); got != tt.want {
			t.Errorf("%q: is() = %v for %q, want %v", tt.names, got, callerOf(c).Subject, tt.want)
		}
	}
}
