package main

import (
	"context"
	"crypto"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
)

func identityCSRCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "csr",
		Usage:     "make a certification request, signed with the identity's key in the token",
		ArgsUsage: "NAME",
		Description: `Prints a PKCS #10 request in PEM, for a CA to turn into a certificate, which
"hsm-kp identity import-cert" takes. The subject is CN=NAME and what x509.subject
in the config says, or what identities.NAME.subject or --subject says, in the form
of RFC 4514: the most specific part first. The alternative names are those of the
config, or those of the command line where it has any. An identity that has a
certificate asks for the names that are in it, where neither says others.

Certificates are for P-256, P-384, P-521 and Ed25519 keys: suites 1, 2, 3, 5 and 7.

Examples:
   hsm-kp identity csr gateway >gateway.csr
   hsm-kp identity csr gateway --subject "CN=Gateway 7,O=Example,C=CH" \
      --dns gateway-7.example.com --uri spiffe://example.com/gateway/7
   hsm-kp identity csr gateway --out gateway.csr && openssl req -in gateway.csr -text`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "subject", Usage: "ask for the distinguished name `DN`", DefaultText: "the config's"},
			&cli.StringSliceFlag{Name: "dns", Usage: "ask for the DNS name `NAME`; may be repeated"},
			&cli.StringSliceFlag{Name: "email", Usage: "ask for the e-mail `ADDRESS`; may be repeated"},
			&cli.StringSliceFlag{Name: "uri", Usage: "ask for the `URI`; may be repeated"},
			&cli.BoolFlag{Name: "next", Usage: "for the identity's next signature key, which is made where there is none yet: see identity rotate"},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write to `FILE` instead of standard output"},
			jsonFlag,
		},
		Action: with(u, func(c *cli.Context, e *env) error {
			name := c.Args().First()
			request, err := e.certificateRequest(c, name)
			if err != nil {
				return err
			}
			id, err := e.openToCertify(c.Context, name, c.Bool("next"))
			if err != nil {
				return err
			}
			der, err := request.DER(id.Signer)
			if err != nil {
				return fmt.Errorf("identity %q: %w", name, err)
			}
			if err := e.recordRequest(c.Context, name, id.Signer, request); err != nil {
				return err
			}
			return writeRequest(u, c, request, der)
		}, "NAME"),
	}
}

// recordRequest puts into the trail that a certificate was asked for.
func (e *env) recordRequest(ctx context.Context, name string, key crypto.Signer, r certificate.Request) error {
	return e.store.Record(ctx, audit.Entry{
		Time: time.Now(), Act: audit.Requested, Identity: name, KeyID: keyIDOf(key), Detail: fmt.Sprintf("certificate for %.200s", r.Subject.String()),
	})
}

// keyIDOf returns the CKA_ID of a signer in the token.
func keyIDOf(s crypto.Signer) []byte {
	if key, ok := s.(*signer.Key); ok {
		return key.ID()
	}
	return nil
}

// certificateRequest puts together what to ask for: each part from the command line, else
// from the config's identities, else from the certificate that the identity has, else from
// the rest of the config.
func (e *env) certificateRequest(c *cli.Context, name string) (certificate.Request, error) {
	own := e.config.Identities[name]
	r, err := e.renewal(c.Context, name)
	if err != nil {
		return r, err
	}
	if subject, asked := e.subjectOf(c, name); asked || len(r.Subject) == 0 {
		if r.Subject, err = certificate.ParseName(subject); err != nil {
			return r, usagef("identity csr: %v", err)
		}
	}
	switch {
	case c.IsSet("dns") || c.IsSet("email") || c.IsSet("uri"):
		r.DNSNames, r.Emails, r.URIs = c.StringSlice("dns"), c.StringSlice("email"), c.StringSlice("uri")
	case len(own.DNSNames)+len(own.Emails)+len(own.URIs) > 0:
		r.DNSNames, r.Emails, r.URIs = own.DNSNames, own.Emails, own.URIs
	}
	if err := r.Check(); err != nil {
		return r, usagef("identity csr: %v", err)
	}
	return r, nil
}

// subjectOf is the subject of an identity, and whether it was said for this one.
func (e *env) subjectOf(c *cli.Context, name string) (subject string, asked bool) {
	if c.IsSet("subject") {
		return c.String("subject"), true
	}
	return e.configSubject(name)
}

// configSubject is the subject of an identity by the config, and whether that says it for this
// one.
func (e *env) configSubject(name string) (subject string, asked bool) {
	if own := e.config.Identities[name].Subject; own != "" {
		return own, true
	}
	if e.config.X509.Subject != "" {
		return "CN=" + certificate.EscapeValue(name) + "," + e.config.X509.Subject, false
	}
	return "CN=" + certificate.EscapeValue(name), false
}

// renewal asks for what the certificate of an identity says, where it has one.
func (e *env) renewal(ctx context.Context, name string) (certificate.Request, error) {
	record, err := e.Record(ctx, name)
	if err != nil {
		return certificate.Request{}, err
	}
	credential, err := keypackage.ParseCredential(record.Credential)
	if err != nil {
		return certificate.Request{}, fmt.Errorf("read stored credential of %q: %w", name, err)
	}
	if credential.Type != keypackage.CredentialX509 || len(credential.Certificates) == 0 {
		return certificate.Request{}, nil
	}
	chain, err := credential.Chain()
	if err != nil {
		return certificate.Request{}, fmt.Errorf("read the certificates of %q: %w", name, err)
	}
	return certificate.Renewal(chain[0])
}

// requestJSON is what `identity csr --json` prints.
type requestJSON struct {
	Subject  string   `json:"subject"`
	DNSNames []string `json:"dns_names,omitempty"`
	Emails   []string `json:"emails,omitempty"`
	URIs     []string `json:"uris,omitempty"`
	PEM      string   `json:"pem"`
}

func writeRequest(u *ui, c *cli.Context, r certificate.Request, der []byte) error {
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	out := c.String("out")
	switch {
	case c.IsSet("out") && out == "":
		return usagef("identity csr: --out names no file")
	case out != "" && c.Bool("json"):
		return usagef("identity csr: --json is for standard output, and --out for a file")
	case out != "":
		if err := directory.ReplaceFile(out, text, 0o644); err != nil {
			return fmt.Errorf("write certification request: %w", err)
		}
		u.notef("wrote a request for %q to %s", r.Subject.String(), out)
		return nil
	case c.Bool("json"):
		return u.json(requestJSON{r.Subject.String(), r.DNSNames, r.Emails, r.URIs, string(text)})
	}
	u.printf("%s", text)
	return nil
}
