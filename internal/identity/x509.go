package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// ErrNoCertificate reports an identity that does not have its certificate yet.
var ErrNoCertificate = errors.New("it has no certificate yet")

// ChainError reports a chain of certificates that cannot be the credential of a
// signature key.
type ChainError struct {
	// Faults lists all faults, each as a clause.
	Faults []string
}

func (e *ChainError) Error() string {
	return "the certificates are not usable: " + strings.Join(e.Faults, "; ")
}

// CheckChain fails unless a chain can be the credential of a signature key in the encoding of RFC
// 9420, Section 5.1.1. The error is a *ChainError.
func CheckChain(chain certificate.Chain, signatureKey []byte, o certificate.Options) error {
	var faults []string
	if !chain.Certifies(signatureKey) {
		faults = append(faults, fmt.Sprintf("certificate 0 is for another key than the token's (its own is %s)", certificate.KeyName(chain[0])))
	}
	for _, f := range chain.Check(o) {
		faults = append(faults, f.String())
	}
	if len(faults) > 0 {
		return &ChainError{faults}
	}
	return nil
}

// clamp narrows a lifetime to that of the certificates, which must be valid at now.
func (id *Identity) clamp(l *keypackage.Lifetime, roots *x509.CertPool, now time.Time) error {
	if len(id.Credential.Certificates) == 0 {
		return ErrNoCertificate
	}
	chain, err := certificate.Parse(id.Credential.Certificates)
	if err != nil {
		return err
	}
	_, signatureKey, err := ciphersuite.MarshalPublicKey(id.Signer.Public())
	if err != nil {
		return err
	}
	if err := CheckChain(chain, signatureKey, certificate.Options{Now: now, Roots: roots}); err != nil {
		return err
	}
	notBefore, notAfter := chain.Validity()
	l.NotBefore = max(l.NotBefore, unix(notBefore))
	l.NotAfter = min(l.NotAfter, unix(notAfter))
	if l.NotAfter <= l.NotBefore {
		return &ChainError{[]string{fmt.Sprintf("the chain ends at %s, before a lifetime could begin", notAfter.UTC().Format(time.RFC3339))}}
	}
	return nil
}
