package inventory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
)

// ErrNoLeaf reports that the private key of a leaf is not kept: it was handed over or erased.
var ErrNoLeaf = errors.New("the private key of its leaf is not kept")

// Ciphertext is what a member encrypted to a leaf: the path secret of a commit, under the label
// "UpdatePathNode" (RFC 9420, Section 7.6).
type Ciphertext struct {
	Context    []byte // the encoded GroupContext
	KEMOutput  []byte
	Ciphertext []byte
}

// DecryptPathSecret decrypts what was encrypted to the leaf of a key package that has opened a
// Welcome, as long as its private key is kept. The caller must clear the path secret. The error is
// store.ErrNotFound, store.ErrState if the key package has opened no Welcome, ErrNoLeaf, or
// hpke.ErrOpen.
func (inv *Inventory) DecryptPathSecret(ctx context.Context, ref keypackage.Ref, c Ciphertext, now time.Time) ([]byte, error) {
	record, err := inv.store.KeyPackage(ctx, ref)
	if err != nil {
		return nil, fmt.Errorf("load key package %v: %w", ref, err)
	}
	secret, err := inv.decryptPathSecret(ctx, &record, c)
	if err == nil {
		if err = inv.kept(ctx, &record); err != nil {
			clear(secret)
		}
	}
	if err != nil {
		return nil, inv.refuse(ctx, &record, now, "decrypt a path secret", err)
	}
	if err := inv.store.Record(ctx, entryOf(&record, audit.Decrypted, now)); err != nil {
		clear(secret)
		return nil, err
	}
	return secret, nil
}

func (inv *Inventory) decryptPathSecret(ctx context.Context, record *store.KeyPackage, c Ciphertext) ([]byte, error) {
	keys, err := inv.leaf(ctx, record)
	if err != nil {
		return nil, err
	}
	defer keys.Clear()
	return hpke.DecryptWithLabel(keys.Encryption, "UpdatePathNode", c.Context, c.KEMOutput, c.Ciphertext)
}

// leaf returns the private key of the leaf of a key package that has opened a Welcome.
func (inv *Inventory) leaf(ctx context.Context, record *store.KeyPackage) (vault.Keys, error) {
	kp, err := Public(record)
	if err != nil {
		return vault.Keys{}, err
	}
	ref := keypackage.Ref(record.Ref)
	switch {
	case len(record.Leaf) == 0 && record.State == store.Consumed:
		return vault.Keys{}, fmt.Errorf("key package %v: %w", ref, ErrNoLeaf)
	case len(record.Leaf) == 0 && (record.State == store.Reserved || record.Opened > 0):
		return inv.keys(ctx, record, kp)
	case len(record.Leaf) == 0:
		return vault.Keys{}, fmt.Errorf("key package %v: no Welcome was opened with it: %w", ref, store.ErrState)
	}
	b, err := binding(record, kp)
	if err != nil {
		return vault.Keys{}, err
	}
	v, err := inv.custodian(ctx, record.WrappingKeyID)
	if err != nil {
		return vault.Keys{}, err
	}
	return v.Leaf(ctx, b, record.Leaf)
}

// ConfirmLeaf erases the private key of the leaf of a consumed key package: its member has another
// leaf by now, or has left the group. The error is store.ErrNotFound, or store.ErrState if the key
// package is not consumed.
func (inv *Inventory) ConfirmLeaf(ctx context.Context, ref keypackage.Ref, now time.Time) error {
	if err := inv.store.EraseLeaf(ctx, ref, now); err != nil {
		return fmt.Errorf("confirm leaf: %w", err)
	}
	return nil
}
