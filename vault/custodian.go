package vault

import (
	"context"
	"fmt"
	"io"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
)

// The custodies of private keys: where they are made and kept.
const (
	// CustodyWrapped: made in software, sealed under a key of the token, and in the memory
	// of this process while they are used.
	CustodyWrapped = "wrapped"
	// CustodyToken: made, wrapped, unwrapped and used in the token. Only Diffie-Hellman
	// secrets leave it.
	CustodyToken = "token"
	// CustodyDevice: made and kept by a device, which gave the public keys. Nothing is
	// kept here.
	CustodyDevice = "device"
	// CustodyRelease: made and sealed as CustodyWrapped, handed over to one device, and
	// erased here once the device has them. Only the device uses them.
	CustodyRelease = "release"
)

// Binding is the key package that private keys belong to.
type Binding struct {
	Ref           []byte // KeyPackageRef, Nh bytes
	Suite         *ciphersuite.Suite
	InitKey       []byte // init_key, Npk bytes
	EncryptionKey []byte // encryption_key of the leaf node, Npk bytes
	// Release is the ReleaseDigest of the public key that private keys of CustodyRelease
	// may be released to. It is empty for other custodies.
	Release []byte
}

// label returns the label of what both private keys are bound to.
func (b *Binding) label() string {
	if len(b.Release) > 0 {
		return releaseLabel
	}
	return sealLabel
}

// to returns what private keys are bound to beside the label and the header of their blob.
func (b *Binding) to() [][]byte {
	if len(b.Release) > 0 {
		return [][]byte{b.Ref, b.Release}
	}
	return [][]byte{b.Ref}
}

// Custodian keeps the private keys of key packages under one wrapping key. Vault, RSAVault
// and TokenVault implement it. It is safe for concurrent use.
//
// Errors wrap ErrSealed if what was kept is at fault, and are the token's otherwise.
type Custodian interface {
	// KeyID returns the id of the wrapping key, which the caller must not change.
	KeyID() KeyID
	// Custody returns CustodyWrapped or CustodyToken.
	Custody() string
	// Recognize checks that the wrapping key made the stamp, and is no other key with the
	// same CKA_ID. The error wraps ErrStamp if it is another key.
	Recognize(ctx context.Context, stamp []byte) error
	// Serves returns an error if private keys of the suite cannot be kept under the key.
	// The error wraps ErrCustody, or is the token's.
	Serves(ctx context.Context, s *ciphersuite.Suite) error
	// Generate makes the two key pairs of a key package and returns them as a Fresh, which
	// the caller clears. rand is the source of keys that are made in software. It fails if
	// Serves does.
	Generate(ctx context.Context, rand io.Reader, s *ciphersuite.Suite) (Fresh, error)
	// Keys opens sealed, which Seal returned, and returns the private keys. The caller
	// clears them, and calls Check before they leave the program, or if they open nothing.
	Keys(ctx context.Context, b Binding, sealed []byte) (Keys, error)
	// KeepLeaf returns the private key of the leaf alone, sealed. k is what Keys returned
	// for sealed.
	KeepLeaf(ctx context.Context, rand io.Reader, b Binding, sealed []byte, k Keys) ([]byte, error)
	// Leaf opens leaf, which KeepLeaf returned, and returns the private key. The caller
	// clears it.
	Leaf(ctx context.Context, b Binding, leaf []byte) (Keys, error)
	// Rewrap opens sealed, which Seal returned, or KeepLeaf if leaf is true, and returns it
	// sealed by to, which must have the same custody.
	Rewrap(ctx context.Context, rand io.Reader, b Binding, sealed []byte, leaf bool, to Custodian) ([]byte, error)
}

// Fresh are two new key pairs, for a key package that is about to be made.
type Fresh interface {
	// InitKey and EncryptionKey return the public keys, Npk bytes each, which the caller
	// must not change.
	InitKey() []byte
	EncryptionKey() []byte
	// Seal returns the private keys sealed or wrapped by the custodian, and bound to the
	// key package. Of b it needs Ref, Suite and Release. rand is the source of the nonce.
	Seal(ctx context.Context, rand io.Reader, b Binding) ([]byte, error)
	// Clear overwrites the private keys that are in memory.
	Clear()
}

// Keys are the private keys of a key package, in memory or in the token. Init is nil if only
// the leaf's key was kept.
type Keys struct {
	Init       hpke.PrivateKey // of init_key
	Encryption hpke.PrivateKey // of the leaf node's encryption_key
}

// Secret returns the keys if they are in memory, and whether they are. It shares them with k.
func (k Keys) Secret() (PrivateKeys, bool) {
	initKey, _ := k.Init.(*hpke.SecretKey)
	encryption, ok := k.Encryption.(*hpke.SecretKey)
	return PrivateKeys{Init: initKey, Encryption: encryption}, ok
}

// Check computes the public keys of keys in memory and compares them with the recorded ones.
// The error wraps ErrSealed and ErrMixedUp. Keys in the token are compared when they open
// nothing.
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

// Clear overwrites the keys that are in memory.
func (k Keys) Clear() {
	secret, _ := k.Secret()
	secret.Clear()
}
