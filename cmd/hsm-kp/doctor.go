package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/internal/diagnosis"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/token"
)

func doctorCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "doctor",
		Category: categoryStart,
		Usage:    "describe the token, try each mechanism, list the suites that it can serve",
		Description: `Mechanisms are tried with temporary keys in the token, not read from a list: a
token may list what it cannot do. A suite needs "sign" with its curve, and either
"generate AES-256" and "seal AES-256-GCM" or, with a wrapping key of mechanism rsa-oaep,
"decrypt RSA-OAEP" and "sign P-256". "derive" and "wrap" are for private keys that never
leave the token (custody token): a "no" there does not matter with custody wrapped. "keep"
tests that C_WrapKey refuses keys that are not extractable: if it says "no", anyone who has
the PIN can take keys out of the token.

Each key that the store depends on is found in the token, its attributes are read, and it is
tried: signature keys sign and are compared with their records; sealing keys seal, open and
refuse what was bound to something else; wrapping keys unwrap. --json prints the attributes of
each for an auditor: what made it, whether it was ever extractable. Nothing is changed.

The exit status is 3 if the token cannot be opened, 1 if it can serve no suite or a key is
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
			path, _ := configPath(c)
			e, err := openDoctor(c.Context, u, path, c.String("store"), c.Bool(forceLogin))
			if err != nil {
				return err
			}
			defer e.close()
			found, err := e.Diagnose(c.Context)
			if err != nil {
				return err
			}
			d := diagnosisOf(found, e.place, e.store != nil)
			if c.Bool("json") {
				err = u.json(d)
			} else {
				u.printDiagnosis(&d)
			}
			return errors.Join(err, found.Fault())
		},
	}
}

// openDoctor opens the token, and the store if there is one.
func openDoctor(ctx context.Context, u *ui, path, url string, force bool) (e *env, err error) {
	e = &env{ui: u, configPath: path, forceLogin: force}
	if e.config, err = loadConfig(path); err != nil {
		return nil, err
	}
	if e.place, err = placeOf(e.config, url); err != nil {
		return nil, err
	}
	if _, err := e.openToken(ctx); err != nil {
		return nil, err
	}
	e.store, err = e.place.open(ctx, false)
	if err != nil && !errors.Is(err, errNoStore) {
		e.close()
		return nil, err
	}
	e.operate()
	return e, nil
}

// diagnosisJSON is what `doctor --json` prints.
type diagnosisJSON struct {
	Token       token.Info          `json:"token"`
	Sessions    int                 `json:"sessions"`
	Probes      []token.ProbeResult `json:"probes"`
	Suites      []suiteJSON         `json:"suites"`
	Store       string              `json:"store"`
	StoreExists bool                `json:"store_exists"`
	Keys        []keyJSON           `json:"keys,omitempty"`    // that the store depends on
	Unknown     []token.ObjectInfo  `json:"unknown,omitempty"` // labeled as of hsm-kp, and not in the store
	// Unconfirmed is how many key packages have private keys here that are for a device, up to
	// diagnosis.MaxUnconfirmed.
	Unconfirmed int `json:"unconfirmed,omitempty"`
}

type suiteJSON struct {
	Suite  string `json:"cipher_suite"`
	Number uint16 `json:"number"`
	Served bool   `json:"served"`
	Reason string `json:"reason,omitempty"` // why not
	// Custody token: whether the private keys can be made and used in the token.
	InToken       bool   `json:"custody_token"`
	InTokenReason string `json:"custody_token_reason,omitempty"` // why not
}

type keyJSON struct {
	Object     string               `json:"object"` // such as "signature key"
	Name       string               `json:"name,omitempty"`
	KeyID      string               `json:"key_id"`
	OK         bool                 `json:"ok"`
	Reason     string               `json:"reason,omitempty"` // why not
	Attributes *token.KeyAttributes `json:"attributes,omitempty"`
}

func diagnosisOf(d *diagnosis.Diagnosis, at place, exists bool) diagnosisJSON {
	out := diagnosisJSON{
		Token: d.Token, Sessions: d.Sessions, Probes: d.Probes, Store: at.String(), StoreExists: exists,
		Unknown: d.Unknown, Unconfirmed: d.Unconfirmed,
	}
	for _, s := range d.Suites {
		out.Suites = append(out.Suites, suiteJSON{s.Suite.String(), uint16(s.Suite), s.Served, s.Reason, s.InToken, s.InTokenReason})
	}
	for _, k := range d.Keys {
		out.Keys = append(out.Keys, keyJSON{k.Object, k.Name, hex.EncodeToString(k.ID), k.OK, k.Reason, k.Attributes})
	}
	return out
}

// waiting says how many key packages wait for a device.
func (d *diagnosisJSON) waiting() string {
	if d.Unconfirmed == diagnosis.MaxUnconfirmed {
		return fmt.Sprintf("have not confirmed %d key packages or more", d.Unconfirmed)
	}
	return "have not confirmed " + operator.Plural(d.Unconfirmed, "key package")
}

func (u *ui) printDiagnosis(d *diagnosisJSON) {
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
	u.printKeys(d)
}

func (u *ui) printKeys(d *diagnosisJSON) {
	if len(d.Keys) == 0 {
		return
	}
	u.printf("\nkeys that the store depends on\n")
	for _, k := range d.Keys {
		result := "ok"
		if !k.OK {
			result = "no: " + printable(k.Reason)
		}
		u.printf("%s\n", strings.TrimRight(fmt.Sprintf("  %-14s %s  %s  %s", k.Object, k.KeyID, result, printable(k.Name)), " "))
	}
	for _, o := range d.Unknown {
		u.printf("  not in the store: %v %x %s\n", o.Class, o.ID, printable(o.Label))
	}
}
