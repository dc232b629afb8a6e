package token

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // of OAEP, for tokens that know no other hash
	"crypto/sha256"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// OAEP is a variant of RSA-OAEP (RFC 8017, Section 7.1), with MGF1 over the same hash.
type OAEP struct {
	Hash crypto.Hash // crypto.SHA256 or crypto.SHA1
	// Labeled binds what is encrypted by OAEP's label. Some tokens ignore a label, and others
	// refuse any.
	Labeled bool
}

// OAEPs are the variants, the best first. SHA-1 is no worse here than another hash, and is what
// SoftHSM 2.6 has.
func OAEPs() []OAEP {
	return []OAEP{{crypto.SHA256, true}, {crypto.SHA256, false}, {crypto.SHA1, false}}
}

// String returns hash and use of the label, such as "SHA-256 with a label".
func (o OAEP) String() string {
	if o.Labeled {
		return o.Hash.String() + " with a label"
	}
	return o.Hash.String()
}

// label is the label for the bound data: SHA-256 over it, and a zero byte, which TPMs want at the
// end of a label (TPM 2.0, Part 1, Annex B.4).
func (o OAEP) label(bound []byte) []byte {
	if !o.Labeled {
		return nil
	}
	digest := sha256.Sum256(bound)
	return append(digest[:], 0)
}

// Capacity is how many bytes a key takes (RFC 8017, Section 7.1.1).
func (o OAEP) Capacity(key *rsa.PublicKey) int { return key.Size() - 2*o.Hash.Size() - 2 }

// Encrypt encrypts to an RSA key, in software. If the variant has a label, the plaintext is bound
// to bound.
func (o OAEP) Encrypt(to *rsa.PublicKey, plaintext, bound []byte) ([]byte, error) {
	return rsa.EncryptOAEP(o.Hash.New(), rand.Reader, to, plaintext, o.label(bound))
}

// oaepHash is a hash of OAEP as PKCS#11 knows it.
type oaepHash struct{ hash, mgf uint }

var oaepHashes = map[crypto.Hash]oaepHash{
	crypto.SHA1:   {pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1},
	crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
}

// Decrypt decrypts in the token (CKM_RSA_PKCS_OAEP) what o.Encrypt encrypted. The caller clears
// the plaintext. It fails with ErrDecrypt if key, ciphertext or bound data is not the right one;
// other errors are the token's.
func (k *DecryptionKey) Decrypt(ctx context.Context, o OAEP, ciphertext, bound []byte) ([]byte, error) {
	if len(ciphertext) != k.public.Size() {
		return nil, fmt.Errorf("decrypt under key %x: %w: %d bytes, want %d", k.id, ErrDecrypt, len(ciphertext), k.public.Size())
	}
	if new(big.Int).SetBytes(ciphertext).Cmp(k.public.N) >= 0 { // a TPM in software reports its own failure
		return nil, fmt.Errorf("decrypt under key %x: %w: it is out of range", k.id, ErrDecrypt)
	}
	plaintext, err := do(ctx, k.token, func(s session) ([]byte, error) {
		h, err := k.in(s)
		if err != nil {
			return nil, err
		}
		return s.decryptOAEP(h.Key, o, ciphertext, bound)
	})
	if err != nil {
		return nil, fmt.Errorf("decrypt under key %x: %w", k.id, err)
	}
	return plaintext, nil
}

func (s session) decryptOAEP(key pkcs11.ObjectHandle, o OAEP, ciphertext, bound []byte) ([]byte, error) {
	plaintext, err := s.DecryptOAEP(key, oaepHashes[o.Hash].hash, oaepHashes[o.Hash].mgf, o.label(bound), ciphertext)
	if call, ok := errors.AsType[*Error](err); ok && call.Func == "C_Decrypt" && slices.Contains(badCiphertext, call.RV) {
		return nil, fmt.Errorf("%w: %w", ErrDecrypt, err)
	}
	return plaintext, err
}

// Variant finds out, by trying, by which variant of OAEP the token decrypts under the key: the
// best one. It fails with ErrUnsupported if there is none.
func (k *DecryptionKey) Variant(ctx context.Context) (OAEP, error) {
	o, err := do(ctx, k.token, func(s session) (OAEP, error) {
		h, err := k.in(s)
		if err != nil {
			return OAEP{}, err
		}
		return s.variantOf(h.Key, k.public)
	})
	if err != nil {
		return OAEP{}, fmt.Errorf("try key %x: %w", k.id, err)
	}
	return o, nil
}

// variantOf tries one variant after the other. Each gets a session of its own: one in which an
// operation failed may be unfit for another.
func (s session) variantOf(private pkcs11.ObjectHandle, public *rsa.PublicKey) (OAEP, error) {
	var faults []error
	for _, o := range OAEPs() {
		err := s.tryOAEP(o, private, public)
		if err == nil {
			return o, nil
		}
		if !refusesOAEP(err) {
			return OAEP{}, err
		}
		faults = append(faults, fmt.Errorf("%v: %w", o, err))
	}
	return OAEP{}, fmt.Errorf("%w: the token decrypts by no variant of RSA-OAEP: %w", ErrUnsupported, errors.Join(faults...))
}

// errOtherPlaintext reports a token that decrypts to another plaintext.
var errOtherPlaintext = errors.New("what was encrypted opens as something else")

// tryOAEP encrypts to a key and decrypts. This also shows that the label matters: what was
// encrypted with a label does not decrypt without it. There is no trial that must fail: after
// one, tpm2-pkcs11 does not let the key be destroyed any more.
func (s session) tryOAEP(o OAEP, private pkcs11.ObjectHandle, public *rsa.PublicKey) error {
	var plaintext [32]byte
	rand.Read(plaintext[:]) // never fails
	bound := []byte("probe of hsm-kp")
	ciphertext, err := o.Encrypt(public, plaintext[:], bound)
	if err != nil {
		return err
	}
	own, err := s.another()
	if err != nil {
		return err
	}
	opened, err := own.decryptOAEP(private, o, ciphertext, bound)
	err = errors.Join(err, own.Close())
	if err == nil && !bytes.Equal(opened, plaintext[:]) {
		err = errOtherPlaintext
	}
	return err
}

// refusesOAEP reports whether a trial failed because the token does not know the variant.
func refusesOAEP(err error) bool {
	return errors.Is(err, ErrDecrypt) ||
		engine.FailedWith(err, engine.CKR_ARGUMENTS_BAD, engine.CKR_MECHANISM_INVALID, engine.CKR_MECHANISM_PARAM_INVALID, engine.CKR_FUNCTION_NOT_SUPPORTED)
}
