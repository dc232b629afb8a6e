package inventory

import (
	"context"
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// ErrAtDevice reports private keys that a device made and that were never here.
var ErrAtDevice = errors.New("its private keys are the device's: they were never here")

// SignFor makes one key package of HPKE keys that a device made. Their public keys are given as RFC
// 9420 encodes them; they must be valid for the suite, and different. The custody is
// vault.CustodyDevice; r.Custody and r.Count are ignored. The record names the current sealing key,
// as every record does, but nothing is under it.
//
// The key package is durable when SignFor returns it.
func (inv *Inventory) SignFor(ctx context.Context, r Request, initKey, encryptionKey []byte) (store.KeyPackage, error) {
	r.Custody, r.Count = vault.CustodyWrapped, 1
	line, err := inv.newLine(ctx, r)
	if err != nil {
		return store.KeyPackage{}, err
	}
	kp, err := line.builder.Build(inv.rand, initKey, encryptionKey)
	if err != nil {
		return store.KeyPackage{}, err
	}
	record := line.of(kp)
	record.Custody = vault.CustodyDevice
	if err := inv.store.AddKeyPackages(ctx, []store.KeyPackage{record}); err != nil {
		return store.KeyPackage{}, fmt.Errorf("store a key package of a device's keys: %w", err)
	}
	return record, nil
}
