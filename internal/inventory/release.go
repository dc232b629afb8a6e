package inventory

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
)

// releasing checks the parameters of custody vault.CustodyRelease, and returns the digest that the
// key packages get.
func (r *Request) releasing() ([]byte, error) {
	if r.Custody != vault.CustodyRelease {
		return nil, nil
	}
	if err := hpke.ValidPublicKey(r.Identity.Suite, r.ReleaseKey); err != nil {
		return nil, fmt.Errorf("release key: %w", err)
	}
	return vault.ReleaseDigest(r.ReleaseKey), nil
}

// CheckRelease fails with store.ErrOtherRelease, and records that in the trail, if a release key is
// not the one to which the private keys of a key package may be released.
func (inv *Inventory) CheckRelease(ctx context.Context, record *store.KeyPackage, releaseKey []byte, now time.Time) error {
	if bytes.Equal(record.ReleaseDigest, vault.ReleaseDigest(releaseKey)) {
		return nil
	}
	err := fmt.Errorf("key package %v: %w", keypackage.Ref(record.Ref), store.ErrOtherRelease)
	return inv.refuse(ctx, record, now, "hand over", err)
}

// HandOver seals the private keys of key packages of custody vault.CustodyRelease for their device,
// whose public key is given, and returns them in the order of the records. It unseals each in the
// token, compares it with its public keys, and seals it by HPKE: see vault.Released. Before it
// returns anything, it records the handover and its entry in the trail. It may be repeated for the
// same device until the handover is confirmed, so a caller that was killed before it passed the
// keys on loses nothing.
//
// The error is store.ErrOtherRelease for a public key other than the one they were made for,
// store.ErrErased, or store.ErrState if the device has confirmed.
func (inv *Inventory) HandOver(ctx context.Context, records []store.KeyPackage, releaseKey []byte, now time.Time) ([]vault.Released, error) {
	out := make([]vault.Released, 0, len(records))
	for len(records) > 0 {
		batch := records[:min(max(inv.batch, 1), len(records))]
		records = records[len(batch):]
		released, err := inv.handOver(ctx, batch, releaseKey, now)
		if err != nil {
			return nil, err
		}
		out = append(out, released...)
	}
	return out, nil
}

func (inv *Inventory) handOver(ctx context.Context, batch []store.KeyPackage, releaseKey []byte, now time.Time) ([]vault.Released, error) {
	released, refs := make([]vault.Released, len(batch)), make([][]byte, len(batch))
	for i := range batch {
		refs[i] = batch[i].Ref
		if err := inv.CheckRelease(ctx, &batch[i], releaseKey, now); err != nil {
			return nil, err
		}
	}
	workers, running := errgroup.WithContext(ctx)
	workers.SetLimit(max(inv.workers, 1))
	for i := range batch {
		workers.Go(func() (err error) {
			released[i], err = inv.release(running, batch[i], releaseKey, now)
			return err
		})
	}
	if err := workers.Wait(); err != nil {
		return nil, err
	}
	if err := inv.store.HandOver(ctx, refs, vault.ReleaseDigest(releaseKey), now); err != nil {
		return nil, fmt.Errorf("hand over: %w", err)
	}
	return released, nil
}

// release seals the private keys of one key package for its device. If the record was rewrapped
// meanwhile, it reads it again.
func (inv *Inventory) release(ctx context.Context, record store.KeyPackage, releaseKey []byte, now time.Time) (vault.Released, error) {
	for {
		released, err := inv.seal(ctx, &record, releaseKey)
		if err == nil {
			return released, nil
		}
		again, gone := inv.store.KeyPackage(ctx, record.Ref)
		if gone != nil || bytes.Equal(again.WrappingKeyID, record.WrappingKeyID) {
			return released, inv.refuse(ctx, &record, now, "hand over", err)
		}
		record = again
	}
}

func (inv *Inventory) seal(ctx context.Context, record *store.KeyPackage, releaseKey []byte) (vault.Released, error) {
	switch {
	case record.State == store.Erased:
		return vault.Released{}, fmt.Errorf("hand over key package %v: %w", keypackage.Ref(record.Ref), store.ErrErased)
	case !record.Unconfirmed():
		return vault.Released{}, fmt.Errorf("hand over key package %v: %w: its device has its private keys", keypackage.Ref(record.Ref), store.ErrState)
	}
	kp, err := Public(record)
	if err != nil {
		return vault.Released{}, err
	}
	keys, err := inv.unseal(ctx, record, kp)
	if err != nil {
		return vault.Released{}, err
	}
	defer keys.Clear()
	if err := keys.Check(); err != nil {
		return vault.Released{}, err
	}
	b, err := binding(record, kp)
	if err != nil {
		return vault.Released{}, err
	}
	return vault.Release(b, releaseKey, keys)
}

// ConfirmHandover erases, in one transaction, the private keys of key packages whose devices have
// them, and returns the number of key packages. Those that are erased already stay unchanged. Its
// errors are those of store.ConfirmHandover.
func (inv *Inventory) ConfirmHandover(ctx context.Context, refs [][]byte, now time.Time) (uint64, error) {
	n, err := inv.store.ConfirmHandover(ctx, refs, now)
	if err != nil {
		return 0, fmt.Errorf("confirm: %w", err)
	}
	return n, nil
}
