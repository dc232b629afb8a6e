package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/operator"
)

func identityImportCertCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "import-cert",
		Usage:     "make a chain of certificates the identity's credential",
		ArgsUsage: "NAME CHAIN.pem (- is standard input)",
		Description: `CHAIN.pem has the certificate for the identity's key first, then the one of its
issuer, and so on; the root may be left out. Before anything is stored, order,
signatures, validity, key usage, basic constraints and path length are checked, the
first certificate's key is compared with the token's, and the chain must lead to one
of the roots that x509.roots in the config names, if it names any. All faults are
reported at once. Revocation is not checked.

Key packages that are made from then on carry the chain, and end with it. Those made
before do not change. The same command imports a renewed certificate for the key.

Examples:
   hsm-kp identity import-cert gateway gateway-chain.pem
   cat gateway.pem issuing-ca.pem | hsm-kp identity import-cert gateway -`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			chain, err := readChain(u, c.Args().Get(1))
			if err != nil {
				return err
			}
			record, err := e.ImportCertificate(c.Context, c.Args().First(), chain)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(identityOf(&record))
			}
			u.printf("identity %q has %s now; %s\n", record.Name, operator.Plural(len(chain), "certificate"), endOf(chain))
			u.printf("%s\n", leafOf(chain))
			return nil
		}, "NAME", "CHAIN.pem"),
	}
}

// endOf says when a chain expires.
func endOf(chain certificate.Chain) string {
	_, notAfter := chain.Validity()
	return fmt.Sprintf("the chain ends at %s, %s", notAfter.UTC().Format(time.RFC3339), certificate.DaysLeft(notAfter, time.Now()))
}

// leafOf describes the first certificate of a chain.
func leafOf(chain certificate.Chain) string {
	return fmt.Sprintf("%s, serial %x, issued by %s",
		printable(orNone(chain[0].Subject.String())), chain[0].SerialNumber.Bytes(), printable(orNone(chain[0].Issuer.String())))
}
