package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

func identityShowCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "show",
		Usage:     "show one identity, its key and how many key packages it has",
		ArgsUsage: "NAME",
		Description: `Examples:
   hsm-kp identity show alice
   hsm-kp identity show alice --json | jq .key_packages`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			details, err := e.Identity(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(detailsOf(&details))
			}
			return u.printIdentity(&details)
		}, "NAME"),
	}
}

// detailsOf returns the JSON form of an identity with all its versions.
func detailsOf(d *operator.IdentityDetails) identityJSON {
	out := identityOf(&d.Identity)
	for i := range d.Versions {
		out.Versions = append(out.Versions, versionOf(&d.Versions[i]))
	}
	out.KeyPackages = d.KeyPackages
	return out
}

func (u *ui) printIdentity(d *operator.IdentityDetails) error {
	credential, err := keypackage.ParseCredential(d.Credential)
	if err != nil {
		return fmt.Errorf("read stored credential of %q: %w", d.Name, err)
	}
	u.printf("name           %s\n", d.Name)
	u.printf("cipher suite   %v\n", ciphersuite.ID(d.Suite))
	u.printf("credential     %s\n", credentialText(credential))
	printCertificates(u, "               ", credential)
	if chain, err := certificate.Parse(credential.Certificates); err == nil {
		_, notAfter := chain.Validity()
		u.printf("valid until    %s, %s\n", notAfter.UTC().Format(time.RFC3339), certificate.DaysLeft(notAfter, time.Now()))
	}
	u.printf("signature key  %x\n", d.SignatureKey)
	u.printf("key in token   CKA_ID %x, CKA_LABEL %q, token serial %s\n", d.KeyID, d.KeyLabel, d.TokenSerial)
	u.printf("created        %s\n", d.CreatedAt.UTC().Format(time.RFC3339))
	if !d.RetiredAt.IsZero() {
		u.printf("retired        %s\n", d.RetiredAt.Format(time.RFC3339))
	}
	for i := range d.Versions {
		u.printVersion(&d.Versions[i])
	}
	u.printf("key packages  ")
	for _, s := range stateNames() {
		u.printf(" %d %s", d.KeyPackages[store.State(s)], s)
	}
	u.printf("\n")
	return nil
}

func (u *ui) printVersion(v *store.Identity) {
	state := string(v.State)
	if v.State == store.Current && !v.RetiredAt.IsZero() {
		state = "retired"
	}
	u.printf("version %-6d %s, key %x, made %s", v.Version, state, v.KeyID, v.CreatedAt.Format(time.RFC3339))
	if !v.DestroyedAt.IsZero() {
		u.printf(", destroyed %s", v.DestroyedAt.Format(time.RFC3339))
	}
	u.printf("\n")
}
