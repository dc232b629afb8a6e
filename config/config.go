// Package config reads the config file: one YAML document. It refuses unknown keys and reports all
// faults at once.
//
// The package knows what a field may hold, not what it does: cmd/hsm-kp turns a Config into a
// token, a store and a policy.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is a config file with its defaults filled in and its paths made
// absolute. The sample (see Sample) documents each field.
type Config struct {
	Token        Token
	Store        Store
	KeyPackages  KeyPackages
	Experimental Experimental
	X509         X509
	Identities   map[string]Identity
	WrappingKeys WrappingKeys
	Welcome      Welcome
	Directories  []Directory
	Replenish    Replenish
	Audit        Audit
	Unwrap       Unwrap
	Server       Server
}

// Token says which token to use, and how.
type Token struct {
	Module      string // absolute path, or empty if URI gives it
	URI         string // RFC 7512
	Label       string
	Serial      string
	Slot        *uint
	PIN         PIN
	Sessions    int
	Timeout     Duration // how long a call of the module may take
	Recovery    Duration // 0: no retries
	Environment map[string]string
	Vendor      string // one of Vendors, or empty
	Quirks      Quirks
}

// PIN says where the user PIN comes from; at most one field is set.
type PIN struct {
	Env     string
	File    string // absolute path
	FD      *int
	Systemd string
	Prompt  bool
}

// Store says where records are kept.
type Store struct {
	URL   string // sqlite: and an absolute path, or postgres://
	Batch int
}

// KeyPackages says what goes into key packages.
type KeyPackages struct {
	Suite        string
	Lifetime     Duration
	Backdate     Duration
	Grace        Duration
	Custody      string // Wrapped or InToken
	LastResort   LastResort
	Capabilities Capabilities
	GREASE       bool
	Required     Required
	// LeafExtensions go into leaf nodes, Extensions into key packages.
	LeafExtensions []Extension
	Extensions     []Extension
	Peers          []string // names of profiles; empty means all
}

// The custodies of private keys.
const (
	Wrapped = "wrapped"
	InToken = "token"
)

// LastResort says when to replace a key package of last resort.
type LastResort struct {
	MaxAge Duration
}

// WrappingKeys says when to replace wrapping keys.
type WrappingKeys struct {
	MaxAge    Duration // 0: never
	MaxUses   uint64
	Automatic bool // hsm-kp replaces them itself
}

// Audit says how the trail is signed.
type Audit struct {
	Origin string // of checkpoints; the default has the token's serial number
}

// Capabilities is what clients support beyond the defaults.
type Capabilities struct {
	CipherSuites []string
	Extensions   []uint16
	Proposals    []uint16
}

// Required are the capabilities that groups require (RFC 9420, Section 11.1).
type Required struct {
	Extensions  []uint16
	Proposals   []uint16
	Credentials []uint16
}

// Extension is an extension: its number and its data.
type Extension struct {
	Type uint16
	Data []byte
}

// Experimental holds the cipher suites that are not in RFC 9420.
type Experimental struct {
	Enabled bool
	Suites  []Suite
}

// Suite says what the number of an experimental suite means.
type Suite struct {
	Number    uint16
	Name      string
	KEM       string
	AEAD      string
	Hash      string
	Signature string
}

// X509 holds what all X.509 credentials have in common.
type X509 struct {
	Roots   string // absolute path of a PEM file, or empty
	Subject string // RFC 4514; follows the name of the identity
	Enroll  Enroll
}

// Enroll says how `provision` requests certificates.
type Enroll struct {
	Command []string // a program or its path, and its arguments; empty for none
	Timeout Duration
}

// Identity holds the settings of one identity that differ from the rest.
type Identity struct {
	Subject       string // RFC 4514; the default is CN=NAME and X509.Subject
	DNSNames      []string
	Emails        []string
	URIs          []string
	ApplicationID string
	Replenish     OwnReplenish
	Custody       string        // overrides KeyPackages.Custody; or empty
	Capabilities  *Capabilities // overrides KeyPackages.Capabilities
}

