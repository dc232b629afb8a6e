package inventory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// kind says what wrapping keys of a mechanism are.
type kind struct {
	purpose store.Purpose
	object  store.Object // its kind of object in the token
}

var kinds = map[vault.Mechanism]kind{
	vault.AESGCM:     {store.Seal, store.ObjectSealingKey},
	vault.RSAOAEP:    {store.Seal, store.ObjectSealingPair},
	vault.AESKeyWrap: {store.Wrap, store.ObjectWrappingKey},
}

// MechanismOf returns the mechanism of a wrapping key, which its stamp has. The error wraps
// vault.ErrStamp if it has none, or one that does not fit its purpose.
func MechanismOf(k *store.WrappingKey) (vault.Mechanism, error) {
	m, err := vault.MechanismOf(k.Stamp)
	if err == nil && kinds[m].purpose != k.Purpose {
		err = fmt.Errorf("%w: a key of mechanism %s does not %s", vault.ErrStamp, m, k.Purpose)
	}
	if err != nil {
		return "", fmt.Errorf("recognize wrapping key %v: %w", vault.KeyID(k.ID), err)
	}
	return m, nil
}

// PurposeOf returns the purpose of keys of a mechanism, or an empty one if there is no such
// mechanism.
func PurposeOf(m vault.Mechanism) store.Purpose { return kinds[m].purpose }

// NextMechanism returns the default mechanism of the next wrapping key of a purpose: that of the
// current one, or AES for the first.
func (inv *Inventory) NextMechanism(ctx context.Context, p store.Purpose) (vault.Mechanism, error) {
	current, err := inv.store.CurrentWrappingKey(ctx, p)
	switch {
	case errors.Is(err, store.ErrNotFound) && p == store.Wrap:
		return vault.AESKeyWrap, nil
	case errors.Is(err, store.ErrNotFound):
		return vault.AESGCM, nil
	case err != nil:
		return "", err
	}
	return MechanismOf(&current)
}

// WrappingKeyLabel is the CKA_LABEL of wrapping keys.
const WrappingKeyLabel = "hsm-kp wrapping key"

// CreateWrappingKey makes a wrapping key of a mechanism in the token. It becomes the current one if
// it is the first of its purpose or current is set. A crash in between leaves an intent, which
// Repair settles; the next call takes up the intent of the first key that seals.
func (inv *Inventory) CreateWrappingKey(ctx context.Context, m vault.Mechanism, current bool, now time.Time) (store.WrappingKey, error) {
	p := PurposeOf(m)
	if p == "" {
		return store.WrappingKey{}, fmt.Errorf("generate wrapping key: there is no mechanism %q", m)
	}
	_, err := inv.store.CurrentWrappingKey(ctx, p)
	first := errors.Is(err, store.ErrNotFound)
	if err != nil && !first {
		return store.WrappingKey{}, err
	}
	key := store.WrappingKey{
		Purpose: p, Label: WrappingKeyLabel, TokenSerial: inv.ring.Serial(), Current: current || first,
		CreatedAt: now.UTC().Truncate(time.Second),
	}
	if p == store.Seal && first {
		done, err := inv.takeUp(ctx, m, &key)
		if err != nil || done {
			return key, err
		}
	}
	if key.ID, err = vault.NewKeyID(inv.rand); err != nil {
		return store.WrappingKey{}, err
	}
	i := store.Intent{KeyID: key.ID, Object: kinds[m].object, TokenSerial: key.TokenSerial, CreatedAt: now}
	return key, inv.Make(ctx, i, func(ctx context.Context) error { return inv.makeWrappingKey(ctx, m, &key) })
}

// makeWrappingKey makes a wrapping key of a mechanism in the token and records it.
func (inv *Inventory) makeWrappingKey(ctx context.Context, m vault.Mechanism, key *store.WrappingKey) (err error) {
	if key.Stamp, err = inv.ring.Create(ctx, key.ID, m, key.Label); err != nil {
		return fmt.Errorf("generate wrapping key: %w", err)
	}
	return inv.addWrappingKey(ctx, *key)
}

func (inv *Inventory) addWrappingKey(ctx context.Context, key store.WrappingKey) error {
	if err := inv.store.AddWrappingKey(ctx, key); err != nil {
		return fmt.Errorf("record wrapping key %x: %w", key.ID, err)
	}
	return nil
}

// takeUp records the first wrapping key that seals if a crash left it in the token without a
// record. The intent to make it has no stamp, because no key could stamp it yet, and so nothing
// that it names is destroyed: anyone who can write to the store might have planted it. At worst,
// the planted key is a wrapping key of the token, which serves as well as another.
//
// A key of another mechanism is left, and so is an incomplete key pair.
func (inv *Inventory) takeUp(ctx context.Context, m vault.Mechanism, key *store.WrappingKey) (bool, error) {
	intents, err := inv.store.Intents(ctx)
	if err != nil {
		return false, err
	}
	for _, i := range intents {
		if !unstampedFirst(&i, key.TokenSerial) || i.Object != kinds[m].object {
			continue
		}
		c, err := inv.ring.Open(ctx, i.KeyID, m)
		if err != nil { // it was not made, or is not usable
			if err := inv.ring.Discard(ctx, i.KeyID, key.Label); err != nil {
				return false, err
			}
			continue
		}
		v, ok := c.(vault.Sealer)
		if !ok {
			continue
		}
		key.ID = i.KeyID
		if key.Stamp, err = v.Prove(ctx, inv.rand); err != nil {
			return false, fmt.Errorf("take up wrapping key %x: %w", key.ID, err)
		}
		return true, inv.addWrappingKey(ctx, *key)
	}
	return false, nil
}

// RotateWrappingKey makes a wrapping key the current one of its purpose: the one with the given id,
// or a new one of the mechanism if id is nil.
func (inv *Inventory) RotateWrappingKey(ctx context.Context, m vault.Mechanism, id vault.KeyID, now time.Time) (store.WrappingKey, error) {
	if id == nil {
		return inv.CreateWrappingKey(ctx, m, true, now)
	}
	// A key that does not work must not become the current one.
	if _, err := inv.custodian(ctx, id); err != nil {
		return store.WrappingKey{}, err
	}
	if err := inv.store.RotateWrappingKey(ctx, id, now); err != nil {
		return store.WrappingKey{}, fmt.Errorf("rotate: %w", err)
	}
	return inv.wrappingKey(ctx, id)
}

// Schedule says when to replace a wrapping key. A zero field means never.
type Schedule struct {
	MaxAge  time.Duration
	MaxUses uint64
}

// Due reports whether a wrapping key must be replaced.
func (s Schedule) Due(k *store.WrappingKey, now time.Time) bool {
	return s.MaxAge > 0 && !now.Before(k.CreatedAt.Add(s.MaxAge)) || s.MaxUses > 0 && k.Uses >= s.MaxUses
}

// DueWrappingKeys returns the current wrapping keys that must be replaced.
func (inv *Inventory) DueWrappingKeys(ctx context.Context, s Schedule, now time.Time) ([]store.WrappingKey, error) {
	keys, err := inv.store.WrappingKeys(ctx)
	var due []store.WrappingKey
	for _, k := range keys {
		if k.Current && s.Due(&k, now) {
			due = append(due, k)
		}
	}
	return due, err
}
