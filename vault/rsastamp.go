package vault

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
)

// An RSA key cannot make stamps: anybody can encrypt to it. Stamps are signatures by a second
// key pair of the token, on P-256, which is made and destroyed together with the RSA key.

// StampingKeyID returns the CKA_ID of the key pair that makes the stamps of an RSA key: the
// first 16 bytes of SHA-256 over "hsm-kp stamping key" and the RSA key's CKA_ID.
func StampingKeyID(id KeyID) KeyID {
	digest := sha256.Sum256(append([]byte("hsm-kp stamping key"), id...))
	return digest[:16]
}

// rsaStamp is a stamp. Its bytes are
//
//	uint8  version = 1
//	uint8  algorithm                 4 to 6, as in an RSABlob
//	uint16 cipher_suite = 0
//	opaque wrapping_key_id<V>        CKA_ID of the RSA key
//	opaque signature<V>              ECDSA with P-256 and SHA-256, DER
//
// and the signature covers
//
//	opaque label<V> = "hsm-kp stamp"
//	all bytes of the stamp before the signature
//	opaque kind<V>
//	opaque record<V>
type rsaStamp struct {
	algorithm uint8
	id        KeyID
	signature []byte
}

// readRSAStamp reads a stamp. If version, algorithm or suite is another one, id is nil.
func readRSAStamp(r *wire.Reader) rsaStamp {
	version, algorithm, suite := r.Uint8(), r.Uint8(), r.Uint16()
	s := rsaStamp{algorithm: algorithm, id: r.Vector(), signature: r.Vector()}
	if _, ok := oaepAlgorithms[algorithm]; !ok || version != blobVersion || suite != 0 {
		s.id = nil
	}
	return s
}

func (s *rsaStamp) bytes() []byte {
	return wire.AppendVector(appendHeader(nil, s.algorithm, 0, s.id), s.signature)
}

func (s *rsaStamp) signed(kind string, record []byte) []byte {
	out := wire.AppendVector(nil, []byte(stampLabel))
	out = appendHeader(out, s.algorithm, 0, s.id)
	out = wire.AppendVector(out, []byte(kind))
	return wire.AppendVector(out, record)
}

// errSignature reports a signature by another key pair than the token was asked for.
var errSignature = errors.New("the token returned a signature that does not verify")

// sign makes the signature and verifies it. A faulty token would otherwise make a record that
// is refused from then on.
func (s *rsaStamp) sign(key *token.SigningKey, kind string, record []byte) error {
	digest := sha256.Sum256(s.signed(kind, record))
	var err error
	if s.signature, err = key.Sign(nil, digest[:], crypto.SHA256); err != nil {
		return err
	}
	if !s.verifies(key, kind, record) {
		return errSignature
	}
	return nil
}

func (s *rsaStamp) verifies(key *token.SigningKey, kind string, record []byte) bool {
	public, ok := key.Public().(*ecdsa.PublicKey)
	digest := sha256.Sum256(s.signed(kind, record))
	return ok && ecdsa.VerifyASN1(public, digest[:], s.signature)
}

// Stamp implements Sealer. The token signs.
func (v *RSAVault) Stamp(_ context.Context, _ io.Reader, kind string, record []byte) ([]byte, error) {
	k, err := v.keys()
	if err != nil {
		return nil, fmt.Errorf("stamp %s: %w", kind, err)
	}
	s := rsaStamp{algorithm: k.algorithm, id: v.id}
	if err := s.sign(v.stamping, kind, record); err != nil {
		return nil, fmt.Errorf("stamp %s: %w", kind, err)
	}
	return s.bytes(), nil
}

// CheckStamp implements Sealer. It makes no call to the token.
func (v *RSAVault) CheckStamp(_ context.Context, kind string, record, stamp []byte) error {
	k, err := v.keys()
	if err != nil {
		return fmt.Errorf("check %s: %w", kind, err)
	}
	r := wire.NewReader(stamp)
	s := readRSAStamp(r)
	if r.Finish() != nil || !bytes.Equal(s.id, v.id) || s.algorithm != k.algorithm || !s.verifies(v.stamping, kind, record) {
		return fmt.Errorf("check %s: %w", kind, ErrStamp)
	}
	return nil
}

