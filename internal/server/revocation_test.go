package server

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate/certificatetest"
)

var listTime = time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)

// listOf makes a revocation list of a CA that is current for a day, unless it is changed.
func listOf(t *testing.T, ca *certificatetest.CA, change func(*x509.RevocationList), revoked ...*x509.Certificate) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: listTime.Add(-time.Hour), NextUpdate: listTime.Add(24 * time.Hour)}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: listTime})
	}
	if change != nil {
		change(list)
	}
	issuer := *ca.Certificate
	issuer.KeyUsage |= x509.KeyUsageCRLSign // else crypto/x509 does not sign
	der, err := x509.CreateRevocationList(rand.Reader, list, &issuer, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// load loads lists for authorities.
func load(t *testing.T, authorities []*x509.Certificate, lists ...[]byte) (revocation, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lists.pem")
	if err := os.WriteFile(path, bytes.Join(lists, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadCRLs(path, authorities)
}

func stale(l *x509.RevocationList) { l.NextUpdate = listTime.Add(-time.Minute) }

func TestACertificateIsGoodOnlyIfItsIssuersListSaysSo(t *testing.T) {
	root := certificatetest.NewRoot(t)
	middle := root.Sub(t, "middle")
	other := certificatetest.NewRoot(t, func(c *x509.Certificate) { c.Subject.CommonName = "other" })
	authorities := []*x509.Certificate{root.Certificate, middle.Certificate, other.Certificate}
	good, bad := middle.Issue(t, certificatetest.NewKey(t).Public()), middle.Issue(t, certificatetest.NewKey(t).Public())
	chain := func(c *x509.Certificate) []*x509.Certificate {
		return []*x509.Certificate{c, middle.Certificate, root.Certificate}
	}
	future := func(l *x509.RevocationList) { l.ThisUpdate = listTime.Add(time.Minute) }
	for name, tt := range map[string]struct {
		lists [][]byte
		of    *x509.Certificate
		want  error
	}{
		"good":                                {[][]byte{listOf(t, root, nil), listOf(t, middle, nil, bad)}, good, nil},
		"revoked":                             {[][]byte{listOf(t, root, nil), listOf(t, middle, nil, bad)}, bad, errRevoked},
		"its issuer is revoked":               {[][]byte{listOf(t, root, nil, middle.Certificate), listOf(t, middle, nil)}, good, errRevoked},
		"no list of its issuer":               {[][]byte{listOf(t, root, nil), listOf(t, other, nil)}, good, errNoCRL},
		"no list of its issuer's issuer":      {[][]byte{listOf(t, middle, nil)}, good, errNoCRL},
		"its issuer's list is out of date":    {[][]byte{listOf(t, root, nil), listOf(t, middle, stale)}, good, errStaleCRL},
		"its issuer's list is of the future":  {[][]byte{listOf(t, root, nil), listOf(t, middle, future)}, good, errFutureCRL},
		"an old list beside the current one":  {[][]byte{listOf(t, root, nil), listOf(t, middle, stale), listOf(t, middle, nil)}, good, nil},
		"the current one beside an old list":  {[][]byte{listOf(t, root, nil), listOf(t, middle, nil), listOf(t, middle, stale)}, good, nil},
		"revoked by the old one":              {[][]byte{listOf(t, root, nil), listOf(t, middle, nil), listOf(t, middle, stale, bad)}, bad, errRevoked},
		"another CA has revoked the same one": {[][]byte{listOf(t, root, nil), listOf(t, middle, nil), listOf(t, other, nil, good)}, good, nil},
	} {
		r, err := load(t, authorities, tt.lists...)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := r.check([][]*x509.Certificate{chain(tt.of)}, listTime); !errors.Is(err, tt.want) {
			t.Errorf("%s: check() err = %v, want %v", name, err, tt.want)
		}
	}
	var none revocation
	if err := none.check([][]*x509.Certificate{chain(bad)}, listTime); err != nil {
		t.Errorf("without crl: check() err = %v, want nil", err)
	}
	r, err := load(t, authorities, listOf(t, root, nil), listOf(t, middle, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.check(nil, listTime); !errors.Is(err, errNoCRL) {
		t.Errorf("without a chain: check() err = %v, want %v", err, errNoCRL)
	}
}

// A list that could not be used is refused when it is read, and not when it would have been needed.
func TestAListThatCannotBeUsedIsRefused(t *testing.T) {
	root := certificatetest.NewRoot(t)
	namesake, stranger := certificatetest.NewRoot(t), certificatetest.NewRoot(t, func(c *x509.Certificate) { c.Subject.CommonName = "stranger" })
	mute := certificatetest.NewRoot(t, func(c *x509.Certificate) {
		c.Subject.CommonName, c.KeyUsage = "mute", x509.KeyUsageCertSign
	})
	renamed := &certificatetest.CA{Key: root.Key, Certificate: stranger.Certificate}
	damaged, _ := pem.Decode(listOf(t, root, nil))
	damaged.Bytes[len(damaged.Bytes)-1] ^= 1
	critical := func(id ...int) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier(id), Critical: true, Value: []byte{0x02, 0x01, 0x01}})
		}
	}
	authorities := []*x509.Certificate{root.Certificate, mute.Certificate}
	for name, tt := range map[string]struct {
		list []byte
		want error
	}{
		"of a CA that client_ca does not have": {listOf(t, stranger, nil), errListSigner},
		"of another key of the same name":      {listOf(t, namesake, nil), errListSigner},
		"of the same key by another name":      {listOf(t, renamed, nil), errListSigner},
		"of a CA that may not sign lists":      {listOf(t, mute, nil), errListSigner},
		"with a damaged signature":             {pem.EncodeToMemory(damaged), errListSigner},
		"a delta":                              {listOf(t, root, critical(2, 5, 29, 27)), errListIncomplete},
		"of one distribution point":            {listOf(t, root, critical(2, 5, 29, 28)), errListIncomplete},
		"an indirect one": {listOf(t, root, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(7), RevocationTime: listTime,
				ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}}}
		}), errListIncomplete},
	} {
		if _, err := load(t, authorities, listOf(t, root, nil), tt.list); !errors.Is(err, tt.want) {
			t.Errorf("%s: load err = %v, want %v", name, err, tt.want)
		}
	}
	if _, err := load(t, authorities, []byte("no list")); err == nil {
		t.Error("no list: load err = nil")
	}
}
