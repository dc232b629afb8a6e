// Package inventory manages the life of key packages: it generates them in batches, seals and
// stores their private keys before it shows anything of them, and takes them out again.
//
// The order of its steps is the promise of the whole program. It makes two HPKE key pairs, makes
// both signatures in the token and verifies them in software, seals both private keys under the
// wrapping key, and commits the batch to the store; only then does a caller see a key package. A
// crash between any two steps leaves at most sealed keys that nobody has seen.
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
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// ErrAmbiguousRef reports a prefix of more than one KeyPackageRef.
var ErrAmbiguousRef = errors.New("more than one key package begins with these digits")

// ErrRef reports text that is neither a KeyPackageRef nor a prefix of one.
var ErrRef = errors.New("not a KeyPackageRef in hexadecimal")

// Ring is the part of the token that holds wrapping keys and other keys that records depend on.
type Ring interface {
	// Open finds a wrapping key in the token.
	Open(ctx context.Context, id vault.KeyID, m vault.Mechanism) (vault.Custodian, error)
	// Create makes a wrapping key in the token, tests it and returns its stamp. It leaves no key
	// behind that fails.
	Create(ctx context.Context, id vault.KeyID, m vault.Mechanism, label string) ([]byte, error)
	// Destroy destroys a key in the token. It succeeds if there is no such key.
	Destroy(ctx context.Context, o store.Object, id []byte) error
	// Discard destroys a wrapping key that the token was making when it was stopped, and no other.
	Discard(ctx context.Context, id vault.KeyID, label string) error
	// Serial returns the serial number of the token.
	Serial() string
}

// Store is what an Inventory needs of a store.
type Store interface {
	store.Identities
	store.WrappingKeys
	store.KeyPackages
	store.Handovers
	store.Backlogs
	Account(ctx context.Context, directory string, client []byte) (store.Account, error)
	Accounts(ctx context.Context, wrappingKeyID []byte) ([]store.Account, error)
	SetAccount(ctx context.Context, a store.Account) error
	Record(ctx context.Context, entries ...audit.Entry) error
}

// Config configures an Inventory. All fields are required, except Ring for work that needs no
// token.
type Config struct {
	// Store keeps the records.
	Store Store
	// Ring has the wrapping keys.
	Ring Ring
	// Rand is the source of private keys and nonces, read by all workers at once.
	Rand io.Reader
	// Workers is how many key packages are made at once: the number of the token's sessions, or of
	// the processors if that is larger.
	Workers int
	// Batch is how many key packages go in one transaction of the store, 1 or more.
	Batch int
}

// Inventory makes, keeps and hands out key packages. It is safe for concurrent
// use.
type Inventory struct {
	store   Store
	ring    Ring
	rand    io.Reader
	workers int
	batch   int

	mu     sync.Mutex
	vaults map[string]vault.Custodian
}

// New returns an inventory over c.
func New(c Config) *Inventory {
	return &Inventory{store: c.Store, ring: c.Ring, rand: c.Rand, workers: c.Workers, batch: c.Batch, vaults: make(map[string]vault.Custodian)}
}

// TokenSerial returns the serial number of the token.
func (inv *Inventory) TokenSerial() string { return inv.ring.Serial() }

// custodian returns the custodian of a wrapping key. It finds and recognizes the key in the token
// once.
func (inv *Inventory) custodian(ctx context.Context, id vault.KeyID) (vault.Custodian, error) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	if v, ok := inv.vaults[string(id)]; ok {
		return v, nil
	}
	record, err := inv.wrappingKey(ctx, id)
	if err != nil {
		return nil, err
	}
	v, err := inv.Recognize(ctx, &record)
	if err != nil {
		return nil, err
	}
	inv.vaults[string(id)] = v
	return v, nil
}

// Recognize finds a wrapping key in the token, and sees that it is the one that was recorded.
func (inv *Inventory) Recognize(ctx context.Context, key *store.WrappingKey) (vault.Custodian, error) {
	m, err := MechanismOf(key)
	if err != nil {
		return nil, err
	}
	v, err := inv.ring.Open(ctx, key.ID, m)
	if err != nil {
		return nil, fmt.Errorf("open wrapping key %v: %w", vault.KeyID(key.ID), err)
	}
	if err := v.Recognize(ctx, key.Stamp); err != nil {
		return nil, fmt.Errorf("recognize wrapping key %v: %w", vault.KeyID(key.ID), err)
	}
	return v, nil
}

