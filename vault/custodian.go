package vault

import (
	"context"
	"fmt"
	"io"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
)

// The custodies of private keys.
const (
	// CustodyWrapped: generated in software, sealed so that only a key of the token opens
	// them, and in the memory of this process while they are used.
	CustodyWrapped = "wrapped"
	// CustodyToken: generated, wrapped, unwrapped and used in the token. What comes out
	// of it are Diffie-Hellman secrets.
	CustodyToken = "token"
	// CustodyDevice: made and kept by a device, which gave the public keys. There is nothing
	// in the vault.
	CustodyDevice = "device"
	// CustodyRelease: as CustodyWrapped, until a device has them that they are released to:
	// nobody else uses them, and once it has them they are erased here.
	CustodyRelease = "release"
)

// Binding is the key package that private keys are of.
type Binding struct {
	Ref           []byte // KeyPackageRef, Nh bytes
	Suite         *ciphersuite.Suite
	InitKey       []byte // init_key, Npk bytes
	EncryptionKey []byte // encryption_key of the leaf node, Npk bytes
	// Release is the ReleaseDigest of the public key that the private keys may be released
	// to, where they are of CustodyRelease; else it is empty.
	Release []byte
}

// label is that of what both private keys are bound to.
func (b *Binding) label() string {
	if len(b.Release) > 0 {
		return releaseLabel
	}
	return sealLabel
}

// to is what private keys are bound to beside their label and the header of their blob.
func (b *Binding) to() [][]byte {
	if len(b.Release) > 0 {
		return [][]byte{b.Ref, b.Release}
	}
	return [][]byte{b.Ref}
}

// Custodian keeps the private keys of key packages under one wrapping key. Vault, RSAVault
// and TokenVault are the three. It is safe for concurrent use.
//
// Errors wrap ErrSealed where what was kept is at fault, and are the token's otherwise.
type Custodian interface {
	// KeyID returns the id of the wrapping key, which must not be changed.
	KeyID() KeyID
	// Custody returns CustodyWrapped or CustodyToken.
	Custody() string
	// Recognize checks that the wrapping key is the one that made the stamp, and no
	// other under the same CKA_ID. The error wraps ErrStamp where it is not.
	Recognize(ctx context.Context, stamp []byte) error
	// Serves reports why private keys of the suite cannot be kept so in this token.
	Serves(ctx context.Context, s *ciphersuite.Suite) error
	// Generate makes the two key pairs of a key package.
	Generate(ctx context.Context, rand io.Reader, s *ciphersuite.Suite) (Fresh, error)
	// Keys returns the private keys that were kept. The caller clears them, and calls
	// Check where they leave the program, or open nothing.
	Keys(ctx context.Context, b Binding, sealed []byte) (Keys, error)
	// KeepLeaf returns the private key of the leaf alone in the form in which it is
	// kept; k is what Keys returned for sealed.
	KeepLeaf(ctx context.Context, rand io.Reader, b Binding, sealed []byte, k Keys) ([]byte, error)
	// Leaf returns the private key that KeepLeaf was given. The caller clears it.
	Leaf(ctx context.Context, b Binding, leaf []byte) (Keys, error)
	// Rewrap returns what was kept, or a leaf alone where leaf is set, in the form in
	// which to keeps it, which must be of the same custody.
	Rewrap(ctx context.Context, rand io.Reader, b Binding, sealed []byte, leaf bool, to Custodian) ([]byte, error)
}

// Fresh are two key pairs whose key package is about to be made.
type Fresh interface {
	// InitKey and EncryptionKey return the public keys, Npk bytes each.
	InitKey() []byte
	EncryptionKey() []byte
	// Seal returns the private keys in the form in which they are kept, bound to the key
	// package.
	Seal(ctx context.Context, rand io.Reader, b Binding) ([]byte, error)
	// Clear forgets them.
	Clear()
}

// Keys are the private keys of a key package, in memory or in the token. Init is nil
// where only the leaf's was kept.
type Keys struct {
	Init       hpke.PrivateKey // of init_key
	Encryption hpke.PrivateKey // of the leaf node's encryption_key
}

// Secret returns the keys where they are in memory; keys in the token have no bytes to
// show.
func (k Keys) Secret() (PrivateKeys, bool) {
	initKey, _ := k.Init.(*hpke.SecretKey)
	encryption, ok := k.Encryption.(*hpke.SecretKey)
	return PrivateKeys{Init: initKey, Encryption: encryption}, ok
}

// Check computes the public keys of what is in memory, and compares. The error wraps
// ErrSealed and ErrMixedUp. Keys in the token are compared when they fail.
func (k Keys) Check() error {
	for _, key := range []hpke.PrivateKey{k.Init, k.Encryption} {
		if secret, ok := key.(*hpke.SecretKey); ok {
			if err := secret.Check(); err != nil {
				return fmt.Errorf("%w: %w: %w", ErrSealed, ErrMixedUp, err)
			}
		}
	}
	return nil
}

// Clear overwrites what is in memory of them.
func (k Keys) Clear() {
	secret, _ := k.Secret()
	secret.Clear()
}