// ownStamp is the stamp by which Recognize recognizes an RSA key. Its bytes are those of a
// stamp of kind "wrapping key", followed by
//
//	opaque public_key<V>             the RSA key's SubjectPublicKeyInfo, DER
//	opaque mac_key<V>                32 random bytes, encrypted to it
//
// Its record is wrapping_key_id<V>, public_key<V> and mac_key<V>.
type ownStamp struct {
	rsaStamp
	public, macKey []byte
}

func parseOwnStamp(stamp []byte) (ownStamp, error) {
	r := wire.NewReader(stamp)
	s := ownStamp{readRSAStamp(r), r.Vector(), r.Vector()}
	return s, r.Finish()
}

func (s *ownStamp) bytes() []byte {
	return wire.AppendVector(wire.AppendVector(s.rsaStamp.bytes(), s.public), s.macKey)
}

func (s *ownStamp) record() []byte {
	return wire.AppendVector(wire.AppendVector(wire.AppendVector(nil, s.id), s.public), s.macKey)
}

// macKeyBound is what the key of the MAC is bound to.
func (s *ownStamp) macKeyBound() []byte {
	return appendHeader(wire.AppendVector(nil, []byte("hsm-kp mac key")), s.algorithm, 0, s.id)
}

// Recognize implements Custodian. It checks three things. The stamp has the RSA key, to which
// private keys will be encrypted, and verifies with the public stamping key. The token signs
// a nonce: so nobody has put that public key there alone, which a token in a file may allow.
// The token opens the key of the MAC: so it has the private RSA key.
func (v *RSAVault) Recognize(ctx context.Context, stamp []byte) error {
	s, err := parseOwnStamp(stamp)
	if err == nil && !bytes.Equal(s.id, v.id) {
		err = errors.New("it is of another key")
	}
	if err == nil {
		err = s.names(v.decryption.Public())
	}
	if err == nil && !s.verifies(v.stamping, kindWrappingKey, s.record()) {
		err = errors.New("its signature is not of this key")
	}
	if err != nil {
		return fmt.Errorf("check wrapping key: %w: %w", ErrStamp, err)
	}
	if err := v.challenge(); err != nil {
		return fmt.Errorf("check wrapping key: %w", err)
	}
	o := oaepAlgorithms[s.algorithm] // readRSAStamp has checked it
	key, err := v.decryption.Decrypt(ctx, o, s.macKey, s.macKeyBound())
	if err == nil && len(key) != macSize {
		err = fmt.Errorf("%w: a MAC key of %d bytes", token.ErrDecrypt, len(key))
	}
	if errors.Is(err, token.ErrDecrypt) {
		return fmt.Errorf("check wrapping key: %w: %w", ErrStamp, err)
	}
	if err != nil {
		return fmt.Errorf("check wrapping key: %w", err)
	}
	v.recognized.Store(&rsaKeys{s.algorithm, o, key})
	return nil
}

// names returns an error if the stamp has another RSA key.
func (s *ownStamp) names(key *rsa.PublicKey) error {
	public, err := x509.ParsePKIXPublicKey(s.public)
	if err == nil && !key.Equal(public) {
		err = errors.New("its RSA key is another one")
	}
	return err
}

// kindChallenge is the kind of a stamp that proves that the token has the stamping key.
const kindChallenge = "challenge"

// challenge has the token sign a fresh nonce.
func (v *RSAVault) challenge() error {
	nonce := make([]byte, 32)
	rand.Read(nonce) // never fails
	s := rsaStamp{algorithm: algorithmOAEP256Labeled, id: v.id}
	err := s.sign(v.stamping, kindChallenge, nonce)
	if errors.Is(err, errSignature) {
		err = fmt.Errorf("%w: %w", ErrStamp, err)
	}
	return err
}
