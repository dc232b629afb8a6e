package vault

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
)

// RSAVault seals to an RSA key of the token (RSA-OAEP), for tokens without AES-GCM such as
// TPMs. It is safe for concurrent use. It needs Recognize or Prove before anything else.
//
// Sealing needs no call to the token, opening does. The custody is CustodyWrapped.
type RSAVault struct {
	decryption *token.DecryptionKey
	stamping   *token.SigningKey
	id         KeyID
	// recognized is nil until Recognize or Prove has checked the RSA key: nothing is
	// encrypted to a key that somebody may have put in its place.
	recognized atomic.Pointer[rsaKeys]
}

// rsaKeys is what Recognize finds in a stamp.
type rsaKeys struct {
	algorithm uint8
	oaep      token.OAEP
	mac       []byte // key of the MAC
}

var errUnrecognized = errors.New("the wrapping key was not recognized yet")

func (v *RSAVault) keys() (*rsaKeys, error) {
	k := v.recognized.Load()
	if k == nil {
		return nil, errUnrecognized
	}
	return k, nil
}

// CreateRSAKey generates a wrapping key in the token, an RSA key pair that can only decrypt,
// and a key pair on P-256 that makes its stamps (see StampingKeyID). It tries them out and
// returns the stamp for Recognize. Keys that fail are destroyed.
func CreateRSAKey(ctx context.Context, t *token.Token, rand io.Reader, id KeyID, label string) ([]byte, error) {
	stamping, err := t.GenerateKeyPair(ctx, token.KeyPairSpec{Curve: token.P256, ID: StampingKeyID(id), Label: label})
	if err != nil {
		return nil, err
	}
	decryption, err := t.GenerateDecryptionKey(ctx, id, label)
	// The keys must not stay behind, even if ctx is done.
	uncut := context.WithoutCancel(ctx)
	if err != nil {
		return nil, errors.Join(err, t.DestroyKeyPair(uncut, stamping))
	}
	stamp, err := proveRSAKey(ctx, t, rand, decryption.ID())
	if err != nil {
		return nil, errors.Join(err, t.DestroyDecryptionKey(uncut, decryption), t.DestroyKeyPair(uncut, stamping))
	}
	return stamp, nil
}

func proveRSAKey(ctx context.Context, t *token.Token, rand io.Reader, id KeyID) ([]byte, error) {
	v, err := OpenRSA(ctx, t, id)
	if err != nil {
		return nil, err
	}
	return v.Prove(ctx, rand)
}

// OpenRSA finds the wrapping key with the given id and its stamping key, and checks their
// attributes. The RSAVault is of use after Recognize or Prove. The error wraps
// token.ErrNotFound, token.ErrAmbiguousKey or ErrWeakKey, or is the token's.
func OpenRSA(ctx context.Context, t *token.Token, id KeyID) (*RSAVault, error) {
	decryption, err := t.FindDecryptionKey(ctx, id)
	if err != nil {
		return nil, err
	}
	stamping, err := t.FindKeyPair(ctx, token.KeyQuery{ID: StampingKeyID(id)})
	if err != nil {
		return nil, err
	}
	if stamping.Curve() != token.P256 {
		return nil, fmt.Errorf("open stamping key %x: %w: it is on %v", stamping.ID(), token.ErrUnsupported, stamping.Curve())
	}
	for _, k := range []struct {
		read   func(context.Context) (token.KeyAttributes, error)
		faults func(token.KeyAttributes) []string
	}{{decryption.Attributes, decryptionWeaknesses}, {stamping.Attributes, stampingWeaknesses}} {
		attributes, err := k.read(ctx)
		if err != nil {
			return nil, err
		}
		if faults := k.faults(attributes); len(faults) > 0 {
			return nil, fmt.Errorf("open wrapping key %v: %w: %s", id, ErrWeakKey, strings.Join(faults, ", "))
		}
	}
	return &RSAVault{decryption: decryption, stamping: stamping, id: decryption.ID()}, nil
}

// Prove implements Sealer. It checks that the token opens what is encrypted to the key, and
// that what the stamping key signs verifies. The first time, it finds the variant of OAEP
// that the token takes by trying.
func (v *RSAVault) Prove(ctx context.Context, rand io.Reader) ([]byte, error) {
	keys, err := v.keysToProve(ctx, rand)
	if err != nil {
		return nil, err
	}
	s := ownStamp{rsaStamp: rsaStamp{algorithm: keys.algorithm, id: v.id}}
	if s.public, err = x509.MarshalPKIXPublicKey(v.decryption.Public()); err != nil {
		return nil, err
	}
	if s.macKey, err = keys.oaep.Encrypt(v.decryption.Public(), keys.mac, s.macKeyBound()); err != nil {
		return nil, err
	}
	if err := s.sign(v.stamping, kindWrappingKey, s.record()); err != nil {
		return nil, fmt.Errorf("stamp %s: %w", kindWrappingKey, err)
	}
	stamp := s.bytes()
	return stamp, v.Recognize(ctx, stamp)
}

// keysToProve returns the recognized keys, or new ones.
func (v *RSAVault) keysToProve(ctx context.Context, rand io.Reader) (*rsaKeys, error) {
	if k := v.recognized.Load(); k != nil {
		return k, nil
	}
	o, err := v.decryption.Variant(ctx)
	if err != nil {
		return nil, err
	}
	k := &rsaKeys{oaep: o, mac: make([]byte, macSize)}
	if k.algorithm, err = algorithmOf(o); err == nil {
		_, err = io.ReadFull(rand, k.mac)
	}
	return k, err
}

// KeyID implements Custodian.
func (v *RSAVault) KeyID() KeyID { return v.id }

