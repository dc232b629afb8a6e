package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/manifest"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/vault"
)

func provisionCommand(u *ui) *cli.Command {
	return &cli.Command{
		Name:     "provision",
		Category: categoryMake,
		Usage:    "give the devices of a manifest their identities and key packages",
		Description: `The manifest has one JSON object a line. It is CSV with a line of column names if its name
ends in .csv or --csv is given; - is standard input. The fields of a device are

   name            the name of the device, and of its identity here
   identity        the content of the basic credential (default: the name)
   suite           by name or number (default: the config's)
   credential      basic or x509 (default: basic)
   certificate     a file with its chain, in PEM, from the manifest's folder
   subject, dns_names, emails, uris
                   the names to request in a certificate
   count           how many key packages (default: 1)
   last_resort     true: one more, of last resort
   custody         wrapped, token, device or release (default: the config's)
   init_key, encryption_key
                   custody device: its HPKE public keys, in base64; the private keys stay there
   release_key     custody release: a public key of the device, in base64
   labels          any texts; the result repeats them (CSV: columns label.X)

The command checks the whole manifest before it makes anything. It prints one line for each
device, in the same order; --json gives refs, expiries and errors. An error of one device does not
stop the others.

A device that already has its identity and its key packages keeps them: run the command again if
it was interrupted, or after you add devices to the manifest. Key packages count until they expire
or are retired, even if they were used.

With custody release the private keys are made here, for the device: --json prints them, sealed by
HPKE (RFC 9180) to release_key with the algorithms of the device's cipher suite, so that any HPKE
library opens them. They stay here, for this device only, and each run hands them over, until
"hsm-kp handover confirm" erases them. A different release_key for an existing device is refused.

With credential x509 and no certificate, the enrollment command of the config
(x509.enroll) receives a certification request, signed in the token, and answers with the
chain; without such a command, the result is "awaiting certificate" and has the request.

Examples:
   hsm-kp provision --manifest devices.jsonl --check
   hsm-kp provision --manifest devices.jsonl --json >results.jsonl
   hsm-kp provision --manifest devices.csv --out spool/
   jq -r 'select(.csr) | .csr' results.jsonl`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "manifest", Aliases: []string{"m"}, Usage: "read the devices from `FILE`"},
			&cli.BoolFlag{Name: "csv", Usage: "the manifest is CSV"},
			&cli.BoolFlag{Name: "check", Usage: "check the manifest and make nothing"},
			&cli.IntFlag{Name: "parallel", Usage: "work on `N` devices at once", DefaultText: "four for each of the token's sessions"},
			outFlag,
			jsonFlag,
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c); err != nil {
				return err
			}
			if c.String("manifest") == "" {
				return usagef("provision: --manifest FILE is missing")
			}
			lines, err := readManifest(u, c.String("manifest"), c.Bool("csv"))
			if err != nil {
				return err
			}
			if c.IsSet("out") && c.String("out") == "" {
				return usagef("provision: --out names no folder")
			}
			if c.IsSet("parallel") && c.Int("parallel") < 1 {
				return usagef("provision: --parallel must be at least 1")
			}
			e, err := openEnv(c, u)
			if err != nil {
				return err
			}
			defer e.close()
			if c.Bool("check") {
				if err := e.CheckManifest(lines); err != nil {
					return err
				}
				u.notef("%s: ok", operator.Plural(len(lines), "device"))
				return nil
			}
			start := time.Now()
			result, err := e.Provision(c.Context, operator.ProvisionRequest{
				Lines: lines, Chain: chainsBeside(u, c.String("manifest")), Folder: c.String("out"),
				HandOver: c.Bool("json"), // the other output does not print them
				Parallel: c.Int("parallel"), Each: u.eachDevice(c.Bool("json")),
			})
			if err == nil || result.Done() > 0 || errors.Is(err, operator.ErrPartial) {
				u.summarize(&result, time.Since(start))
			}
			return err
		},
	}
}

// maxManifest bounds a manifest, in bytes.
const maxManifest = 1 << 30

// readManifest reads a manifest from a file, or from standard input for "-".
func readManifest(u *ui, name string, asCSV bool) ([]manifest.Line, error) {
	in, err := openInput(u, name)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	parse := manifest.ParseJSONLines
	if asCSV || strings.EqualFold(filepath.Ext(name), ".csv") {
		parse = manifest.ParseCSV
	}
	lines, err := parse(io.LimitReader(in, maxManifest))
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", name, err)
	}
	return lines, nil
}

// chainsBeside reads chains from files whose names are relative to the manifest's folder.
func chainsBeside(u *ui, manifest string) func(string) (certificate.Chain, error) {
	return func(name string) (certificate.Chain, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(manifest), name)
		}
		return readChain(u, name)
	}
}

