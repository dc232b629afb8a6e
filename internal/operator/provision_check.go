package operator

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/manifest"
	"github.com/hsm-kp/hsm-kp/internal/policy"
)

// CheckManifest refuses, with a *manifest.Error, what a manifest may say and this config cannot
// do. It needs no token.
func (o *Operator) CheckManifest(lines []manifest.Line) error {
	var faults []manifest.Fault
	for i := range lines {
		if err := o.checkLine(&lines[i]); err != nil {
			faults = append(faults, manifest.Fault{Line: lines[i].Number, What: err.Error()})
		}
	}
	if faults != nil {
		return &manifest.Error{Faults: faults}
	}
	return nil
}

func (o *Operator) checkLine(l *manifest.Line) error {
	if err := identity.CheckName(l.Name); err != nil {
		return err
	}
	suite, err := policy.Suite(o.settings, l.Suite)
	if err != nil {
		return err
	}
	if err := checkKeys(l, suite); err != nil {
		return err
	}
	if l.Credential != manifest.X509 {
		return nil
	}
	if suite.Signature == ciphersuite.ED448 {
		return fmt.Errorf("credential x509: %w, and %v has Ed448 keys", certificate.ErrKey, suite.ID)
	}
	_, err = o.certificateOf(l)
	return err
}

// checkKeys checks the public keys of a line.
func checkKeys(l *manifest.Line, suite *ciphersuite.Suite) error {
	switch l.Custody {
	case manifest.Device:
		for _, key := range [][]byte{l.InitKey, l.EncryptionKey} {
			if err := hpke.ValidPublicKey(suite, key); err != nil {
				return err
			}
		}
		if bytes.Equal(l.InitKey, l.EncryptionKey) {
			return errors.New("init_key and encryption_key are the same")
		}
	case manifest.Release:
		if err := hpke.ValidPublicKey(suite, l.ReleaseKey); err != nil {
			return fmt.Errorf("release_key: %w", err)
		}
	}
	return nil
}

// certificateOf returns the request for a device's certificate.
func (o *Operator) certificateOf(l *manifest.Line) (r certificate.Request, err error) {
	subject, _ := o.subjectOf(l.Name)
	if r.Subject, err = certificate.ParseName(cmp.Or(l.Subject, subject)); err != nil {
		return r, err
	}
	own := o.settings.Identities[l.Name]
	r.DNSNames, r.Emails, r.URIs = own.DNSNames, own.Emails, own.URIs
	if len(l.DNSNames)+len(l.Emails)+len(l.URIs) > 0 {
		r.DNSNames, r.Emails, r.URIs = l.DNSNames, l.Emails, l.URIs
	}
	return r, r.Check()
}