// Custody implements Custodian.
func (v *RSAVault) Custody() string { return CustodyWrapped }

// Serves implements Custodian. Private keys can be sealed if they fit into the RSA key: with
// 2048 bits and SHA-256, those of all suites of RFC 9420 do.
func (v *RSAVault) Serves(_ context.Context, s *ciphersuite.Suite) error {
	k, err := v.keys()
	if err != nil {
		return err
	}
	size := 2 * (wire.VectorLen(s.Nsk) + s.Nsk)
	if room := k.oaep.Capacity(v.decryption.Public()); size > room {
		return fmt.Errorf("%w: those of %v have %d bytes, and an RSA key of %d bits takes %d", ErrCustody, s.ID, size, v.decryption.Public().N.BitLen(), room)
	}
	return nil
}

// Generate implements Custodian.
func (v *RSAVault) Generate(ctx context.Context, rand io.Reader, s *ciphersuite.Suite) (Fresh, error) {
	if err := v.Serves(ctx, s); err != nil {
		return nil, err
	}
	return generate(v, rand, s)
}

// Seal implements Sealer. It makes no call to the token. The randomness of OAEP is that of
// crypto/rand.
func (v *RSAVault) Seal(_ context.Context, _ io.Reader, b Binding, k PrivateKeys) ([]byte, error) {
	if err := sealable(b, k); err != nil {
		return nil, fmt.Errorf("seal private keys: %w", err)
	}
	plaintext, err := encodePrivateKeys(b.Suite, k)
	defer clear(plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal private keys: %w", err)
	}
	return v.seal(b.label(), b, plaintext)
}

func (v *RSAVault) seal(label string, b Binding, plaintext []byte) ([]byte, error) {
	k, err := v.keys()
	if err != nil {
		return nil, fmt.Errorf("seal private keys: %w", err)
	}
	blob := RSABlob{Algorithm: k.algorithm, Suite: b.Suite.ID, KeyID: v.id}
	bound := blob.boundData(label, b.to()...)
	if blob.Ciphertext, err = k.oaep.Encrypt(v.decryption.Public(), plaintext, bound); err != nil {
		return nil, fmt.Errorf("seal private keys: %w", err)
	}
	blob.MAC = blob.mac(k.mac, bound)
	return blob.Bytes(), nil
}

// unseal opens a blob that was sealed under a label for a key package. It refuses a blob that
// this key did not seal before it calls the token.
func (v *RSAVault) unseal(ctx context.Context, label string, b Binding, sealed []byte) ([]byte, error) {
	k, err := v.keys()
	if err != nil {
		return nil, fmt.Errorf("unseal private keys: %w", err)
	}
	blob, err := ParseRSABlob(sealed)
	if err != nil {
		return nil, err
	}
	if blob.Suite != b.Suite.ID || !bytes.Equal(blob.KeyID, v.id) || blob.Algorithm != k.algorithm {
		return nil, fmt.Errorf("%w: they are for %v under wrapping key %v by algorithm %d, want %v under %v by %d",
			ErrSealed, blob.Suite, blob.KeyID, blob.Algorithm, b.Suite.ID, v.id, k.algorithm)
	}
	bound := blob.boundData(label, b.to()...)
	if mac := blob.mac(k.mac, bound); !hmac.Equal(mac[:], blob.MAC[:]) {
		return nil, fmt.Errorf("%w: wrong MAC", ErrSealed)
	}
	plaintext, err := v.decryption.Decrypt(ctx, k.oaep, blob.Ciphertext, bound)
	if errors.Is(err, token.ErrDecrypt) {
		return nil, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	if err != nil {
		return nil, fmt.Errorf("unseal private keys: %w", err)
	}
	return plaintext, nil
}

// Keys implements Custodian. It compares the private keys with the public ones each time,
// because the key of the MAC is in the memory of this process: somebody who reads it there
// can make blobs, but none that fits a key package of others.
func (v *RSAVault) Keys(ctx context.Context, b Binding, sealed []byte) (Keys, error) {
	return v.open(ctx, b.label(), b, sealed, decodeKeys)
}

// KeepLeaf implements Custodian. It returns an RSABlob with the plaintext and the label of
// Vault.KeepLeaf.
func (v *RSAVault) KeepLeaf(_ context.Context, _ io.Reader, b Binding, _ []byte, k Keys) ([]byte, error) {
	plaintext, err := encodeLeaf(b.Suite, k)
	defer clear(plaintext)
	if err != nil {
		return nil, fmt.Errorf("seal leaf key: %w", err)
	}
	return v.seal(leafLabel, b, plaintext)
}

// Leaf implements Custodian.
func (v *RSAVault) Leaf(ctx context.Context, b Binding, leaf []byte) (Keys, error) {
	return v.open(ctx, leafLabel, b, leaf, decodeLeaf)
}

func (v *RSAVault) open(ctx context.Context, label string, b Binding, sealed []byte, decode func(Binding, []byte) (Keys, error)) (Keys, error) {
	plaintext, err := v.unseal(ctx, label, b, sealed)
	if err != nil {
		return Keys{}, err
	}
	defer clear(plaintext)
	keys, err := decode(b, plaintext)
	if err != nil {
		return Keys{}, err
	}
	if err := keys.Check(); err != nil {
		keys.Clear()
		return Keys{}, err
	}
	return keys, nil
}

// Rewrap implements Custodian. The private keys are in memory meanwhile.
func (v *RSAVault) Rewrap(ctx context.Context, rand io.Reader, b Binding, sealed []byte, leaf bool, to Custodian) ([]byte, error) {
	return resealed(ctx, rand, v, b, sealed, leaf, to)
}