// Welcome says how to open Welcomes.
type Welcome struct {
	Reservation Duration
}

// Unwrap says whether private keys may leave hsm-kp.
type Unwrap struct {
	Allow bool
}

// Default returns the config of an empty file.
func Default() *Config {
	return &Config{
		Token: Token{Sessions: 8, Timeout: Duration(30 * time.Second), Recovery: Duration(time.Minute)},
		Store: Store{URL: "sqlite:hsm-kp.db", Batch: 500},
		KeyPackages: KeyPackages{
			Suite:    "MLS_128_DHKEMP256_AES128GCM_SHA256_P256",
			Lifetime: Duration(84 * 24 * time.Hour),
			Backdate: Duration(time.Hour),
			Grace:    Duration(7 * 24 * time.Hour),
			Custody:  Wrapped,
			LastResort: LastResort{
				MaxAge: Duration(28 * 24 * time.Hour),
			},
		},
		WrappingKeys: WrappingKeys{MaxAge: Duration(90 * 24 * time.Hour), MaxUses: 1 << 30, Automatic: true},
		Welcome:      Welcome{Reservation: Duration(15 * time.Minute)},
		X509:         X509{Enroll: Enroll{Timeout: Duration(time.Minute)}},
		Replenish:    defaultReplenish(),
		Server:       defaultServer(),
	}
}

// CustodyOf returns the custody of the private keys of an identity's key packages.
func (c *Config) CustodyOf(identity string) string {
	if own := c.Identities[identity].Custody; own != "" {
		return own
	}
	return c.KeyPackages.Custody
}

// InToken reports whether the private keys of any identity are kept in the token.
func (c *Config) InToken() bool {
	for name := range c.Identities {
		if c.CustodyOf(name) == InToken {
			return true
		}
	}
	return c.KeyPackages.Custody == InToken
}

// maxBytes bounds a config file.
const maxBytes = 1 << 20

var errEmpty = errors.New("it is empty")

// Load reads the config file at path. It returns an *Error if the file can be read but is faulty.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{Path: path, Cause: err}
	}
	defer f.Close()
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return nil, &Error{Path: path, Cause: err}
	}
	c, err := Parse(f, dir)
	if e, ok := err.(*Error); ok {
		e.Path = path
	}
	return c, err
}

// Parse reads a config from r. Relative paths in it start at dir, which is absolute. It returns an
// *Error if the config is faulty.
func Parse(r io.Reader, dir string) (*Config, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	switch {
	case err != nil:
		return nil, &Error{Cause: err}
	case len(data) > maxBytes:
		return nil, &Error{Cause: fmt.Errorf("it has more than %d bytes", maxBytes)}
	}
	c := Default()
	d, err := decode(data, c)
	if err != nil {
		return nil, &Error{Cause: err}
	}
	c.validate(d)
	if len(d.faults) > 0 {
		return nil, &Error{Faults: inOrder(d.faults)}
	}
	c.resolve(dir)
	return c, nil
}

// resolve makes paths absolute and fills in the vendor's quirks.
func (c *Config) resolve(dir string) {
	c.Token.applyVendor()
	from := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(dir, p)
	}
	c.Token.Module = from(c.Token.Module)
	c.Token.PIN.File = from(c.Token.PIN.File)
	c.X509.Roots = from(c.X509.Roots)
	c.Server.resolve(from)
	if path, ok := strings.CutPrefix(c.Store.URL, "sqlite:"); ok {
		c.Store.URL = "sqlite:" + from(path)
	}
	for i := range c.Directories {
		dir := &c.Directories[i]
		for _, p := range []*string{&dir.Path, &dir.Bearer.File, &dir.CA, &dir.Certificate, &dir.Key} {
			*p = from(*p)
		}
	}
	for name, value := range c.Token.Environment {
		if strings.HasPrefix(value, "./") {
			c.Token.Environment[name] = from(value)
		}
	}
}
