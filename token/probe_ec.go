package token

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"github.com/cloudflare/circl/sign/ed448"
	"github.com/miekg/pkcs11"
)

// probeSign generates a session key pair, signs, and verifies in software.
func (s session) probeSign(c Curve) (err error) {
	spec := KeyPairSpec{Curve: c, ID: idOrRandom(nil), Label: probeLabel}
	pair, end, err := s.trial(func(onToken bool) ([]pkcs11.ObjectHandle, error) {
		t := keyPairTemplates(spec)
		if !onToken {
			t = ofSession(t)
		}
		verify, private, err := s.generateOn(c, t)
		return []pkcs11.ObjectHandle{private, verify}, err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	private, verify := pair[0], pair[1]
	info, err := s.describe(private, verify)
	if err != nil {
		return err
	}
	if info.Curve != c {
		return fmt.Errorf("generated a key on %v", info.Curve)
	}
	message := sha256.Sum256([]byte("probe of hsm-kp"))
	sig, err := s.signWith(private, c, message[:])
	if err != nil {
		return err
	}
	if !verifies(info.Public, message[:], sig) {
		return errors.New("signature does not verify")
	}
	return nil
}

// ofSession turns the templates of token objects into those of session objects.
func ofSession(t templates) templates {
	for _, template := range [][]*pkcs11.Attribute{t.public, t.private} {
		for i, a := range template {
			if a.Type == pkcs11.CKA_TOKEN {
				template[i] = attr(pkcs11.CKA_TOKEN, false)
			}
		}
	}
	return t
}

// verifies verifies a signature: of a digest for ECDSA, a message for EdDSA.
func verifies(key crypto.PublicKey, input, sig []byte) bool {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(key, input, sig)
	case ed25519.PublicKey:
		return ed25519.Verify(key, input, sig)
	case ed448.PublicKey:
		return ed448.Verify(key, input, sig, "")
	}
	return false
}

// probeDerive agrees on a secret with a key in software.
func (s session) probeDerive(c Curve) error {
	return s.withAgreementKey(c, func(public *ecdh.PublicKey, private pkcs11.ObjectHandle) error {
		return s.fits(private, public)
	})
}

// probeWrap wraps a key pair's private half, unwraps it as one that cannot be wrapped again, uses
// it, and checks that a damaged one is refused.
func (s session) probeWrap(c Curve, m KeyWrap) error {
	wrapping, err := s.generateAES(aesTemplate(false, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP))
	if err != nil {
		return err
	}
	pair, err := s.generateWrapped(m, wrapping, c)
	if err != nil {
		return err
	}
	public, wrapped := pair.public, pair.wrapped
	check := func(private pkcs11.ObjectHandle) error {
		return errors.Join(s.requireKept(private), s.fits(private, public))
	}
	if err := s.withUnwrapped(m, wrapping, wrapped, s.unwrapTemplate(public, false), check); err != nil {
		return err
	}
	wrapped[len(wrapped)/2] ^= 1
	err = s.withUnwrapped(m, wrapping, wrapped, s.unwrapTemplate(public, false), check)
	if err == nil {
		return errors.New("takes a damaged wrapped key")
	}
	if !errors.Is(err, ErrDecrypt) {
		return fmt.Errorf("damaged wrapped key: %w", err)
	}
	return nil
}

// requireKept fails if a key is not what its template made it: sensitive and not extractable.
func (s session) requireKept(private pkcs11.ObjectHandle) error {
	sensitive, errSensitive := s.Flag(private, pkcs11.CKA_SENSITIVE)
	extractable, errExtractable := s.Flag(private, pkcs11.CKA_EXTRACTABLE)
	if err := errors.Join(errSensitive, errExtractable); err != nil {
		return err
	}
	faults := Broken(AttributeRule{"CKA_SENSITIVE", sensitive, true, true}, AttributeRule{"CKA_EXTRACTABLE", extractable, false, true})
	if len(faults) > 0 {
		return fmt.Errorf("unwrapped key: %s", strings.Join(faults, ", "))
	}
	return nil
}
