package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

func doctorCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "doctor",
		Category: categoryStart,
		Usage:    "say what token this is, try each mechanism, name the suites it can serve",
		Description: `Mechanisms are tried with temporary keys in the token, not read from a list: a
token may list what it cannot do. A suite needs "sign" with its curve, and either
"generate AES-256" and "seal AES-256-GCM" or, with a wrapping key of mechanism rsa-oaep,
"decrypt RSA-OAEP" and "sign P-256". "derive" and "wrap" are for private keys that never
leave the token (custody token): a "no" there costs nothing with custody wrapped. "keep"
tries whether C_WrapKey refuses keys that are not extractable: after a "no", whoever has
the PIN can take keys out of the token.

Each key that the store depends on is found in the token, its attributes are read, and it is
tried: signature keys sign, and are compared with what was recorded; sealing keys seal, open and
refuse what was bound otherwise; wrapping keys unwrap. --json has the attributes of each, for an
auditor: what made it, whether it was ever extractable. Nothing is changed.

The exit status is 3 when the token cannot be opened, 1 when it can serve no suite or a key is
at fault.

Examples:
   hsm-kp doctor
   hsm-kp doctor --json | jq '.suites[] | select(.served)'
   hsm-kp doctor --json | jq '.keys[] | {object, name, key_id, attributes}' >evidence.json`,
		Flags: []cli.Flag{jsonFlag},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			named, _ := configPath(c)
			cfg, err := loadConfig(named)
			if err != nil {
				return err
			}
			at, err := placeOf(cfg, c.String("store"))
			if err != nil {
				return err
			}
			d, err := diagnose(c.Context, u, cfg, at, named, c.Bool(forceLogin))
			if err != nil {
				return err
			}
			if c.Bool("json") {
				err = u.json(d)
			} else {
				d.print(u)
			}
			return errors.Join(err, d.verdict())
		},
	}
}

// diagnosis is what doctor found; it is also its JSON form.
type diagnosis struct {
	Token       token.Info          `json:"token"`
	Sessions    int                 `json:"sessions"`
	Probes      []token.ProbeResult `json:"probes"`
	Suites      []suiteDiagnosis    `json:"suites"`
	Store       string              `json:"store"`
	StoreExists bool                `json:"store_exists"`
	Keys        []keyDiagnosis      `json:"keys,omitempty"`    // that the store depends on
	Unknown     []token.ObjectInfo  `json:"unknown,omitempty"` // labelled as of hsm-kp, and not in the store
	// Unconfirmed is how many key packages have private keys here that are for a device, up to
	// manyUnconfirmed.
	Unconfirmed int `json:"unconfirmed,omitempty"`
}

type suiteDiagnosis struct {
	Suite  string `json:"cipher_suite"`
	Number uint16 `json:"number"`
	Served bool   `json:"served"`
	Reason string `json:"reason,omitempty"` // why not
	// Custody token: whether the private keys can be made and used in the token.
	InToken       bool   `json:"custody_token"`
	InTokenReason string `json:"custody_token_reason,omitempty"` // why not
}

