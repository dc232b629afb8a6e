package main

import (
	"encoding/hex"
	"math"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
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
		if chain, err := certificate.Parse(c.Certificates); err == nil {
			_, notAfter := chain.Validity()
			notAfter = notAfter.UTC()
			days := int(math.Floor(time.Until(notAfter).Hours() / 24))
			out.Certificates, out.ValidUntil, out.DaysLeft = certificatesOf(chain), &notAfter, &days
		}
	}
	return out
}

// versionJSON is the JSON form of a version of an identity.
type versionJSON struct {
	Version     uint64             `json:"version"`
	State       store.VersionState `json:"state"`
	KeyID       string             `json:"key_id"`
	CreatedAt   time.Time          `json:"created_at"`
	RetiredAt   *time.Time         `json:"retired_at,omitempty"`
	DestroyedAt *time.Time         `json:"key_destroyed_at,omitempty"`
}

func versionOf(v *store.Identity) versionJSON {
	return versionJSON{v.Version, v.State, hex.EncodeToString(v.KeyID), v.CreatedAt, optionalTime(v.RetiredAt), optionalTime(v.DestroyedAt)}
}

func optionalTime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
