// Package manifest reads lists of devices to provision: a JSON object a line, or CSV. It is
// pure: it knows what a line may say, not what is done about it.
package manifest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Custody of the HPKE private keys of a device's key packages.
const (
	// Device keys are made by the device: the line has its public keys, and no private
	// half is kept.
	Device = "device"
	// Release keys are made and kept by hsm-kp until the device has them: they are sealed
	// to the public key that the line has.
	Release = "release"
	// Wrapped and InToken are kept by hsm-kp, under a key of the token or used in it only.
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

// Line is what a manifest says of one device.
type Line struct {
	// Number is that of the line in the file; 1 is the first.
	Number int
	// Name is that of the device, and of its identity.
	Name string
	// Identity is the identity of a basic credential; empty: the name.
	Identity string
	// Suite is a cipher suite by name or number; empty: the config's.
	Suite string
	// Credential is Basic or X509.
	Credential string
	// Certificate names a file with the chain of an x509 credential; or empty.
	Certificate string
	// Subject, DNSNames, Emails and URIs are what a certificate is asked for. An empty
	// Subject is the config's.
	Subject                string
	DNSNames, Emails, URIs []string
	// Count is how many key packages the device is to have, LastResort whether it is to
	// have one of last resort too.
	Count      uint64
	LastResort bool
	// Custody is Device, Release, Wrapped, InToken, or empty: the config's.
	Custody string
	// InitKey and EncryptionKey are the public keys of custody Device, as RFC 9420 encodes
	// HPKE public keys.
	InitKey, EncryptionKey []byte
	// ReleaseKey is the public key of custody Release, as RFC 9420 encodes HPKE public keys:
	// of the KEM of the line's suite.
	ReleaseKey []byte
	// Labels are the caller's own: they come back with the result.
	Labels map[string]string
}

// Fault is what is wrong with one line.
type Fault struct {
	Line int
	What string
}

// Error has all faults of a manifest, at least one, by line.
type Error struct{ Faults []Fault }

// shownFaults is how many faults an Error tells.
const shownFaults = 20

// Error tells the first twenty, a line each.
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

// faults collects what is wrong.
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

// check holds lines against each other and against what fits together.
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
		f.add(l.Number, "custody %q is none of wrapped, token, device and release", l.Custody)
		return
	}
	if l.Custody != Device && len(l.InitKey)+len(l.EncryptionKey) > 0 {
		f.add(l.Number, "init_key and encryption_key are for custody device")
	}
	if l.Custody != Release && len(l.ReleaseKey) > 0 {
		f.add(l.Number, "release_key is for custody release")
	}
}
