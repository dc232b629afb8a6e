package engine

import (
	"errors"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/onecall"
)

// oneCalls are whole operations in as few calls as possible.
type oneCalls interface {
	Sign(session, mechanism uint, parameter []byte, key uint, in, out []byte) ([]byte, error)
	EncryptGCM(session, key uint, g onecall.GCM, in, out []byte) ([]byte, error)
	DecryptGCM(session, key uint, g onecall.GCM, in, out []byte) ([]byte, error)
	DecryptOAEP(session, key uint, o onecall.OAEP, in, out []byte) ([]byte, error)
	Wrap(session, mechanism, wrapping, key uint, out []byte) ([]byte, error)
	Attribute(session, object, attribute uint, out []byte) ([]byte, error)
	Attributes(session, object uint, types, lens []uint) ([]byte, error)
}

var _ oneCalls = (*onecall.Library)(nil)

// oneError makes an *Error of an error of oneCalls.
func oneError(err error) error {
	if call, ok := errors.AsType[*onecall.Failed](err); ok {
		return &Error{Func: call.Func, RV: RV(call.RV)}
	}
	return err
}

// Sizes of AES-256-GCM in bytes.
const (
	nonceSize = 12
	tagSize   = 16
)

// mechanism is a mechanism with its parameter in the form the calls take.
func mechanism(m uint, parameter any) []*pkcs11.Mechanism {
	return []*pkcs11.Mechanism{pkcs11.NewMechanism(m, parameter)}
}

// spare is room beyond what an operation returns, for tokens that want some.
const spare = 64

// Sign signs by C_SignInit and C_Sign. size is how long the signature will be.
func (s *Session) Sign(mech uint, parameter []byte, key pkcs11.ObjectHandle, input []byte, size int) ([]byte, error) {
	if s.one != nil {
		sig, err := s.one.Sign(uint(s.handle), mech, parameter, uint(key), input, make([]byte, size+spare))
		return sig, oneError(err)
	}
	var p any
	if parameter != nil {
		p = parameter
	}
	if err := s.api.SignInit(s.handle, mechanism(mech, p), key); err != nil {
		return nil, callError("C_SignInit", err)
	}
	sig, err := s.api.Sign(s.handle, input)
	return sig, callError("C_Sign", err)
}

// EncryptGCM encrypts by C_EncryptInit and C_Encrypt, and returns the nonce that was used.
func (s *Session) EncryptGCM(key pkcs11.ObjectHandle, nonce [nonceSize]byte, plaintext, aad []byte) (sealed, used []byte, err error) {
	if s.one != nil {
		g := onecall.GCM{Mechanism: pkcs11.CKM_AES_GCM, IV: nonce[:], AAD: aad, TagBits: 8 * tagSize}
		sealed, err = s.one.EncryptGCM(uint(s.handle), uint(key), g, plaintext, make([]byte, len(plaintext)+tagSize+spare))
		return sealed, g.IV, oneError(err)
	}
	params := pkcs11.NewGCMParams(nonce[:], aad, 8*tagSize)
	defer params.Free()
	if err := s.api.EncryptInit(s.handle, mechanism(pkcs11.CKM_AES_GCM, params), key); err != nil {
		return nil, nil, callError("C_EncryptInit", err)
	}
	sealed, err = s.api.Encrypt(s.handle, plaintext)
	return sealed, params.IV(), callError("C_Encrypt", err)
}

// DecryptGCM decrypts by C_DecryptInit and C_Decrypt.
func (s *Session) DecryptGCM(key pkcs11.ObjectHandle, nonce [nonceSize]byte, ciphertext, aad []byte) ([]byte, error) {
	if s.one != nil {
		g := onecall.GCM{Mechanism: pkcs11.CKM_AES_GCM, IV: nonce[:], AAD: aad, TagBits: 8 * tagSize}
		plaintext, err := s.one.DecryptGCM(uint(s.handle), uint(key), g, ciphertext, make([]byte, len(ciphertext)+spare))
		return plaintext, oneError(err)
	}
	params := pkcs11.NewGCMParams(nonce[:], aad, 8*tagSize)
	defer params.Free()
	if err := s.api.DecryptInit(s.handle, mechanism(pkcs11.CKM_AES_GCM, params), key); err != nil {
		return nil, callError("C_DecryptInit", err)
	}
	plaintext, err := s.api.Decrypt(s.handle, ciphertext)
	return plaintext, callError("C_Decrypt", err)
}

// maxAttribute is longer than the attributes that are read here, except for labels and
// identifiers that somebody else chose.
const maxAttribute = 512

// readAttribute reads one attribute by C_GetAttributeValue.
func (s *Session) readAttribute(o pkcs11.ObjectHandle, t uint) ([]byte, error) {
	if s.one != nil {
		value, err := s.one.Attribute(uint(s.handle), uint(o), t, make([]byte, maxAttribute))
		if err = oneError(err); !FailedWith(err, CKR_BUFFER_TOO_SMALL) {
			return value, err
		}
	}
	a, err := s.api.GetAttributeValue(s.handle, o, []*pkcs11.Attribute{attr(t, nil)})
	if err != nil {
		return nil, callError("C_GetAttributeValue", err)
	}
	return a[0].Value, nil
}

// DecryptOAEP decrypts by C_DecryptInit and C_Decrypt, with RSA-OAEP.
func (s *Session) DecryptOAEP(key pkcs11.ObjectHandle, hash, mgf uint, label, ciphertext []byte) ([]byte, error) {
	if s.one != nil {
		o := onecall.OAEP{Mechanism: pkcs11.CKM_RSA_PKCS_OAEP, Hash: hash, MGF: mgf, Source: pkcs11.CKZ_DATA_SPECIFIED, Label: label}
		plaintext, err := s.one.DecryptOAEP(uint(s.handle), uint(key), o, ciphertext, make([]byte, len(ciphertext)+spare))
		return plaintext, oneError(err)
	}
	params := pkcs11.NewOAEPParams(hash, mgf, pkcs11.CKZ_DATA_SPECIFIED, label)
	if err := s.api.DecryptInit(s.handle, mechanism(pkcs11.CKM_RSA_PKCS_OAEP, params), key); err != nil {
		return nil, callError("C_DecryptInit", err)
	}
	plaintext, err := s.api.Decrypt(s.handle, ciphertext)
	return plaintext, callError("C_Decrypt", err)
}

// maxWrapped is longer than any wrapped EC private key.
const maxWrapped = 1024

// WrapKey wraps by C_WrapKey, by a mechanism without parameter.
func (s *Session) WrapKey(mech uint, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	if s.one != nil {
		wrapped, err := s.one.Wrap(uint(s.handle), mech, uint(wrapping), uint(key), make([]byte, maxWrapped))
		return wrapped, oneError(err)
	}
	wrapped, err := s.api.WrapKey(s.handle, mechanism(mech, nil), wrapping, key)
	return wrapped, callError("C_WrapKey", err)
}
