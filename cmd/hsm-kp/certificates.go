package main

import (
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// certificateJSON is the JSON form of one certificate of a chain.
type certificateJSON struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"` // hexadecimal
	Key       string    `json:"key"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	DNSNames  []string  `json:"dns_names,omitempty"`
	Emails    []string  `json:"emails,omitempty"`
	URIs      []string  `json:"uris,omitempty"`
}

// readChain reads a chain in PEM, the end entity's certificate first, from a file or, for -,
// from standard input.
func readChain(u *ui, name string) (certificate.Chain, error) {
	text, err := readInput(u, name, maxKeyPackageBytes)
	if err != nil {
		return nil, err
	}
	chain, err := certificate.ParsePEM(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return chain, nil
}

func certificatesOf(chain certificate.Chain) []certificateJSON {
	out := make([]certificateJSON, len(chain))
	for i, c := range chain {
		out[i] = certificateJSON{
			Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: fmt.Sprintf("%x", c.SerialNumber.Bytes()), Key: certificate.KeyName(c),
			NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), DNSNames: c.DNSNames, Emails: c.EmailAddresses,
		}
		for _, u := range c.URIs {
			out[i].URIs = append(out[i].URIs, u.String())
		}
	}
	return out
}

// printCertificates writes the chain of an x509 credential, two lines for each
// certificate. It does not report malformed chains: verify does.
func printCertificates(u *ui, indent string, c keypackage.Credential) {
	if c.Type != keypackage.CredentialX509 || len(c.Certificates) == 0 {
		return
	}
	chain, err := certificate.Parse(c.Certificates)
	if err != nil {
		u.printf("%s%s\n", indent, printable(err.Error()))
		return
	}
	for i, c := range certificatesOf(chain) {
		u.printf("%s%d  %s, %s to %s\n", indent, i, printable(orNone(c.Subject)), c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
		u.printf("%s   %s key, issued by %s\n", indent, c.Key, printable(orNone(c.Issuer)))
	}
}

func orNone(name string) string {
	if name == "" {
		return "(no subject)"
	}
	return name
}
