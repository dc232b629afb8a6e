package hpke

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	stdlib "crypto/hpke"

	circl "github.com/cloudflare/circl/hpke"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

// library does the work for a suite: circl for those of RFC 9420, crypto/hpke for the
// post-quantum ones. Private keys are passed and returned as Nsk bytes, which the caller
// owns.
type library interface {
	// generate makes a key pair from randomness.
	generate(rand io.Reader) (public, private []byte, err error)
	// publicOf computes the public key. It fails if the private key is out of range. No
	// error has bytes of the key in it.
	publicOf(private []byte) ([]byte, error)
	// check returns an error if public, Npk bytes, is not a public key.
	check(public []byte) error
	// seal is the single-shot encryption of RFC 9180, Section 6.1, in base mode.
	seal(public, info, aad, plaintext []byte) (kemOutput, ciphertext []byte, err error)
	// open decrypts what seal encrypted.
	open(private, info, aad, kemOutput, ciphertext []byte) ([]byte, error)
}

func libraryOf(s *ciphersuite.Suite) library {
	if s.Experimental {
		return standard{s}
	}
	return classic{circl.NewSuite(circl.KEM(s.KEM), circl.KDF(s.KDF), circl.AEAD(s.AEAD)), circl.KEM(s.KEM)}
}

// classic is circl.
type classic struct {
	suite circl.Suite
	kem   circl.KEM
}

// generate draws a scalar for a NIST curve, and uses DeriveKeyPair (RFC 9180, Section
// 7.1.3) for the others.
func (c classic) generate(rand io.Reader) (public, private []byte, err error) {
	if curve := c.curve(); curve != nil {
		return drawScalar(curve, c.kem.Scheme().PrivateKeySize(), rand)
	}
	ikm := make([]byte, c.kem.Scheme().SeedSize())
	defer clear(ikm)
	if _, err := io.ReadFull(rand, ikm); err != nil {
		return nil, nil, err
	}
	publicKey, privateKey := c.kem.Scheme().DeriveKeyPair(ikm)
	if public, err = publicKey.MarshalBinary(); err != nil {
		return nil, nil, err
	}
	private, err = privateKey.MarshalBinary()
	return public, private, err
}

// curve returns the NIST curve of the KEM, or nil.
func (c classic) curve() ecdh.Curve {
	switch c.kem {
	case circl.KEM_P256_HKDF_SHA256:
		return ecdh.P256()
	case circl.KEM_P384_HKDF_SHA384:
		return ecdh.P384()
	case circl.KEM_P521_HKDF_SHA512:
		return ecdh.P521()
	}
	return nil
}

// drawScalar draws candidates of n bytes until one is between 0 and the order of the curve
// (FIPS 186-5, Appendix A.2.2). That is the first one, except once in 2^32 times. The key
// need not be derived again, and the HKDF of DeriveKeyPair costs a quarter of a P-256 key
// pair.
func drawScalar(curve ecdh.Curve, n int, rand io.Reader) (public, private []byte, err error) {
	private = make([]byte, n)
	for range 16 {
		if _, err := io.ReadFull(rand, private); err != nil {
			clear(private)
			return nil, nil, err
		}
		if curve == ecdh.P521() { // 521 bits of 66 bytes
			private[0] &= 1
		}
		if key, err := curve.NewPrivateKey(private); err == nil {
			return key.PublicKey().Bytes(), private, nil
		}
	}
	return nil, nil, errors.New("the source of randomness gives no scalar in range")
}

// errOutOfRange replaces every error about a private key: circl's errors have the key in
// them.
var errOutOfRange = errors.New("it is out of range")

func (c classic) publicOf(private []byte) ([]byte, error) {
	key, err := c.kem.Scheme().UnmarshalBinaryPrivateKey(private)
	if err != nil {
		return nil, errOutOfRange
	}
	return key.Public().MarshalBinary()
}

