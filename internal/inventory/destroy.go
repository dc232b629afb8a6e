package inventory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// DestroyWrappingKey destroys a wrapping key in the token: nothing that was under it can be opened
// any more, in any copy of the store. It first renews the stamps. The error is store.ErrState for a
// current key, and store.ErrInUse if private keys are under it. With shred, it erases these
// instead, returns the number of their key packages, and calls progress meanwhile.
//
// Shredding takes this order: a small transaction condemns the key, and from then on nothing under
// it can be opened; the key is destroyed in the token; then the sealed private keys are erased from
// the store, batch by batch. So the key does not wait for the rows. Until it is destroyed, the
// private keys are gone only as far as hsm-kp enforces it. After that, what is left in rows, the
// write-ahead log and backups is ciphertext that nobody can open. It costs nothing that half a
// million rows take a minute to overwrite, or that a crash leaves them until the next sweep. The
// other order would keep the key for that long, and until someone runs a sweep.
//
// If interrupted, the error is ErrInterrupted; another call continues, and its count includes all
// calls.
func (inv *Inventory) DestroyWrappingKey(ctx context.Context, id vault.KeyID, shred bool, now time.Time, progress func(store.Backlog)) (uint64, error) {
	erasing, err := inv.destroyWrappingKey(ctx, id, shred, now)
	if err != nil || erasing.ID == 0 {
		return 0, err
	}
	erasing, err = inv.WorkOff(ctx, erasing, now, progress)
	return erasing.Moved, err
}

// destroyWrappingKey condemns a wrapping key and destroys it in the token. It returns the backlog
// of the private keys under it.
func (inv *Inventory) destroyWrappingKey(ctx context.Context, id vault.KeyID, shred bool, now time.Time) (store.Backlog, error) {
	record, err := inv.wrappingKey(ctx, id)
	if errors.Is(err, store.ErrWrappingKey) { // perhaps by a call that was interrupted
		if erasing, fault := inv.shredding(ctx, id); fault != nil || erasing.ID != 0 {
			return erasing, fault
		}
	}
	if err == nil {
		err = inv.inThisToken(record.TokenSerial)
	}
	if err != nil {
		return store.Backlog{}, err
	}
	if record.Purpose == store.Seal && !record.Current && !record.Condemned {
		if _, err := inv.restamp(ctx, id, now); err != nil {
			return store.Backlog{}, err
		}
	}
	m, err := MechanismOf(&record)
	if err != nil {
		return store.Backlog{}, err
	}
	i := store.Intent{KeyID: id, Object: kinds[m].object, TokenSerial: record.TokenSerial, Destroy: true, CreatedAt: now}
	if err := inv.stampIntent(ctx, &i); err != nil {
		return store.Backlog{}, err
	}
	erasing, err := inv.store.CondemnWrappingKey(ctx, i, shred)
	if err != nil {
		return erasing, inv.RefuseKey(ctx, "", id, now, "destroy", fmt.Errorf("destroy: %w", err))
	}
	err = inv.settle(context.WithoutCancel(ctx), i, now)
	inv.forget(id)
	return erasing, err
}

// ErrOtherToken reports a key of another token than the one that is open: its absence here does not
// mean that it is destroyed.
var ErrOtherToken = errors.New("it is in another token")

func (inv *Inventory) inThisToken(serial string) error {
	if serial != inv.ring.Serial() {
		return fmt.Errorf("destroy: %w, of serial number %s", ErrOtherToken, serial)
	}
	return nil
}

// forget drops a wrapping key that is gone.
func (inv *Inventory) forget(id vault.KeyID) {
	inv.mu.Lock()
	defer inv.mu.Unlock()
	delete(inv.vaults, string(id))
}

// DestroyUnused destroys the wrapping keys that were replaced and that nothing depends on any more.
// It returns their ids.
func (inv *Inventory) DestroyUnused(ctx context.Context, now time.Time) ([]vault.KeyID, error) {
	unused, err := inv.UnusedWrappingKeys(ctx)
	var destroyed []vault.KeyID
	if err != nil {
		return nil, err
	}
	for _, k := range unused {
		if k.TokenSerial != inv.ring.Serial() {
			continue
		}
		_, err := inv.DestroyWrappingKey(ctx, k.ID, false, now, nil)
		switch {
		case errors.Is(err, store.ErrInUse): // since
		case err != nil:
			return destroyed, err
		default:
			destroyed = append(destroyed, k.ID)
		}
	}
	return destroyed, nil
}

// UnusedWrappingKeys returns the wrapping keys that were replaced and have no private keys under
// them any more.
func (inv *Inventory) UnusedWrappingKeys(ctx context.Context) ([]store.WrappingKey, error) {
	keys, err := inv.store.WrappingKeys(ctx)
	if err != nil {
		return nil, err
	}
	var unused []store.WrappingKey
	for _, k := range keys {
		if k.SupersededAt.IsZero() || k.Condemned {
			continue
		}
		d, err := inv.store.Dependents(ctx, k.ID)
		if err != nil {
			return nil, err
		}
		if d.KeyPackages == 0 {
			unused = append(unused, k)
		}
	}
	return unused, nil
}

// DestroySignatureKey destroys the signature key of a version of an identity in the token, and
// returns the version. The error is store.ErrNotFound, store.ErrState for a version that signs, or
// store.ErrInUse if another version signs with the key or key packages that it signed may still be
// used; force ignores the latter.
func (inv *Inventory) DestroySignatureKey(ctx context.Context, name string, number uint64, force bool, now time.Time) (store.Identity, error) {
	v, err := inv.version(ctx, name, number)
	if err != nil {
		return v, err
	}
	if err := inv.inThisToken(v.TokenSerial); err != nil {
		return v, err
	}
	// The key in a changed record is not the identity's to destroy.
	if err := inv.CheckIdentity(ctx, &v); err != nil {
		return v, err
	}
	i := store.Intent{KeyID: v.KeyID, Object: store.ObjectSignatureKey, TokenSerial: v.TokenSerial, Destroy: true, CreatedAt: now}
	if err := inv.stampIntent(ctx, &i); err != nil {
		return v, err
	}
	if err := inv.store.CondemnSignatureKey(ctx, name, number, force, i); err != nil {
		return v, inv.RefuseKey(ctx, name, v.KeyID, now, "destroy", fmt.Errorf("destroy: %w", err))
	}
	if err := inv.settle(context.WithoutCancel(ctx), i, now); err != nil {
		return v, err
	}
	return inv.version(ctx, name, number)
}

func (inv *Inventory) version(ctx context.Context, name string, number uint64) (store.Identity, error) {
	versions, err := inv.store.Versions(ctx, name)
	for _, v := range versions {
		if v.Version == number {
			return v, nil
		}
	}
	if err == nil {
		err = store.ErrNotFound
	}
	return store.Identity{}, fmt.Errorf("identity %q, version %d: %w", name, number, err)
}
