package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/directory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func identityCSRCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "csr",
		Usage:     "make a certification request, signed with the identity's key in the token",
		ArgsUsage: "NAME",
		Description: `Prints a PKCS #10 request in PEM. A CA answers it with a certificate, which
"hsm-kp identity import-cert" imports. The subject is CN=NAME followed by x509.subject
of the config, unless identities.NAME.subject or --subject gives another, in the form
of RFC 4514: the most specific part first. The alternative names are those of the
command line, if it has any, or those of the config. An identity that has a
certificate requests the names in it, unless the config or the command line gives others.

Certificates are for P-256, P-384, P-521 and Ed25519 keys: suites 1, 2, 3, 5 and 7.

Examples:
   hsm-kp identity csr gateway >gateway.csr
   hsm-kp identity csr gateway --subject "CN=Gateway 7,O=Example,C=CH" \
      --dns gateway-7.example.com --uri spiffe://example.com/gateway/7
   hsm-kp identity csr gateway --out gateway.csr && openssl req -in gateway.csr -text`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "subject", Usage: "request the distinguished name `DN`", DefaultText: "the config's"},
			&cli.StringSliceFlag{Name: "dns", Usage: "request the DNS name `NAME`; may be repeated"},
			&cli.StringSliceFlag{Name: "email", Usage: "request the e-mail `ADDRESS`; may be repeated"},
			&cli.StringSliceFlag{Name: "uri", Usage: "request the `URI`; may be repeated"},
			&cli.BoolFlag{Name: "next", Usage: "for the identity's next signature key; makes the key if there is none yet: see identity rotate"},
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write to `FILE` instead of standard output"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "NAME"); err != nil {
				return err
			}
			switch {
			case c.IsSet("out") && c.String("out") == "":
				return usagef("identity csr: --out names no file")
			case c.IsSet("out") && c.Bool("json"):
				return usagef("identity csr: --json is for standard output, and --out for a file")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			r := operator.RequestCertificateRequest{
				Identity: c.Args().First(), Next: c.Bool("next"),
				DNSNames: c.StringSlice("dns"), Emails: c.StringSlice("email"), URIs: c.StringSlice("uri"),
			}
			if subject := c.String("subject"); c.IsSet("subject") {
				r.Subject = &subject
			}
			requested, err := e.RequestCertificate(c.Context, r)
			if err != nil {
				return err
			}
			return u.writeRequest(&requested, c.String("out"), c.Bool("json"))
		},
	}
}

// requestJSON is what `identity csr --json` prints.
type requestJSON struct {
	Subject  string   `json:"subject"`
	DNSNames []string `json:"dns_names,omitempty"`
	Emails   []string `json:"emails,omitempty"`
	URIs     []string `json:"uris,omitempty"`
	PEM      string   `json:"pem"`
}

// writeRequest writes a request to a file, or prints it.
func (u *ui) writeRequest(r *operator.CertificateRequested, file string, asJSON bool) error {
	subject := r.Subject.String()
	switch {
	case asJSON:
		return u.json(requestJSON{subject, r.DNSNames, r.Emails, r.URIs, string(r.PEM)})
	case file == "":
		u.printf("%s", r.PEM)
		return nil
	}
	if err := directory.ReplaceFile(file, r.PEM, 0o644); err != nil {
		return fmt.Errorf("write certification request: %w", err)
	}
	u.notef("wrote a request for %q to %s", subject, file)
	return nil
}