// provisionedJSON is a line of `provision --json`.
type provisionedJSON struct {
	Line         int                     `json:"line"`
	Name         string                  `json:"name"`
	Status       operator.DeviceStatus   `json:"status"`
	CipherSuite  string                  `json:"cipher_suite,omitempty"`
	KeyID        string                  `json:"key_id,omitempty"`
	SignatureKey string                  `json:"signature_key,omitempty"`
	ValidUntil   *time.Time              `json:"certificates_valid_until,omitempty"`
	CSR          string                  `json:"csr,omitempty"`
	Made         int                     `json:"made"`
	KeyPackages  []provisionedKeyPackage `json:"key_packages,omitempty"`
	Labels       map[string]string       `json:"labels,omitempty"`
	Error        string                  `json:"error,omitempty"`
}

// provisionedKeyPackage is one of a device's key packages.
type provisionedKeyPackage struct {
	Ref        string    `json:"key_package_ref"`
	State      string    `json:"state"`
	NotAfter   time.Time `json:"not_after"`
	LastResort bool      `json:"last_resort,omitempty"`
	Custody    string    `json:"custody"`
	File       string    `json:"file,omitempty"`
	// Of custody release:
	Confirmed *bool         `json:"confirmed,omitempty"`   // the device has its private keys, and they are erased here
	Message   []byte        `json:"mls_message,omitempty"` // goes to the device with them
	Released  *releasedJSON `json:"released,omitempty"`
}

func provisionedOf(d *operator.Provisioned) *provisionedJSON {
	out := &provisionedJSON{
		Line: d.Line, Name: d.Name, Status: d.Status, KeyID: hex.EncodeToString(d.KeyID), SignatureKey: hex.EncodeToString(d.SignatureKey),
		ValidUntil: optionalTime(d.ValidUntil), CSR: string(d.Request), Made: d.Made, Labels: d.Labels,
	}
	if d.Suite != 0 {
		out.CipherSuite = d.Suite.String()
	}
	if d.Err != nil {
		out.Error = d.Err.Error()
	}
	for i := range d.KeyPackages {
		out.KeyPackages = append(out.KeyPackages, provisionedKeyPackageOf(d.Suite, &d.KeyPackages[i]))
	}
	return out
}

func provisionedKeyPackageOf(suite ciphersuite.ID, k *operator.ProvisionedKeyPackage) provisionedKeyPackage {
	out := provisionedKeyPackage{
		Ref: hex.EncodeToString(k.Ref), State: string(k.State), NotAfter: k.NotAfter, LastResort: k.LastResort, Custody: k.Custody, File: k.File,
	}
	if k.Custody == vault.CustodyRelease {
		out.Confirmed = &k.Confirmed
	}
	if k.Released != nil {
		out.Message, out.Released = k.Message, releasedOf(suite, k.Released)
	}
	return out
}

// releasedJSON has the sealed private keys of one key package, for the device; docs/FORMATS.md
// describes each byte. Bytes are in base64.
type releasedJSON struct {
	KEM        uint16 `json:"kem_id"` // these three as in RFC 9180, Section 7
	KDF        uint16 `json:"kdf_id"`
	AEAD       uint16 `json:"aead_id"`
	Info       []byte `json:"info"`
	Enc        []byte `json:"enc"`
	Ciphertext []byte `json:"ciphertext"`
}

func releasedOf(id ciphersuite.ID, r *vault.Released) *releasedJSON {
	out := &releasedJSON{Info: r.Info, Enc: r.Enc, Ciphertext: r.Ciphertext}
	if s, ok := ciphersuite.Lookup(id); ok {
		out.KEM, out.KDF, out.AEAD = s.KEM, s.KDF, s.AEAD
	}
	return out
}

// eachDevice returns a function that prints the result of a device and flushes it: a result is
// durable, and a reader may wait for it.
func (u *ui) eachDevice(asJSON bool) func(*operator.Provisioned) error {
	return func(d *operator.Provisioned) error {
		if asJSON {
			if err := u.jsonLine(provisionedOf(d)); err != nil {
				return err
			}
			return u.flush()
		}
		u.printf("%-20s  %-20s  %s\n", d.Status, summaryOf(d), d.Name)
		return u.flush()
	}
}

// summaryOf returns how many key packages a device has, or what is wrong.
func summaryOf(d *operator.Provisioned) string {
	if d.Err != nil {
		return d.Err.Error()
	}
	text := operator.Plural(len(d.KeyPackages), "key package")
	if d.Made < len(d.KeyPackages) {
		text += fmt.Sprintf(", %d new", d.Made)
	}
	return text
}

func (u *ui) summarize(r *operator.ProvisionResult, took time.Duration) {
	u.notef("%d ready, %d awaiting a certificate, %d failed; %s made in %v", r.Ready, r.Awaiting, r.Failed, operator.Plural(r.Made, "key package"), took.Round(time.Millisecond))
	if r.Waiting > 0 {
		u.notef("the private keys of %s wait for their devices: --json hands them over", operator.Plural(r.Waiting, "key package"))
	}
}
