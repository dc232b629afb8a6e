package server

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Errors about a client's certificate and the revocation lists of its issuer.
var (
	errRevoked   = errors.New("the client's certificate is revoked")
	errStaleCRL  = errors.New("the revocation list of the client's issuer is out of date")
	errFutureCRL = errors.New("the revocation list of the client's issuer begins in the future")
	errNoCRL     = errors.New("there is no revocation list of the client's issuer")
)

// revocation says which clients' certificates are revoked. If it is in use, a certificate whose
// issuer has no current list is refused too: what cannot be determined is not granted.
type revocation struct {
	inUse bool
	lists []revocationList
}

// revocationList is a list, and the certificate whose key has signed it.
type revocationList struct {
	*x509.RevocationList
	signer *x509.Certificate
}

// isOf reports whether a list is that of an issuer: by name and key, which may have several
// certificates.
func (l *revocationList) isOf(issuer *x509.Certificate) bool {
	return bytes.Equal(l.RawIssuer, issuer.RawSubject) && bytes.Equal(l.signer.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo)
}

// revokes reports whether a certificate is in the list.
func (l *revocationList) revokes(c *x509.Certificate) bool {
	return slices.ContainsFunc(l.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(c.SerialNumber) == 0 })
}

// check looks up the certificates of verified chains. A chain is good if none of its certificates is
// revoked; one good chain is enough.
func (r *revocation) check(chains [][]*x509.Certificate, now time.Time) error {
	if !r.inUse {
		return nil
	}
	fault := errNoCRL // if there is no chain at all
	for _, chain := range chains {
		if fault = r.checkChain(chain, now); fault == nil {
			return nil
		}
	}
	return fault
}

// checkChain looks up every certificate but the last, which the config trusts.
func (r *revocation) checkChain(chain []*x509.Certificate, now time.Time) error {
	for i := range len(chain) - 1 {
		if err := r.checkOne(chain[i], chain[i+1], now); err != nil {
			return err
		}
	}
	return nil
}

// checkOne looks a certificate up in all lists of its issuer, one of which must be current (RFC 5280,
// Section 6.3.3). An older one still counts against a certificate.
func (r *revocation) checkOne(c, issuer *x509.Certificate, now time.Time) error {
	fault := errNoCRL
	for i := range r.lists {
		list := &r.lists[i]
		switch {
		case !list.isOf(issuer):
		case list.revokes(c):
			return errRevoked
		case fault != nil:
			fault = current(list, now)
		}
	}
	return fault
}

// current returns an error if a list is not current.
func current(list *revocationList, now time.Time) error {
	switch {
	case list.ThisUpdate.After(now):
		return errFutureCRL
	case now.After(list.NextUpdate):
		return errStaleCRL
	}
	return nil
}

// loadCRLs reads the revocation lists of a file. Each must be a complete list of one of the
// authorities; an empty path is no file.
func loadCRLs(path string, authorities []*x509.Certificate) (revocation, error) {
	if path == "" {
		return revocation{}, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return revocation{}, err
	}
	out := revocation{inUse: true}
	for _, der := range derOf(data) {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return revocation{}, fmt.Errorf("%s: %w", path, err)
		}
		signer, err := signerOf(list, authorities)
		if err != nil {
			return revocation{}, fmt.Errorf("%s: the list of %v %w", path, list.Issuer, err)
		}
		out.lists = append(out.lists, revocationList{list, signer})
	}
	return out, nil
}

// Faults of a list that is refused when it is loaded.
var (
	errListSigner     = errors.New("is signed by no certificate in client_ca that may sign lists (cRLSign)")
	errListEndless    = errors.New("does not say when the next one comes")
	errListIncomplete = errors.New("is a delta, partial or indirect one; a complete one is needed")
)

// signerOf returns the authority that has signed a list. It refuses a list that could not be used:
// one that no authority has signed, or that is not a complete one of its issuer (RFC 5280, Sections
// 5.2.4, 5.2.5 and 5.3).
func signerOf(list *x509.RevocationList, authorities []*x509.Certificate) (*x509.Certificate, error) {
	i := slices.IndexFunc(authorities, func(ca *x509.Certificate) bool {
		return bytes.Equal(list.RawIssuer, ca.RawSubject) && list.CheckSignatureFrom(ca) == nil
	})
	isCritical := func(e pkix.Extension) bool { return e.Critical }
	switch {
	case i < 0:
		return nil, errListSigner
	case list.NextUpdate.IsZero():
		return nil, errListEndless
	case slices.ContainsFunc(list.Extensions, isCritical),
		slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return slices.ContainsFunc(e.Extensions, isCritical) }):
		return nil, errListIncomplete
	}
	return authorities[i], nil
}

// derOf returns the contents of data's PEM blocks, or data itself if it has none.
func derOf(data []byte) [][]byte {
	var out [][]byte
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		out = append(out, block.Bytes)
	}
	if len(out) == 0 {
		return [][]byte{data}
	}
	return out
}
