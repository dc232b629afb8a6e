// Package inventory is the life of key packages: they are generated in
// batches, their private keys sealed and stored before anything of them is
// shown, and taken out again.
//
// The order of its steps is the promise of the whole program. Two HPKE key
// pairs are made, both signatures are made in the token and verified in
// software, both private keys are sealed under the wrapping key, the batch is
// committed to the store; only then does a caller see a key package. A crash
// between any two steps leaves at most sealed keys that nobody was told about.
package inventory

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// CustodyWrapped is the custody of private keys that were generated in
// software and sealed under a wrapping key of the token.
const CustodyWrapped = "wrapped"

// ErrAmbiguousRef reports a prefix that more than one KeyPackageRef begins
// with.
var ErrAmbiguousRef = errors.New("more than one key package begins so")

// ErrRef reports text that is no KeyPackageRef and no prefix of one.
var ErrRef = errors.New("not a KeyPackageRef in hexadecimal")

// Config is what an Inventory works with. All fields are required.
type Config struct {
	// Store keeps the records.
	Store store.Store
	// OpenVault finds the wrapping key with the given id in the token.
	OpenVault func(context.Context, vault.KeyID) (*vault.Vault, error)
	// Rand is the source of private keys and nonces, read by all workers at once.
	Rand io.Reader
	// Workers is how many key packages are in the making at once: the number
	// of the token's sessions, or more where processors outnumber them.
	Workers int
	// Batch is how many key packages one transaction of the store takes, 1 or
	// more.
	Batch int
}

// Inventory makes, keeps and hands out key packages. It is safe for concurrent
// use.
type Inventory struct {
	Config

	mu     sync.Mutex
	vaults map[string]*vault.Vault
}

// New returns an inventory over c.
func New(c Config) *Inventory {
	return &Inventory{Config: c, vaults: make(map[string]*vault.Vault)}
}

// vault returns the vault of one wrapping key, found in the token and recognized
// once.
func (inv *Inventory) vault(ctx context.Context, id vault.KeyID) (*vault.Vault, error) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if v, ok := inv.vaults[string(id)]; ok {
		return v, nil
	}
	v, err := inv.OpenVault(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open wrapping key %v: %w", id, err)
	}
	if err := inv.recognize(ctx, v); err != nil {
		return nil, fmt.Errorf("recognize wrapping key %v: %w", id, err)
	}
	inv.vaults[string(id)] = v
	return v, nil
}

// Resolve returns the one KeyPackageRef that begins with prefix, which is
// hexadecimal and at least four digits long. The error is ErrRef,
// store.ErrNotFound or ErrAmbiguousRef.
func (inv *Inventory) Resolve(ctx context.Context, prefix string) (keypackage.Ref, error) {
	lo, hi, err := refRange(prefix)
	if err != nil {
		return nil, err
	}
	refs, err := inv.Store.FindRefs(ctx, lo, hi, 2)
	switch {
	case err != nil:
		return nil, fmt.Errorf("find key package %s: %w", prefix, err)
	case len(refs) == 0:
		return nil, fmt.Errorf("find key package %s: %w", prefix, store.ErrNotFound)
	case len(refs) > 1:
		return nil, fmt.Errorf("find key package %s: %w", prefix, ErrAmbiguousRef)
	}
	return refs[0], nil
}

// Find returns the record of the one key package whose ref begins with prefix.
// The error is Resolve's.
func (inv *Inventory) Find(ctx context.Context, prefix string) (store.KeyPackage, error) {
	ref, err := inv.Resolve(ctx, prefix)
	if err != nil {
		return store.KeyPackage{}, err
	}
	return inv.Store.KeyPackage(ctx, ref)
}

// maxRefBytes is the length of the longest KeyPackageRef: SHA-512.
const maxRefBytes = 64

