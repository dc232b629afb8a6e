// Package manifest reads lists of devices to provision: one JSON object a line, or CSV. It knows
// what a line may say, not what is done about it.
package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Custody of the HPKE private keys of a device's key packages.
const (
	// Device means that the device makes its keys: the line has the public keys, and hsm-kp has no
	// private ones.
	Device = "device"
	// Release means that hsm-kp makes the keys and keeps them until the device has them, sealed to
	// the release key on the line.
	Release = "release"
	// Wrapped and InToken mean that hsm-kp keeps the keys, sealed under a key of the token or used
	// only in it.
	Wrapped = "wrapped"
	InToken = "token"
)

// Kinds of credentials (RFC 9420, Section 5.3).
const (
	Basic = "basic"
	X509  = "x509"
)

// MaxCount is how many key packages a line may ask for.
const MaxCount = 1_000_000

// Line is the description of one device.
type Line struct {
	// Number is the number of the line in the file, from 1.
	Number int
	// Name is the name of the device and of its identity.
	Name string
	// Identity is the identity of a basic credential. The default is the name.
	Identity string
	// Suite is a cipher suite by name or number. The default is the config's.
	Suite string
	// Credential is Basic or X509.
	Credential string
	// Certificate is the name of a file with the chain of an x509 credential, or empty.
	Certificate string
	// Subject, DNSNames, Emails and URIs go into the certification request. The default Subject is
	// the config's.
	Subject                string
	DNSNames, Emails, URIs []string
	// Count is how many key packages the device should have; LastResort says whether it should also
	// have one of last resort.
	Count      uint64
	LastResort bool
	// Custody is Device, Release, Wrapped, InToken, or empty for the config's.
	Custody string
	// InitKey and EncryptionKey are the public keys of custody Device, as RFC 9420 encodes
	// HPKE public keys.
	InitKey, EncryptionKey []byte
	// ReleaseKey is the public key of custody Release, as RFC 9420 encodes HPKE public keys, for
	// the KEM of the line's suite.
	ReleaseKey []byte
	// Labels are the caller's own. They are returned with the result.
	Labels map[string]string
}

// Fault is what is wrong with one line.
type Fault struct {
	Line int
	What string
}

// Error holds all faults of a manifest, at least one, by line.
type Error struct{ Faults []Fault }

// shownFaults is how many faults an Error shows.
const shownFaults = 20

// Error returns the first twenty faults, one a line.
func (e *Error) Error() string {
	var b strings.Builder
	for i, f := range e.Faults {
		if i == shownFaults {
			fmt.Fprintf(&b, "\nand %d more", len(e.Faults)-i)
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "line %d: %s", f.Line, f.What)
	}
	return b.String()
}

// faults collects faults.
type faults struct{ list []Fault }

func (f *faults) add(line int, format string, args ...any) {
	f.list = append(f.list, Fault{line, fmt.Sprintf(format, args...)})
}

func (f *faults) error() error {
	if len(f.list) == 0 {
		return nil
	}
	slices.SortStableFunc(f.list, func(a, b Fault) int { return a.Line - b.Line })
	return &Error{f.list}
}

// ErrEmpty reports a manifest without a device.
var ErrEmpty = errors.New("it names no device")

// check checks each line, and lines against each other.
func check(lines []Line, f *faults) {
	seen := make(map[string]int, len(lines))
	for i := range lines {
		l := &lines[i]
		if first, ok := seen[l.Name]; ok && l.Name != "" {
			f.add(l.Number, "device %q is on line %d already", l.Name, first)
		}
		seen[l.Name] = l.Number
		l.check(f)
	}
}

func (l *Line) check(f *faults) {
	if l.Name == "" {
		f.add(l.Number, "name is missing")
	}
	if l.Count > MaxCount {
		f.add(l.Number, "count is %d, at most %d", l.Count, MaxCount)
	}
	switch l.Credential {
	case Basic:
		if l.Certificate != "" || l.Subject != "" || len(l.DNSNames)+len(l.Emails)+len(l.URIs) > 0 {
			f.add(l.Number, "certificate, subject, dns_names, emails and uris are for credential x509")
		}
	case X509:
		if l.Identity != "" {
			f.add(l.Number, "identity is for credential basic")
		}
	default:
		f.add(l.Number, "credential %q is neither basic nor x509", l.Credential)
	}
	l.checkCustody(f)
}

func (l *Line) checkCustody(f *faults) {
	switch l.Custody {
	case Device:
		if len(l.InitKey) == 0 || len(l.EncryptionKey) == 0 {
			f.add(l.Number, "custody device needs init_key and encryption_key")
		}
		if l.Count != 1 || l.LastResort {
			f.add(l.Number, "custody device makes one key package, of the keys on the line")
		}
	case Release:
		if len(l.ReleaseKey) == 0 {
			f.add(l.Number, "custody release needs release_key")
		}
	case "", Wrapped, InToken:
	default:
		f.add(l.Number, "custody %q is not one of wrapped, token, device and release", l.Custody)
		return
	}
	if l.Custody != Device && len(l.InitKey)+len(l.EncryptionKey) > 0 {
		f.add(l.Number, "init_key and encryption_key are for custody device")
	}
	if l.Custody != Release && len(l.ReleaseKey) > 0 {
		f.add(l.Number, "release_key is for custody release")
	}
}