func diagnose(ctx context.Context, u *ui, cfg *config.Config, at place, configPath string, force bool) (*diagnosis, error) {
	t, err := openToken(ctx, u, cfg, at.beside(configPath), force, nil)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	report, err := t.Probe(ctx)
	if err != nil {
		return nil, fmt.Errorf("probe token: %w", err)
	}
	d := &diagnosis{Token: t.Info(), Sessions: t.Sessions(), Probes: report.Results, Store: at.String()}
	for _, s := range ciphersuite.All() {
		d.Suites = append(d.Suites, diagnoseSuite(s, report))
	}
	s, err := at.open(ctx, false)
	if errors.Is(err, errNoStore) {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	defer s.Close()
	d.StoreExists = true
	for _, err := range s.KeyPackages(ctx, store.Filter{Unconfirmed: true}) {
		if err != nil {
			return d, err
		}
		if d.Unconfirmed++; d.Unconfirmed == manyUnconfirmed {
			break
		}
	}
	return d, d.diagnoseKeys(ctx, s, t)
}

// manyUnconfirmed is how far what devices have not confirmed is counted.
const manyUnconfirmed = 1000

// diagnoseSuite says whether a token with this report can serve a suite.
func diagnoseSuite(s *ciphersuite.Suite, report token.Report) suiteDiagnosis {
	d := suiteDiagnosis{Suite: s.ID.String(), Number: uint16(s.ID)}
	curve, known := signer.Curve(s.Signature)
	switch {
	case !known:
		d.Reason = "hsm-kp has no such keys"
	case report.SignFault(curve) != "":
		d.Reason = fmt.Sprintf("the token does not sign with %v: %s", s.Signature, report.SignFault(curve))
	case report.SealFault() != "" && report.DecryptFault() != "":
		d.Reason = "the token cannot seal private keys: " + report.SealFault() + "; " + report.DecryptFault()
	case report.SealFault() != "" && report.SignFault(token.P256) != "":
		d.Reason = "the token cannot stamp records: it does not sign with P-256, and " + report.SealFault()
	default:
		d.Served = true
	}
	err := vault.Keepable(s)
	switch {
	case err != nil:
		d.InTokenReason = err.Error()
	case report.CustodyFault(curve) != "":
		d.InTokenReason = report.CustodyFault(curve)
	default:
		d.InToken = true
	}
	return d
}

// errNoSuite reports a token that can serve nothing.
var errNoSuite = errors.New("the token can serve no cipher suite")

// errKeyFault reports keys that are not as they should be.
var errKeyFault = errors.New("keys in the token are at fault")

func (d *diagnosis) verdict() error {
	for _, k := range d.Keys {
		if !k.OK {
			return errKeyFault
		}
	}
	for _, s := range d.Suites {
		if s.Served {
			return nil
		}
	}
	return errNoSuite
}

// waiting says how many key packages wait for a device.
func (d *diagnosis) waiting() string {
	if d.Unconfirmed == manyUnconfirmed {
		return fmt.Sprintf("have not confirmed %d key packages or more", d.Unconfirmed)
	}
	return "have not confirmed " + operator.Plural(d.Unconfirmed, "key package")
}

func (d *diagnosis) print(u *ui) {
	i := d.Token
	u.printf("module    %s\n", i.Module)
	u.printf("library   %s, %s, version %s, Cryptoki %s\n", i.LibraryManufacturer, i.LibraryDescription, i.LibraryVersion, i.CryptokiVersion)
	u.printf("token     %q, serial %s, slot %d\n", i.Label, i.Serial, i.Slot)
	u.printf("maker     %s, model %s, hardware %s, firmware %s\n", i.Manufacturer, i.Model, i.HardwareVersion, i.FirmwareVersion)
	u.printf("sessions  %d in use by hsm-kp\n", d.Sessions)
	word := "not made yet"
	if d.StoreExists {
		word = "there"
	}
	u.printf("store     %s, %s\n", d.Store, word)
	if d.Unconfirmed > 0 {
		u.printf("devices   %s, see `hsm-kp list --unconfirmed`\n", d.waiting())
	}
	u.printf("\ntried in the token\n")
	for _, p := range d.Probes {
		result := "ok"
		switch {
		case !p.OK:
			result = "no: " + p.Reason
		case p.Variant != "":
			result = "ok: " + p.Variant
		}
		u.printf("  %-34s %-9v %s\n", p.Name, p.Duration.Round(10*time.Microsecond), result)
	}
	u.printf("\ncipher suites\n")
	for _, s := range d.Suites {
		result := "served"
		switch {
		case !s.Served:
			result = "no: " + s.Reason
		case s.InToken:
			result = "served, custody token too"
		}
		u.printf("  %d  %-51s  %s\n", s.Number, s.Suite, result)
	}
	d.printKeys(u)
}