// refRange returns the least and the greatest KeyPackageRef that begin with
// the hexadecimal digits in prefix.
func refRange(prefix string) (lo, hi []byte, err error) {
	if len(prefix) < 4 || len(prefix) > 2*maxRefBytes {
		return nil, nil, fmt.Errorf("%w: the length of %q is %d, 4 to %d digits are taken", ErrRef, prefix, len(prefix), 2*maxRefBytes)
	}
	odd := len(prefix) % 2
	lo, err = hex.DecodeString(prefix + strings.Repeat("0", odd))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %q", ErrRef, prefix)
	}
	hi = bytes.Clone(lo)
	if odd == 1 {
		hi[len(hi)-1] |= 0x0F
	}
	return lo, append(hi, bytes.Repeat([]byte{0xFF}, maxRefBytes-len(hi))...), nil
}

// ErrSuiteUnknown reports a key package of a cipher suite that is neither in RFC 9420
// nor registered.
var ErrSuiteUnknown = errors.New("it is not known")

// ErrMixedUp reports a record whose key package is not the one that its ref, or
// its private keys, are of.
var ErrMixedUp = errors.New("record was changed outside of hsm-kp: its parts are not of one key package")

// Public returns the key package of a record. Its ref is computed anew: what
// leaves the program is what the ref names. The error wraps ErrMixedUp where it
// is not, or ErrSuiteUnknown.
func Public(record *store.KeyPackage) (*keypackage.KeyPackage, error) {
	kp, err := keypackage.Parse(record.Public)
	if err != nil {
		return nil, fmt.Errorf("read stored key package %x: %w: %w", record.Ref, ErrMixedUp, err)
	}
	if _, ok := ciphersuite.Lookup(kp.CipherSuite); !ok {
		return nil, fmt.Errorf("read stored key package %x: cipher suite %v: %w", record.Ref, kp.CipherSuite, ErrSuiteUnknown)
	}
	ref, err := kp.Ref()
	if err != nil || !bytes.Equal(ref, record.Ref) || record.Suite != uint16(kp.CipherSuite) {
		return nil, fmt.Errorf("read stored key package %x: %w", record.Ref, ErrMixedUp)
	}
	return kp, nil
}

// PrivateKeys unseals the private keys of the key package ref. The caller
// clears them. The error is store.ErrNotFound where there is no such key
// package, store.ErrConsumed or store.ErrExpired where they are erased, and wraps ErrMixedUp where the keys
// do not fit the public part.
func (inv *Inventory) PrivateKeys(ctx context.Context, ref keypackage.Ref) (vault.PrivateKeys, error) {
	record, err := inv.Store.KeyPackage(ctx, ref)
	if err != nil {
		return vault.PrivateKeys{}, fmt.Errorf("load key package %v: %w", ref, err)
	}
	kp, err := Public(&record)
	if err != nil {
		return vault.PrivateKeys{}, err
	}
	return inv.unseal(ctx, &record, kp)
}

// unseal unseals the private keys of a record, whose key package is kp.
func (inv *Inventory) unseal(ctx context.Context, record *store.KeyPackage, kp *keypackage.KeyPackage) (vault.PrivateKeys, error) {
	ref := keypackage.Ref(record.Ref)
	if record.State == store.Consumed {
		return vault.PrivateKeys{}, fmt.Errorf("unseal key package %v: %w", ref, store.ErrConsumed)
	}
	if record.State == store.Expired {
		return vault.PrivateKeys{}, fmt.Errorf("unseal key package %v: %w", ref, store.ErrExpired)
	}
	suite, ok := ciphersuite.Lookup(kp.CipherSuite)
	if !ok {
		return vault.PrivateKeys{}, fmt.Errorf("unseal key package %v: unknown cipher suite %v", ref, kp.CipherSuite)
	}
	v, err := inv.vault(ctx, record.WrappingKeyID)
	if err != nil {
		return vault.PrivateKeys{}, err
	}
	keys, err := v.Unseal(ctx, ref, suite, record.Sealed)
	if err != nil {
		return vault.PrivateKeys{}, fmt.Errorf("unseal key package %v: %w", ref, err)
	}
	if !bytes.Equal(keys.Init.PublicKey(), kp.InitKey) || !bytes.Equal(keys.Encryption.PublicKey(), kp.LeafNode.EncryptionKey) {
		keys.Clear()
		return vault.PrivateKeys{}, fmt.Errorf("unseal key package %v: %w", ref, ErrMixedUp)
	}
	return keys, nil
}
