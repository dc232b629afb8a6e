package token

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"

	"github.com/cloudflare/circl/sign/ed448"
	"github.com/miekg/pkcs11"
)

// probeSign generates a session key pair, signs, and verifies in software.
func (s *session) probeSign(c Curve) error {
	spec := KeyPairSpec{Curve: c, ID: idOrRandom(nil), Label: "hsm-kp probe"}
	verify, private, err := s.generateOn(c, ofSession(keyPairTemplates(spec)))
	if err != nil {
		return err
	}
	info, err := s.describe(private, verify)
	if err != nil {
		return err
	}
	if info.Curve != c {
		return fmt.Errorf("generated a key on %v", info.Curve)
	}
	message := sha256.Sum256([]byte("probe of hsm-kp"))
	var sig []byte
	if c.params().edwards() {
		sig, err = s.signEdDSA(private, c, message[:])
	} else {
		sig, err = s.sign(mechanism(pkcs11.CKM_ECDSA, nil), private, message[:])
	}
	if err != nil {
		return err
	}
	if !verifies(info.Public, message[:], sig) {
		return errors.New("signature does not verify")
	}
	return nil
}

// ofSession makes the templates of token objects those of session objects.
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

// verifies verifies a raw signature: of a digest for ECDSA, a message for EdDSA.
func verifies(key crypto.PublicKey, input, sig []byte) bool {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		half := len(sig) / 2
		r, s := new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:])
		return ecdsa.Verify(key, input, r, s)
	case ed25519.PublicKey:
		return ed25519.Verify(key, input, sig)
	case ed448.PublicKey:
		return ed448.Verify(key, input, sig, "")
	}
	return false
}

// keyWraps are the mechanisms that may wrap an EC private key. What 0x210A does
// differs between vendors, so wrapping and unwrapping is all that is asked.
var keyWraps = []struct {
	name, constant string
	mechanism      uint
}{
	{"AES-KW-PAD", "CKM_AES_KEY_WRAP_PAD", ckmAESKeyWrapPad},
	{"AES-KWP", "CKM_AES_KEY_WRAP_KWP", ckmAESKeyWrapKWP},
}

// agreement is a key pair of the token for ECDH, and what it has to agree on with
// a throw-away key in software.
type agreement struct {
	private pkcs11.ObjectHandle
	peer    []byte // uncompressed point
	want    []byte
}

func (s *session) newAgreement(c Curve) (a agreement, err error) {
	var verify pkcs11.ObjectHandle
	verify, a.private, err = s.generateOn(c, templates{
		public: []*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, false)},
		private: []*pkcs11.Attribute{
			attr(pkcs11.CKA_TOKEN, false),
			attr(pkcs11.CKA_PRIVATE, true),
			attr(pkcs11.CKA_SENSITIVE, true),
			attr(pkcs11.CKA_EXTRACTABLE, true), // or it could not be wrapped
			attr(pkcs11.CKA_DERIVE, true),
		},
	})
	if err != nil {
		return a, err
	}
	info, err := s.describe(a.private, verify)
	if err != nil {
		return a, err
	}
	signing, ok := info.Public.(*ecdsa.PublicKey)
	if !ok {
		return a, fmt.Errorf("generated a key on %v", info.Curve)
	}
	public, err := signing.ECDH()
	if err != nil {
		return a, err
	}
	a.peer, a.want, err = agree(public)
	return a, err
}

// agree makes a throw-away key and returns its public point and the shared secret.
func agree(public *ecdh.PublicKey) (peer, secret []byte, err error) {
	key, err := public.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	secret, err = key.ECDH(public)
	return key.PublicKey().Bytes(), secret, err
}

func (s *session) probeDerive(c Curve) error {
	a, err := s.newAgreement(c)
	if err != nil {
		return err
	}
	return s.checkAgreement(a.private, a)
}

// checkAgreement derives in the token and compares.
func (s *session) checkAgreement(private pkcs11.ObjectHandle, a agreement) error {
	params := pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, a.peer)
	secret, err := s.api.DeriveKey(s.handle, mechanism(pkcs11.CKM_ECDH1_DERIVE, params), private, []*pkcs11.Attribute{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
		attr(pkcs11.CKA_TOKEN, false),
		attr(pkcs11.CKA_SENSITIVE, false),
		attr(pkcs11.CKA_EXTRACTABLE, true),
		attr(pkcs11.CKA_VALUE_LEN, len(a.want)),
	})
	if err != nil {
		return callError("C_DeriveKey", err)
	}
	value, err := s.attribute(secret, pkcs11.CKA_VALUE)
	if err != nil {
		return err
	}
	if !bytes.Equal(value, a.want) {
		return errors.New("derives another secret")
	}
	return nil
}

// probeWrap wraps a key pair's private half, unwraps it as one that cannot be
// wrapped again, and uses it.
func (s *session) probeWrap(c Curve, mech uint) error {
	wrapping, err := s.generateAES(aesTemplate(false, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP))
	if err != nil {
		return err
	}
	a, err := s.newAgreement(c)
	if err != nil {
		return err
	}
	wrapped, err := s.api.WrapKey(s.handle, mechanism(mech, nil), wrapping, a.private)
	if err != nil {
		return callError("C_WrapKey", err)
	}
	if len(wrapped) == 0 {
		return errors.New("wrapped key is empty")
	}
	private, err := s.api.UnwrapKey(s.handle, mechanism(mech, nil), wrapping, wrapped, []*pkcs11.Attribute{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
		attr(pkcs11.CKA_TOKEN, false),
		attr(pkcs11.CKA_PRIVATE, true),
		attr(pkcs11.CKA_SENSITIVE, true),
		attr(pkcs11.CKA_EXTRACTABLE, false),
		attr(pkcs11.CKA_DERIVE, true),
	})
	if err != nil {
		return callError("C_UnwrapKey", err)
	}
	return s.checkAgreement(private, a)
}