func (c classic) check(public []byte) error {
	if smallOrder(c.kem, public) {
		return errors.New("it is a point of small order")
	}
	if curve := c.curve(); curve != nil {
		_, err := curve.NewPublicKey(public)
		return err
	}
	_, err := c.kem.Scheme().UnmarshalBinaryPublicKey(public)
	return err
}

func (c classic) seal(public, info, aad, plaintext []byte) (kemOutput, ciphertext []byte, err error) {
	key, err := c.kem.Scheme().UnmarshalBinaryPublicKey(public)
	if err != nil {
		return nil, nil, err
	}
	sender, err := c.suite.NewSender(key, info)
	if err != nil {
		return nil, nil, err
	}
	kemOutput, sealer, err := sender.Setup(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	ciphertext, err = sealer.Seal(plaintext, aad)
	return kemOutput, ciphertext, err
}

func (c classic) open(private, info, aad, kemOutput, ciphertext []byte) ([]byte, error) {
	key, err := c.kem.Scheme().UnmarshalBinaryPrivateKey(private)
	if err != nil {
		return nil, errOutOfRange
	}
	receiver, err := c.suite.NewReceiver(key, info)
	if err != nil {
		return nil, err
	}
	opener, err := receiver.Setup(kemOutput)
	if err != nil {
		return nil, err
	}
	return opener.Open(ciphertext, aad)
}

// standard is crypto/hpke, which has the hybrid KEMs of draft-ietf-hpke-pq. Their private
// keys are seeds: any Nsk bytes.
type standard struct{ suite *ciphersuite.Suite }

func (s standard) algorithms() (stdlib.KEM, stdlib.KDF, stdlib.AEAD, error) {
	kem, err := stdlib.NewKEM(s.suite.KEM)
	if err != nil {
		return nil, nil, nil, err
	}
	kdf, err := stdlib.NewKDF(s.suite.KDF)
	if err != nil {
		return nil, nil, nil, err
	}
	aead, err := stdlib.NewAEAD(s.suite.AEAD)
	return kem, kdf, aead, err
}

func (s standard) generate(rand io.Reader) (public, private []byte, err error) {
	private = make([]byte, s.suite.Nsk)
	if _, err := io.ReadFull(rand, private); err != nil {
		return nil, nil, err
	}
	if public, err = s.publicOf(private); err != nil {
		clear(private)
		return nil, nil, err
	}
	return public, private, nil
}

func (s standard) publicOf(private []byte) ([]byte, error) {
	kem, _, _, err := s.algorithms()
	if err != nil {
		return nil, err
	}
	key, err := kem.NewPrivateKey(private)
	if err != nil {
		return nil, errOutOfRange
	}
	return key.PublicKey().Bytes(), nil
}

func (s standard) check(public []byte) error {
	kem, _, _, err := s.algorithms()
	if err != nil {
		return err
	}
	if kem.ID() == stdlib.MLKEM768X25519().ID() && smallOrder(circl.KEM_X25519_HKDF_SHA256, public[len(public)-32:]) {
		return errors.New("its X25519 part is a point of small order")
	}
	_, err = kem.NewPublicKey(public)
	return err
}

func (s standard) seal(public, info, aad, plaintext []byte) (kemOutput, ciphertext []byte, err error) {
	kem, kdf, aead, err := s.algorithms()
	if err != nil {
		return nil, nil, err
	}
	key, err := kem.NewPublicKey(public)
	if err != nil {
		return nil, nil, err
	}
	kemOutput, sender, err := stdlib.NewSender(key, kdf, aead, info)
	if err != nil {
		return nil, nil, err
	}
	ciphertext, err = sender.Seal(aad, plaintext)
	return kemOutput, ciphertext, err
}

func (s standard) open(private, info, aad, kemOutput, ciphertext []byte) ([]byte, error) {
	kem, kdf, aead, err := s.algorithms()
	if err != nil {
		return nil, err
	}
	key, err := kem.NewPrivateKey(private)
	if err != nil {
		return nil, errOutOfRange
	}
	receiver, err := stdlib.NewRecipient(kemOutput, key, kdf, aead, info)
	if err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	return receiver.Open(aad, ciphertext)
}