// Resolve returns the one KeyPackageRef that begins with prefix, at least four hexadecimal digits.
// The error is ErrRef, store.ErrNotFound or ErrAmbiguousRef.
func (inv *Inventory) Resolve(ctx context.Context, prefix string) (keypackage.Ref, error) {
	lo, hi, err := refRange(prefix)
	if err != nil {
		return nil, err
	}
	refs, err := inv.store.FindRefs(ctx, lo, hi, 2)
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

// Find returns the record of the one key package whose ref begins with prefix. Its errors are those
// of Resolve.
func (inv *Inventory) Find(ctx context.Context, prefix string) (store.KeyPackage, error) {
	ref, err := inv.Resolve(ctx, prefix)
	if err != nil {
		return store.KeyPackage{}, err
	}
	return inv.store.KeyPackage(ctx, ref)
}

// maxRefBytes is the length of the longest KeyPackageRef: SHA-512.
const maxRefBytes = 64

// refRange returns the lowest and the highest KeyPackageRef that begin with the hexadecimal digits
// in prefix.
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

// ErrMixedUp reports a record whose key package does not fit its ref or its private keys.
var ErrMixedUp = vault.ErrMixedUp

// Public returns the key package of a record. It recomputes the ref, so that what leaves the
// program is what the ref names. The error wraps ErrMixedUp if the ref does not fit, or
// ErrSuiteUnknown.
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

// ErrNothingToShow reports private keys that exist only in the token.
var ErrNothingToShow = errors.New("its private keys never leave the token: there is nothing to show")

// PrivateKeys unseals the private keys of the key package ref, in order to show them; it first
// records that in the trail. The caller must clear them. The error is store.ErrNotFound if there is
// no such key package, store.ErrConsumed or store.ErrErased if they are erased, ErrNothingToShow if
// they are in the token, and wraps ErrMixedUp if they do not fit the public part.
func (inv *Inventory) PrivateKeys(ctx context.Context, ref keypackage.Ref, now time.Time) (vault.PrivateKeys, error) {
	record, err := inv.store.KeyPackage(ctx, ref)
	if err != nil {
		return vault.PrivateKeys{}, fmt.Errorf("load key package %v: %w", ref, err)
	}
	kp, err := Public(&record)
	if err != nil {
		return vault.PrivateKeys{}, err
	}
	keys, err := inv.keys(ctx, &record, kp)
	if err != nil {
		return vault.PrivateKeys{}, inv.refuse(ctx, &record, now, "unwrap", err)
	}
	secret, ok := keys.Secret()
	if !ok {
		err := fmt.Errorf("unwrap key package %v: %w", ref, ErrNothingToShow)
		return vault.PrivateKeys{}, inv.refuse(ctx, &record, now, "unwrap", err)
	}
	if err = keys.Check(); err == nil {
		err = inv.kept(ctx, &record)
	}
	if err != nil {
		err = inv.refuse(ctx, &record, now, "unwrap", err)
	} else {
		err = inv.store.Record(ctx, entryOf(&record, audit.Unwrapped, now))
	}
	if err != nil {
		secret.Clear()
		return vault.PrivateKeys{}, err
	}
	return secret, nil
}

// binding returns what the private keys of a key package are bound to.
func binding(record *store.KeyPackage, kp *keypackage.KeyPackage) (vault.Binding, error) {
	suite, ok := ciphersuite.Lookup(kp.CipherSuite)
	if !ok {
		return vault.Binding{}, fmt.Errorf("key package %x: cipher suite %v: %w", record.Ref, kp.CipherSuite, ErrSuiteUnknown)
	}
	return vault.Binding{Ref: record.Ref, Suite: suite, InitKey: kp.InitKey, EncryptionKey: kp.LeafNode.EncryptionKey, Release: record.ReleaseDigest}, nil
}

// keys returns the private keys of a record, whose key package is kp, for use here.
func (inv *Inventory) keys(ctx context.Context, record *store.KeyPackage, kp *keypackage.KeyPackage) (vault.Keys, error) {
	if err := erased(record); err != nil {
		return vault.Keys{}, fmt.Errorf("unseal key package %v: %w", keypackage.Ref(record.Ref), err)
	}
	return inv.unseal(ctx, record, kp)
}

// unseal returns the private keys of a record, even those of a device.
func (inv *Inventory) unseal(ctx context.Context, record *store.KeyPackage, kp *keypackage.KeyPackage) (vault.Keys, error) {
	b, err := binding(record, kp)
	if err != nil {
		return vault.Keys{}, err
	}
	v, err := inv.custodian(ctx, record.WrappingKeyID)
	if err != nil {
		return vault.Keys{}, err
	}
	keys, err := v.Keys(ctx, b, record.Sealed)
	if err != nil {
		return vault.Keys{}, fmt.Errorf("unseal key package %v: %w", keypackage.Ref(record.Ref), err)
	}
	return keys, nil
}

// erased returns why a record has no private keys any more, or none for use here; otherwise nil.
func erased(record *store.KeyPackage) error {
	switch record.State {
	case store.Consumed:
		return store.ErrConsumed
	case store.Erased:
		return store.ErrErased
	}
	switch {
	case record.Custody == vault.CustodyDevice:
		return ErrAtDevice
	case record.Unconfirmed():
		return fmt.Errorf("%w: they are kept until it has them, and not for use here", store.ErrForDevice)
	case len(record.ReleaseDigest) > 0:
		return fmt.Errorf("%w: it has them, and they are erased here", store.ErrForDevice)
	}
	return nil
}

// entryOf returns an entry of the trail about a key package.
func entryOf(record *store.KeyPackage, act audit.Act, at time.Time) audit.Entry {
	return audit.Entry{Time: at, Act: act, Identity: record.Identity, Ref: record.Ref, KeyID: record.WrappingKeyID}
}

// refuse records in the trail that a request on a key package was refused, and returns why.
func (inv *Inventory) refuse(ctx context.Context, record *store.KeyPackage, at time.Time, what string, why error) error {
	e := entryOf(record, audit.Refused, at)
	e.Detail = what + ": " + reason(why)
	return errors.Join(why, inv.store.Record(ctx, e))
}

// RefuseKey records in the trail that a request on a key in the token was refused, and returns why.
// A fault of the token or of the store is not a refusal.
func (inv *Inventory) RefuseKey(ctx context.Context, identity string, keyID []byte, at time.Time, what string, why error) error {
	said := reason(why)
	if said == failed {
		return why
	}
	return errors.Join(why, inv.store.Record(ctx, audit.Entry{Time: at, Act: audit.Refused, Identity: identity, KeyID: keyID, Detail: what + ": " + said}))
}

// failed is the reason of errors that have no other.
const failed = "failed"

// reason names the kind of an error for the trail. It contains nothing that came from outside.
func reason(err error) string {
	for _, r := range []struct {
		err  error
		text string
	}{
		{store.ErrConsumed, "consumed"}, {store.ErrErased, "erased"}, {store.ErrReserved, "reserved for another Welcome"},
		{ErrNothingToShow, "in the token"}, {ErrAtDevice, "at the device"},
		{store.ErrForDevice, "its device's"}, {store.ErrOtherRelease, "another release key"}, {ErrMixedUp, "record was changed"}, {vault.ErrSealed, "does not unseal"},
		{welcome.ErrForged, "forged or damaged Welcome"}, {welcome.ErrConfirmation, "wrong confirmation tag"},
		{welcome.ErrSignature, "wrong signature"}, {ErrNoLeaf, "leaf key erased"},
		{vault.ErrStamp, "record was changed"}, {identity.ErrKeyMismatch, "another key stands in its place"},
		{store.ErrInUse, "in use"}, {store.ErrState, "not in the state for that"}, {store.ErrWrappingKey, "destroyed"},
		{hpke.ErrOpen, "ciphertext does not open"},
	} {
		if errors.Is(err, r.err) {
			return r.text
		}
	}
	if _, ok := errors.AsType[*welcome.MissingPSKError](err); ok {
		return "a pre-shared key is missing"
	}
	return failed
}
