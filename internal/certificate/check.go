package certificate

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Kind says what is wrong with a chain.
type Kind int

const (
	// Expired: a certificate's notAfter has passed.
	Expired Kind = iota + 1
	// NotYetValid: a certificate's notBefore is in the future.
	NotYetValid
	// WrongUsage: the end entity's key usage does not let it sign.
	WrongUsage
	// OutOfOrder: a certificate was not issued by the one after it.
	OutOfOrder
	// MayNotSign: an issuer is not a CA, or its key usage does not let it sign certificates.
	MayNotSign
	// TooLong: there are more CAs below an issuer than its path length allows.
	TooLong
	// BadSignature: a signature does not verify under the issuer's key, or its algorithm cannot be
	// trusted.
	BadSignature
	// UnknownRoot: the chain ends at none of the roots.
	UnknownRoot
	// NotAcceptable: another rule of RFC 5280 is broken, such as a name
	// constraint, or a critical extension is not understood.
	NotAcceptable
)

// Fault is one thing that is wrong with a chain.
type Fault struct {
	Kind Kind
	// Index is the index of the faulty certificate; the end entity's is 0.
	Index int
	// Detail is a clause that continues "certificate 0".
	Detail string
}

// String returns a sentence without its full stop.
func (f Fault) String() string { return fmt.Sprintf("certificate %d %s", f.Index, f.Detail) }

// Options are the parameters of a check.
type Options struct {
	// Now is the time at which the certificates must be valid.
	Now time.Time
	// Roots are the trust anchors. If nil, the anchors are unknown, and the last certificate of the
	// chain is taken for one.
	Roots *x509.CertPool
}

// MaxLength is the length of the longest chain that is checked: each certificate costs a
// verification, and anyone can send many.
const MaxLength = 16

// Check returns all faults of the chain as the credential of a signer (RFC 5280, Section 6, by
// crypto/x509). Each certificate must be issued by the next. The trust anchor may be included or
// left out (RFC 9420, Section 5.3).
//
// Certifies checks whose key it certifies. Nothing checks revocation.
func (c Chain) Check(o Options) []Fault {
	if len(c) > MaxLength {
		return []Fault{{NotAcceptable, MaxLength, fmt.Sprintf("is one too many: of %d, %d are looked at", len(c), MaxLength)}}
	}
	faults := c.unfit()
	if len(faults) > 0 {
		return faults
	}
	for i := range c {
		faults = append(faults, c.validAt(i, o.Now)...)
	}
	if usage := c[0].KeyUsage; usage != 0 && usage&x509.KeyUsageDigitalSignature == 0 {
		faults = append(faults, Fault{WrongUsage, 0, "may not sign: its key usage lacks digitalSignature"})
	}
	for i := range c[1:] {
		faults = append(faults, c.issuedByNext(i)...)
	}
	// A certificate in the wrong place says nothing about the path to the roots; other faults would
	// be reported again, less clearly.
	gap := func(f Fault) bool { return f.Kind == OutOfOrder }
	if len(faults) == 0 || o.Roots != nil && !slices.ContainsFunc(faults, func(f Fault) bool { return !gap(f) }) {
		faults = append(faults, c.verify(o)...)
	}
	return faults
}

// maxRSABits is the length of the longest RSA key whose signatures are verified: the work grows
// with the square of the length, and anyone can send a long key.
const maxRSABits = 8192

// unfit returns the faults that rule out further checks: a certificate that occurs twice, an
// unknown critical extension, an RSA key that is too long.
func (c Chain) unfit() []Fault {
	var faults []Fault
	for i, certificate := range c {
		if slices.ContainsFunc(c[:i], certificate.Equal) {
			faults = append(faults, Fault{NotAcceptable, i, "stands there twice"})
		}
		if key, ok := certificate.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSABits {
			faults = append(faults, Fault{NotAcceptable, i, fmt.Sprintf("has an RSA key of %d bits, %d are looked at", key.N.BitLen(), maxRSABits)})
		}
		if len(certificate.UnhandledCriticalExtensions) > 0 {
			faults = append(faults, Fault{NotAcceptable, i, fmt.Sprintf("has the critical extension %v, which is not understood", certificate.UnhandledCriticalExtensions[0])})
		}
	}
	return faults
}

func (c Chain) validAt(i int, now time.Time) []Fault {
	switch {
	case now.After(c[i].NotAfter):
		return []Fault{{Expired, i, fmt.Sprintf("expired at %s", c[i].NotAfter.UTC().Format(time.RFC3339))}}
	case now.Before(c[i].NotBefore):
		return []Fault{{NotYetValid, i, fmt.Sprintf("is not valid before %s", c[i].NotBefore.UTC().Format(time.RFC3339))}}
	}
	return nil
}

// issuedByNext returns why certificate i was not issued by the next one. A self-signed certificate
// may stand for its issuer: it is the anchor.
func (c Chain) issuedByNext(i int) []Fault {
	child, parent := c[i], c[i+1]
	if !bytes.Equal(child.RawIssuer, parent.RawSubject) {
		return []Fault{{OutOfOrder, i, fmt.Sprintf("was issued by %q, and the next one is %q", child.Issuer, parent.Subject)}}
	}
	var faults []Fault
	switch {
	case !parent.BasicConstraintsValid || !parent.IsCA:
		faults = append(faults, Fault{MayNotSign, i + 1, "is not a CA: its basic constraints do not say so"})
	case parent.KeyUsage != 0 && parent.KeyUsage&x509.KeyUsageCertSign == 0:
		faults = append(faults, Fault{MayNotSign, i + 1, "may not issue certificates: its key usage lacks keyCertSign"})
	}
	// Certificates 1 to i are CAs below this one. Self-issued ones count, as in crypto/x509; RFC
	// 5280, Section 6.1.4 (l), would not count them.
	below := i
	if limited := parent.MaxPathLen > 0 || parent.MaxPathLenZero; limited && below > parent.MaxPathLen {
		faults = append(faults, Fault{TooLong, i + 1, fmt.Sprintf("allows %d CAs below it, and there are %d", parent.MaxPathLen, below)})
	}
	if err := parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature); err != nil {
		faults = append(faults, Fault{BadSignature, i, fmt.Sprintf("has a signature that does not verify with the key of the next one: %v", err)})
	}
	return faults
}

// verify lets crypto/x509 find a path to a root.
func (c Chain) verify(o Options) []Fault {
	options := x509.VerifyOptions{
		CurrentTime:   o.Now,
		Intermediates: x509.NewCertPool(),
		Roots:         o.Roots,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // none is defined for MLS
	}
	for _, ca := range c[1:] {
		options.Intermediates.AddCert(ca)
	}
	if o.Roots == nil {
		options.Roots = x509.NewCertPool()
		options.Roots.AddCert(c[len(c)-1])
	}
	_, err := c[0].Verify(options)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		last := len(c) - 1
		return []Fault{{UnknownRoot, last, fmt.Sprintf("leads to none of the roots: it was issued by %q", c[last].Issuer)}}
	}
	return []Fault{{NotAcceptable, 0, fmt.Sprintf("is not acceptable: %v", err)}}
}
