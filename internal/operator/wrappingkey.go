package operator

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// ErrNoSuchWrappingKey reports an id that no wrapping key begins with.
var ErrNoSuchWrappingKey = fmt.Errorf("there is no such wrapping key: %w", store.ErrNotFound)

// ErrAmbiguousWrappingKey reports the first digits of several wrapping keys.
var ErrAmbiguousWrappingKey = errors.New("more than one wrapping key begins with these digits")

// WrappingKeyUse is a wrapping key, and how much is under it.
type WrappingKeyUse struct {
	store.WrappingKey
	store.Dependents
}

// WrappingKeys returns all wrapping keys, the oldest first, also those that were destroyed. It
// needs no token.
func (o *Operator) WrappingKeys(ctx context.Context) ([]WrappingKeyUse, error) {
	keys, err := o.store.WrappingKeys(ctx)
	if err != nil {
		return nil, err
	}
	uses := make([]WrappingKeyUse, len(keys))
	for i, k := range keys {
		d, err := o.store.Dependents(ctx, k.ID)
		if err != nil {
			return nil, err
		}
		uses[i] = WrappingKeyUse{k, d}
	}
	return uses, nil
}

// findWrappingKey returns the wrapping key whose id, in hexadecimal, begins with prefix.
func (o *Operator) findWrappingKey(ctx context.Context, prefix string) (store.WrappingKey, error) {
	keys, err := o.store.WrappingKeys(ctx)
	if err != nil {
		return store.WrappingKey{}, err
	}
	var found []store.WrappingKey
	for _, k := range keys {
		if strings.HasPrefix(hex.EncodeToString(k.ID), strings.ToLower(prefix)) {
			found = append(found, k)
		}
	}
	switch {
	case prefix == "":
		return store.WrappingKey{}, requestf("the wrapping key has no id")
	case len(found) == 0:
		return store.WrappingKey{}, fmt.Errorf("wrapping key %s: %w", prefix, ErrNoSuchWrappingKey)
	case len(found) > 1:
		return store.WrappingKey{}, fmt.Errorf("wrapping key %s: %w", prefix, ErrAmbiguousWrappingKey)
	}
	return found[0], nil
}

// NewWrappingKey says what kind of wrapping key to make.
type NewWrappingKey struct {
	// Purpose is store.Seal or store.Wrap.
	Purpose store.Purpose
	// Mechanism is one of the purpose. The zero value takes that of the current key, or AES if
	// there is none.
	Mechanism vault.Mechanism
}

// mechanism returns the mechanism of a key that is about to be made.
func (r *NewWrappingKey) mechanism(ctx context.Context, inv *inventory.Inventory) (vault.Mechanism, error) {
	switch {
	case !slices.Contains(store.Purposes, r.Purpose):
		return "", requestf("purpose %q is neither %s nor %s", r.Purpose, store.Seal, store.Wrap)
	case r.Mechanism == "":
		return inv.NextMechanism(ctx, r.Purpose)
	case inventory.PurposeOf(r.Mechanism) != r.Purpose:
		return "", requestf("mechanism %q cannot %s", r.Mechanism, r.Purpose)
	}
	return r.Mechanism, nil
}

// CreateWrappingKey makes a wrapping key in the token. The first one of its purpose is the
// current one; another is not used before RotateWrappingKey names it.
func (o *Operator) CreateWrappingKey(ctx context.Context, r NewWrappingKey) (store.WrappingKey, error) {
	return o.makeWrappingKey(ctx, r, false)
}

// makeWrappingKey makes a wrapping key, which becomes the current one if it is the first or if
// current is set.
func (o *Operator) makeWrappingKey(ctx context.Context, r NewWrappingKey, current bool) (store.WrappingKey, error) {
	inv, err := o.Inventory(ctx)
	if err != nil {
		return store.WrappingKey{}, err
	}
	m, err := r.mechanism(ctx, inv)
	if err != nil {
		return store.WrappingKey{}, err
	}
	return inv.CreateWrappingKey(ctx, m, current, o.now())
}

// RotateWrappingKeyRequest says which wrapping key becomes the current one of its purpose.
type RotateWrappingKeyRequest struct {
	// New describes the key to make. If To is set, only its purpose counts: the key must be of
	// it, unless it is empty.
	New NewWrappingKey
	// To is the id, in hexadecimal, of a key that was made before, or the first digits of it.
	// Empty: a new key is made.
	To string
}

// RotateWrappingKey makes another wrapping key the current one: what is stored from now on is
// under it. What is under the key before stays there.
func (o *Operator) RotateWrappingKey(ctx context.Context, r RotateWrappingKeyRequest) (store.WrappingKey, error) {
	if r.To == "" {
		return o.makeWrappingKey(ctx, r.New, true)
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return store.WrappingKey{}, err
	}
	k, err := o.findWrappingKey(ctx, r.To)
	if err != nil {
		return k, err
	}
	if p := r.New.Purpose; p != "" && k.Purpose != p {
		return k, requestf("wrapping key %x is one to %s, not to %s", k.ID, k.Purpose, p)
	}
	return inv.RotateWrappingKey(ctx, "", k.ID, o.now())
}

// DestroyWrappingKeyRequest says which wrapping key to destroy.
type DestroyWrappingKeyRequest struct {
	// Key is its id in hexadecimal, or the first digits of it.
	Key string
	// Shred also erases the private keys that are under it. Without it, the act refuses a key
	// that private keys are under which may still be used.
	Shred bool
}

// DestroyWrappingKeyResult is what was destroyed.
type DestroyWrappingKeyResult struct {
	Key    store.WrappingKey
	Erased uint64 // key packages whose private keys were erased, also by earlier calls
}

// DestroyWrappingKey destroys a wrapping key in the token: nothing under it opens afterwards,
// in any copy of the store. It refuses a current key (store.ErrState) and one that is in
// use (store.ErrInUse). If it is interrupted while it erases, the key is gone already, and the
// error is an InterruptedError.
func (o *Operator) DestroyWrappingKey(ctx context.Context, r DestroyWrappingKeyRequest) (out DestroyWrappingKeyResult, err error) {
	if out.Key, err = o.findWrappingKey(ctx, r.Key); err != nil {
		return out, err
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return out, err
	}
	out.Erased, err = inv.DestroyWrappingKey(ctx, out.Key.ID, r.Shred, o.now(), o.backlogProgress(ctx))
	if errors.Is(err, inventory.ErrInterrupted) {
		return out, o.shredInterrupted(ctx, &out.Key, err)
	}
	if err == nil {
		out.Key, err = o.findWrappingKey(ctx, hex.EncodeToString(out.Key.ID))
	}
	return out, err
}

// shredInterrupted returns an error that says how far the erasing is.
func (o *Operator) shredInterrupted(ctx context.Context, k *store.WrappingKey, err error) error {
	backlogs, fault := o.store.Backlogs(context.WithoutCancel(ctx))
	for _, b := range backlogs {
		if bytes.Equal(b.WrappingKeyID, k.ID) {
			return o.backlogError(ctx, b, err)
		}
	}
	return errors.Join(err, fault)
}
