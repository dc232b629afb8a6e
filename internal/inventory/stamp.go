package inventory

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/vault"
)

// kindIdentity is the kind of an identity's stamp.
const kindIdentity = "identity"

// StampIdentity authenticates an identity's record under the current wrapping key and puts the
// stamp into the record. Someone who can write to the store but cannot use the token can then
// neither make an identity nor change what one signs.
func (inv *Inventory) StampIdentity(ctx context.Context, id *store.Identity) error {
	key, err := inv.currentKey(ctx, store.Seal)
	if err != nil {
		return err
	}
	v, err := inv.vault(ctx, key.ID)
	if err != nil {
		return err
	}
	id.Stamp, err = v.Stamp(ctx, inv.rand, kindIdentity, identityRecord(id))
	id.StampKey = key.ID
	return err
}

// vault returns the wrapping key as a sealer, which also makes stamps.
func (inv *Inventory) vault(ctx context.Context, id vault.KeyID) (vault.Sealer, error) {
	c, err := inv.custodian(ctx, id)
	if err != nil {
		return nil, err
	}
	v, ok := c.(vault.Sealer)
	if !ok {
		return nil, fmt.Errorf("wrapping key %v: %w: it makes no stamps", id, vault.ErrStamp)
	}
	return v, nil
}

// CheckIdentity fails unless StampIdentity stamped the record. The error then wraps vault.ErrStamp.
func (inv *Inventory) CheckIdentity(ctx context.Context, id *store.Identity) error {
	key, err := vault.StampKey(id.Stamp)
	if err != nil {
		return fmt.Errorf("identity %q: %w", id.Name, err)
	}
	v, err := inv.vault(ctx, key)
	if err != nil {
		return err
	}
	if err := v.CheckStamp(ctx, kindIdentity, identityRecord(id), id.Stamp); err != nil {
		return fmt.Errorf("identity %q: %w", id.Name, err)
	}
	return nil
}

// identityRecord returns what the stamp of an identity covers:
//
//	opaque name<V>
//	uint16 cipher_suite
//	opaque credential<V>
//	opaque signature_key<V>
//	opaque key_id<V>
//	opaque token_serial<V>
//	uint8  weak_key
//	select (cipher_suite) {         // for an experimental suite, what its number meant
//	    case experimental:
//	        uint16 kem; uint16 kdf; uint16 aead; uint16 signature_scheme;
//	}
//	select (version) {              // for all but the first
//	    case 2 and more:
//	        uint64 version;
//	}
func identityRecord(id *store.Identity) []byte {
	b := wire.AppendVector(nil, []byte(id.Name))
	b = append(b, byte(id.Suite>>8), byte(id.Suite))
	for _, v := range [][]byte{id.Credential, id.SignatureKey, id.KeyID, []byte(id.TokenSerial)} {
		b = wire.AppendVector(b, v)
	}
	weak := byte(0)
	if id.WeakKey {
		weak = 1
	}
	b = append(b, weak)
	if s, ok := ciphersuite.Lookup(ciphersuite.ID(id.Suite)); ok && s.Experimental {
		for _, part := range []uint16{s.KEM, s.KDF, s.AEAD, uint16(s.Signature)} {
			b = binary.BigEndian.AppendUint16(b, part)
		}
	}
	if id.Version > 1 {
		b = binary.BigEndian.AppendUint64(b, id.Version)
	}
	return b
}

// ErrNoWrappingKey reports a store that has no wrapping key yet.
var ErrNoWrappingKey = errors.New("the store has no wrapping key")

// currentKey returns the wrapping key of a purpose that new key packages use.
func (inv *Inventory) currentKey(ctx context.Context, p store.Purpose) (store.WrappingKey, error) {
	key, err := inv.store.CurrentWrappingKey(ctx, p)
	if errors.Is(err, store.ErrNotFound) {
		return key, fmt.Errorf("%w to %s private keys: %w", ErrNoWrappingKey, p, err)
	}
	if err != nil {
		return key, fmt.Errorf("find the current wrapping key: %w", err)
	}
	return key, nil
}

// wrappingKey returns the record of a wrapping key. If it is destroyed, the error is
// store.ErrWrappingKey.
func (inv *Inventory) wrappingKey(ctx context.Context, id vault.KeyID) (store.WrappingKey, error) {
	keys, err := inv.store.WrappingKeys(ctx)
	if err != nil {
		return store.WrappingKey{}, err
	}
	for _, k := range keys {
		switch {
		case string(k.ID) != string(id):
		case !k.DestroyedAt.IsZero():
			return k, fmt.Errorf("wrapping key %v: %w", id, store.ErrWrappingKey)
		default:
			return k, nil
		}
	}
	return store.WrappingKey{}, fmt.Errorf("wrapping key %v: the store does not know it: %w", id, store.ErrNotFound)
}
