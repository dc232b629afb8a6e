package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func identityImportCertCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "import-cert",
		Usage:     "make a chain of certificates the identity's credential",
		ArgsUsage: "NAME CHAIN.pem (- is standard input)",
		Description: `CHAIN.pem has the certificate for the identity's key first, then the one of its
issuer, and so on; the root may be left out. Before anything is kept, order,
signatures, validity, key usage, basic constraints and path length are checked, the
first certificate's key is compared with the token's, and the chain must lead to one
of the roots that x509.roots in the config names, where it names any. All faults are
told at once. Revocation is not checked.

Key packages that are made from then on carry the chain, and end with it. Those made
before stay as they are. The same command takes a renewed certificate for the key.

Examples:
   hsm-kp identity import-cert gateway gateway-chain.pem
   cat gateway.pem issuing-ca.pem | hsm-kp identity import-cert gateway -`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			chain, err := readChain(u, c.Args().Get(1))
			if err != nil {
				return err
			}
			record, err := e.importChain(c.Context, c.Args().First(), chain)
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

// endOf says when a chain ends.
func endOf(chain certificate.Chain) string {
	_, notAfter := chain.Validity()
	return fmt.Sprintf("the chain ends at %s, %s", notAfter.UTC().Format(time.RFC3339), operator.DaysLeft(notAfter, time.Now()))
}

// leafOf says whose the first certificate of a chain is.
func leafOf(chain certificate.Chain) string {
	return fmt.Sprintf("%s, serial %x, issued by %s",
		printable(orNone(chain[0].Subject.String())), chain[0].SerialNumber.Bytes(), printable(orNone(chain[0].Issuer.String())))
}

// checkChain checks a chain for the key of an identity, with all that the config asks for, and
// warns of what it does not ask for.
func (e *env) checkChain(chain certificate.Chain, id *store.Identity) error {
	roots, err := operator.LoadRoots(e.config.X509.Roots)
	if err != nil {
		return err
	}
	if err := identity.CheckChain(chain, id.SignatureKey, certificate.Options{Now: time.Now(), Roots: roots}); err != nil {
		return fmt.Errorf("identity %q: %w", id.Name, err)
	}
	if roots == nil {
		e.ui.warnf("the config names no x509.roots: nobody vouched for the end of the chain")
		if end := chain[len(chain)-1]; !bytes.Equal(end.RawIssuer, end.RawSubject) {
			e.ui.warnf("the chain ends with the certificate of %q, and peers must have that of its issuer, %q", end.Subject, end.Issuer)
		}
	}
	return nil
}

// importChain checks a chain and makes it the credential of the identity called
// name.
func (e *env) importChain(ctx context.Context, name string, chain certificate.Chain) (store.Identity, error) {
	record, err := e.Record(ctx, name)
	if err != nil {
		return record, err
	}
	// What is stamped below is this record, which must be genuine: one that is loaded
	// again might be another by then.
	if _, err := e.OpenIdentity(ctx, &record); err != nil {
		return record, err
	}
	if err := e.checkChain(chain, &record); err != nil {
		return record, err
	}
	inv, err := e.Inventory(ctx)
	if err != nil {
		return record, err
	}
	counts, err := e.store.Count(ctx, name)
	if err != nil {
		return record, err
	}
	if n := counts[store.Available] + counts[store.Pending]; n > 0 {
		e.ui.warnf("%s of %q that nobody has yet keep the credential that it had", operator.Plural(n, "key package"), name)
	}
	was := record.Stamp
	record.Credential = keypackage.X509Credential(chain.DER()).Bytes()
	if err := inv.StampIdentity(ctx, &record); err != nil {
		return record, err
	}
	if err := e.store.ChangeIdentity(ctx, record, was, time.Now()); err != nil {
		return record, fmt.Errorf("keep the certificates of %q: %w", name, err)
	}
	return record, nil
}
