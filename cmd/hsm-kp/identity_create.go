package main

import (
	"encoding/hex"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/token"
)

func identityCreateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "create an identity and its signature key in the token",
		ArgsUsage: "NAME",
		Description: `The key pair is generated in the token and can never leave it. The credential is
a basic one (RFC 9420, Section 5.3) that holds NAME, or what --credential says.
With --x509 it is a chain of certificates: "hsm-kp identity csr" makes the request
for it and "hsm-kp identity import-cert" imports it; until then the identity does not
sign key packages.
NAME has up to 128 bytes of printable UTF-8. SUITE is a name or a number of RFC
9420, Section 17.1; "hsm-kp doctor" lists those that the token can serve.

Examples:
   hsm-kp identity create alice
   hsm-kp identity create alice@example.com --suite 1
   hsm-kp identity create relay-7 --key-label relay-7-ceremony-2026
   hsm-kp identity create gateway --x509`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "suite", Aliases: []string{"s"}, Usage: "cipher `SUITE` by name or number", DefaultText: "the config's"},
			&cli.StringFlag{Name: "credential", Usage: "`TEXT` of the basic credential", DefaultText: "NAME"},
			&cli.BoolFlag{Name: "x509", Usage: "wait for a certificate instead of making a basic credential"},
			&cli.StringFlag{Name: "key-id", Usage: "use the key in the token with this CKA_ID (`HEX`) instead of a new one"},
			&cli.StringFlag{Name: "key-label", Usage: "use the key in the token with this CKA_LABEL (`TEXT`) instead of a new one"},
			&cli.BoolFlag{Name: "allow-weak-key", Usage: "use an existing key even if its attributes let it leave the token"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "NAME"); err != nil {
				return err
			}
			if c.Bool("x509") && c.IsSet("credential") {
				return usagef("identity create: --credential is for basic credentials, not for --x509")
			}
			key, err := keyQuery(c.String("key-id"), c.String("key-label"))
			if err != nil {
				return err
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			record, err := e.CreateIdentity(c.Context, operator.CreateIdentityRequest{
				Name: c.Args().First(), Suite: c.String("suite"), X509: c.Bool("x509"), Credential: c.String("credential"),
				Key: key, AllowWeakKey: c.Bool("allow-weak-key"),
			})
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(identityOf(&record))
			}
			u.printf("created identity %q, %v\n", record.Name, ciphersuite.ID(record.Suite))
			u.printf("signature key %x in token %q\n", record.KeyID, e.token.Info().Label)
			return nil
		},
	}
}

// keyQuery reads the values of --key-id and --key-label.
func keyQuery(id, label string) (token.KeyQuery, error) {
	keyID, err := hex.DecodeString(id)
	if err != nil {
		return token.KeyQuery{}, usagef("identity create: --key-id is not hexadecimal")
	}
	return token.KeyQuery{ID: keyID, Label: label}, nil
}
