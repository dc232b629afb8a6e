package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

func identityCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "identity",
		Category: categoryMake,
		Usage:    "the identities that sign key packages: create, certify, rotate, retire",
		Subcommands: []*cli.Command{
			identityCreateCommand(u),
			identityListCommand(u),
			identityShowCommand(u),
			identityCSRCommand(u),
			identityImportCertCommand(u),
			identityRotateCommand(u),
			identityRetireCommand(u),
			identityDestroyKeyCommand(u),
		},
		Action: func(c *cli.Context) error {
			if c.NArg() > 0 {
				return usagef("identity: there is no %q; it has create, list, show, csr, import-cert, rotate, retire and destroy-key", c.Args().First())
			}
			return cli.ShowSubcommandHelp(c)
		},
	}
}

func identityCreateCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "create an identity and its signature key in the token",
		ArgsUsage: "NAME",
		Description: `The key pair is generated in the token and can never leave it. The credential is
a basic one (RFC 9420, Section 5.3) that holds NAME, or what --credential says.
With --x509 it is to be a chain of certificates: "hsm-kp identity csr" makes the
request for it and "hsm-kp identity import-cert" takes it; until then the identity
signs no key packages.
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
			&cli.BoolFlag{Name: "allow-weak-key", Usage: "take an existing key though its attributes let it leave the token"},
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, "NAME"); err != nil {
				return err
			}
			name := c.Args().First()
			if err := identity.CheckName(name); err != nil {
				return usagef("identity create: %v", err)
			}
			if c.Bool("x509") && c.IsSet("credential") {
				return usagef("identity create: --credential is for basic credentials, not for --x509")
			}
			query, err := keyQuery(c)
			if err != nil {
				return err
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			suite, err := e.suite(c.String("suite"))
			if err != nil {
				return err
			}
			if c.Bool("x509") && suite.Signature == ciphersuite.ED448 {
				return usagef("identity create: --x509: %v, and %v has Ed448 keys", certificate.ErrKey, suite.ID)
			}
			record, err := e.createIdentity(c.Context, newIdentity{
				name: name, suite: suite, credential: c.String("credential"),
				x509: c.Bool("x509"), query: query, allowWeak: c.Bool("allow-weak-key"),
			})
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return u.json(identityOf(&record))
			}
			u.printf("created identity %q, %v\n", record.Name, suite.ID)
			u.printf("signature key %x in token %q\n", record.KeyID, e.token.Info().Label)
			return nil
		},
	}
}

// keyQuery reads --key-id and --key-label.
func keyQuery(c *cli.Context) (token.KeyQuery, error) {
	id, err := hex.DecodeString(c.String("key-id"))
	if err != nil {
		return token.KeyQuery{}, usagef("identity create: --key-id is not hexadecimal")
	}
	return token.KeyQuery{ID: id, Label: c.String("key-label")}, nil
}

// newIdentity is what `identity create` was asked for.
type newIdentity struct {
	name       string
	suite      *ciphersuite.Suite
	credential string // of the basic credential; empty: the name
	x509       bool   // no basic credential
	query      token.KeyQuery
	allowWeak  bool
	custody    string // of the key packages that it is made for; empty: any
}

// createIdentity makes the key and the record of an identity that is not there.
func (e *env) createIdentity(ctx context.Context, n newIdentity) (store.Identity, error) {
	switch _, err := e.store.Identity(ctx, n.name); {
	case err == nil:
		return store.Identity{}, fmt.Errorf("create identity %q: %w", n.name, store.ErrExists)
	case !errors.Is(err, store.ErrNotFound):
		return store.Identity{}, err
	}
	return e.makeIdentity(ctx, n)
}

// makeIdentity is createIdentity once it is known that the name is free.
func (e *env) makeIdentity(ctx context.Context, n newIdentity) (store.Identity, error) {
	t, err := e.openToken(ctx)
	if err != nil {
		return store.Identity{}, err
	}
	inv, err := e.Inventory(ctx)
	if err != nil {
		return store.Identity{}, err
	}
	credential := keypackage.X509Credential(nil)
	if !n.x509 {
		credential = keypackage.BasicCredential([]byte(cmp.Or(n.credential, n.name)))
	}
	record := store.Identity{
		Name: n.name, Version: 1, State: store.Current, Suite: uint16(n.suite.ID), Credential: credential.Bytes(), WeakKey: n.allowWeak,
		Custody: n.custody,
	}
	if len(n.query.ID) > 0 || n.query.Label != "" {
		key, err := e.existingKey(ctx, t, n)
		if err == nil {
			err = e.record(ctx, inv, &record, key, e.store.AddIdentity)
		}
		return record, err
	}
	return record, e.withNewKey(ctx, inv, &record, e.store.AddIdentity)
}

// withNewKey makes a signature key for a version of an identity and records it by add.
// Where it cannot be recorded, the key goes again.
func (e *env) withNewKey(ctx context.Context, inv *inventory.Inventory, record *store.Identity, add func(context.Context, store.Identity) error) error {
	suite, ok := ciphersuite.Lookup(ciphersuite.ID(record.Suite))
	if !ok {
		return fmt.Errorf("identity %q: cipher suite %v: %w", record.Name, ciphersuite.ID(record.Suite), inventory.ErrSuiteUnknown)
	}
	id, err := vault.NewKeyID(inv.Rand)
	if err != nil {
		return err
	}
	intent := store.Intent{KeyID: id, Object: store.ObjectSignatureKey, TokenSerial: e.token.Info().Serial, CreatedAt: time.Now()}
	return inv.Make(ctx, intent, func(ctx context.Context) error {
		key, err := signer.Generate(ctx, e.token, suite.Signature, id, "hsm-kp identity "+record.Name)
		if err != nil {
			return fmt.Errorf("generate signature key of %q: %w", record.Name, err)
		}
		if err := e.record(ctx, inv, record, key, add); err != nil {
			return err
		}
		e.KeepKey(key, record.WeakKey)
		return nil
	})
}

// record records a version of an identity that signs with key.
func (e *env) record(ctx context.Context, inv *inventory.Inventory, record *store.Identity, key *signer.Key, add func(context.Context, store.Identity) error) error {
	record.SignatureKey, record.KeyID, record.KeyLabel = key.PublicKey(), key.ID(), key.Label()
	record.TokenSerial, record.CreatedAt = e.token.Info().Serial, time.Now().UTC().Truncate(time.Second)
	err := inv.StampIdentity(ctx, record)
	if err == nil {
		err = add(ctx, *record)
	}
	if err != nil {
		return fmt.Errorf("record identity %q: %w", record.Name, err)
	}
	return nil
}

// warnSharedKey warns of identities that have the same key: a group takes a
// signature key once (RFC 9420, Section 7.3).
func (e *env) warnSharedKey(ctx context.Context, keyID []byte, serial string) error {
	others, err := e.store.Identities(ctx)
	for i := range others {
		if bytes.Equal(others[i].KeyID, keyID) && others[i].TokenSerial == serial {
			e.ui.warnf("identity %q has the same signature key; the two cannot be in one group", others[i].Name)
		}
	}
	return err
}

// existingKey finds the key that was asked for.
func (e *env) existingKey(ctx context.Context, t *token.Token, n newIdentity) (*signer.Key, error) {
	key, err := operator.FindKey(ctx, t, n.query, n.allowWeak)
	if err != nil {
		return nil, err
	}
	if key.Scheme() != n.suite.Signature {
		return nil, usagef("identity create: a key of %v cannot sign for %v", key.Scheme(), n.suite.ID)
	}
	return key, e.warnSharedKey(ctx, key.ID(), t.Info().Serial)
}

func identityListCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:  "list",
		Usage: "list identities",
		Description: `Examples:
   hsm-kp identity list
   hsm-kp identity list --json | jq -r .name`,
		Flags: []cli.Flag{jsonFlag},
		Action: with(u, func(c *cli.Context, e *env) error {
			return e.listIdentities(c.Context, c.Bool("json"))
		}),
	}
}

func (e *env) listIdentities(ctx context.Context, asJSON bool) error {
	records, err := e.store.Identities(ctx)
	if err != nil {
		return err
	}
	for i := range records {
		r := &records[i]
		if asJSON {
			if err := e.ui.jsonLine(identityOf(r)); err != nil {
				return err
			}
			continue
		}
		const row = "%-51s  %-20s  %s\n"
		if i == 0 {
			e.ui.printf(row, "CIPHER SUITE", "CREATED", "NAME")
		}
		e.ui.printf(row, ciphersuite.ID(r.Suite), r.CreatedAt.UTC().Format(time.RFC3339), r.Name)
	}
	if len(records) == 0 && e.ui.outTerm && !asJSON {
		e.ui.notef("no identities")
	}
	return nil
}

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
			return e.showIdentity(c.Context, c.Args().First(), c.Bool("json"))
		}, "NAME"),
	}
}

func (e *env) showIdentity(ctx context.Context, name string, asJSON bool) error {
	record, err := e.Record(ctx, name)
	if err != nil {
		return err
	}
	counts, err := e.store.Count(ctx, name)
	if err != nil {
		return err
	}
	versions, err := e.store.Versions(ctx, name)
	if err != nil {
		return err
	}
	for _, v := range versions { // the identity is as old as its first version
		if v.CreatedAt.Before(record.CreatedAt) {
			record.CreatedAt = v.CreatedAt
		}
	}
	if asJSON {
		out := identityOf(&record)
		for i := range versions {
			out.Versions = append(out.Versions, versionOf(&versions[i]))
		}
		out.KeyPackages = counts
		return e.ui.json(out)
	}
	credential, err := keypackage.ParseCredential(record.Credential)
	if err != nil {
		return fmt.Errorf("read stored credential of %q: %w", name, err)
	}
	e.ui.printf("name           %s\n", record.Name)
	e.ui.printf("cipher suite   %v\n", ciphersuite.ID(record.Suite))
	e.ui.printf("credential     %s\n", credentialText(credential))
	printCertificates(e.ui, "               ", credential)
	if chain, err := credential.Chain(); err == nil {
		_, notAfter := chain.Validity()
		e.ui.printf("valid until    %s, %s\n", notAfter.UTC().Format(time.RFC3339), operator.DaysLeft(notAfter, time.Now()))
	}
	e.ui.printf("signature key  %x\n", record.SignatureKey)
	e.ui.printf("key in token   CKA_ID %x, CKA_LABEL %q, token serial %s\n", record.KeyID, record.KeyLabel, record.TokenSerial)
	e.ui.printf("created        %s\n", record.CreatedAt.UTC().Format(time.RFC3339))
	if !record.RetiredAt.IsZero() {
		e.ui.printf("retired        %s\n", record.RetiredAt.Format(time.RFC3339))
	}
	for i := range versions {
		printVersion(e.ui, &versions[i])
	}
	e.ui.printf("key packages  ")
	for _, s := range stateNames() {
		e.ui.printf(" %d %s", counts[store.State(s)], s)
	}
	e.ui.printf("\n")
	return nil
}

// identityJSON is the JSON form of an identity.
type identityJSON struct {
	Name         string                 `json:"name"`
	Suite        string                 `json:"cipher_suite"`
	Credential   *keypackage.Credential `json:"credential"`
	SignatureKey string                 `json:"signature_key"`
	KeyID        string                 `json:"key_id"`
	KeyLabel     string                 `json:"key_label"`
	TokenSerial  string                 `json:"token_serial"`
	CreatedAt    time.Time              `json:"created_at"`
	Certificates []certificateJSON      `json:"certificates,omitempty"`
	ValidUntil   *time.Time             `json:"valid_until,omitempty"` // of the chain
	DaysLeft     *int                   `json:"days_left,omitempty"`   // whole days, negative once it is over
	RetiredAt    *time.Time             `json:"retired_at,omitempty"`
	Versions     []versionJSON          `json:"versions,omitempty"`
	KeyPackages  map[store.State]uint64 `json:"key_packages,omitempty"`
}

func identityOf(r *store.Identity) identityJSON {
	out := identityJSON{
		Name:         r.Name,
		Suite:        ciphersuite.ID(r.Suite).String(),
		SignatureKey: hex.EncodeToString(r.SignatureKey),
		KeyID:        hex.EncodeToString(r.KeyID),
		KeyLabel:     r.KeyLabel,
		TokenSerial:  r.TokenSerial,
		CreatedAt:    r.CreatedAt.UTC(),
		RetiredAt:    optionalTime(r.RetiredAt),
	}
	if c, err := keypackage.ParseCredential(r.Credential); err == nil {
		out.Credential = &c
		if chain, err := c.Chain(); err == nil {
			_, notAfter := chain.Validity()
			notAfter = notAfter.UTC()
			days := int(math.Floor(time.Until(notAfter).Hours() / 24))
			out.Certificates, out.ValidUntil, out.DaysLeft = certificatesOf(chain), &notAfter, &days
		}
	}
	return out
}
