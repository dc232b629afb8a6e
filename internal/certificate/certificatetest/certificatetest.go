// Package certificatetest is a certification authority for tests.
package certificatetest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// A Change makes a certificate other than the CA would.
type Change func(*x509.Certificate)

// CA is a CA with a key of P-256, unless it was made with another.
type CA struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// NewRoot makes a CA that certifies itself from 2020 to 2060, for all uses.
func NewRoot(tb testing.TB, changes ...Change) *CA {
	tb.Helper()
	return NewRootWithKey(tb, NewKey(tb), changes...)
}

// NewRootWithKey is NewRoot for a key of any kind.
func NewRootWithKey(tb testing.TB, key crypto.Signer, changes ...Change) *CA {
	tb.Helper()
	ca := &CA{Key: key}
	ca.Certificate = ca.sign(tb, caTemplate("root"), nil, key.Public(), changes)
	return ca
}

// Sub makes a CA below ca.
func (ca *CA) Sub(tb testing.TB, name string, changes ...Change) *CA {
	tb.Helper()
	key := NewKey(tb)
	return &CA{Certificate: ca.sign(tb, caTemplate(name), ca.Certificate, key.Public(), changes), Key: key}
}

// Issue makes an end entity's certificate, from 2020 to 2060.
func (ca *CA) Issue(tb testing.TB, public crypto.PublicKey, changes ...Change) *x509.Certificate {
	tb.Helper()
	return ca.sign(tb, &x509.Certificate{
		Subject:   pkix.Name{CommonName: "alice"},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:  time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:  x509.KeyUsageDigitalSignature,
		DNSNames:  []string{"alice.example.com"},
	}, ca.Certificate, public, changes)
}

// NewKey makes a key of P-256.
func NewKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
}

// sign makes a certificate below parent, or one that certifies itself.
func (ca *CA) sign(tb testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, changes []Change) *x509.Certificate {
	tb.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 64))
	if err != nil {
		tb.Fatal(err)
	}
	template.SerialNumber = serial
	for _, change := range changes {
		change(template)
	}
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, ca.Key)
	if err != nil {
		tb.Fatalf("CreateCertificate() err = %v, want nil", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatalf("ParseCertificate() err = %v, want nil", err)
	}
	return certificate
}
