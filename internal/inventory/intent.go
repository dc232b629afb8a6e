package inventory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Make calls f, which makes an object in the token and records it in the store, between recording
// and settling an intent. It destroys what f made but did not record. The context of f does not
// end, so that the object and its record come together. If the store's server went away meanwhile,
// the record may be there: the intent is then left for Repair, which finds out.
func (inv *Inventory) Make(ctx context.Context, i store.Intent, f func(context.Context) error) error {
	err := inv.stampIntent(ctx, &i)
	if errors.Is(err, ErrNoWrappingKey) && seals(i.Object) {
		err = nil // the first key of all: see takeUp
	}
	if err == nil {
		err = inv.store.Intend(ctx, i)
	}
	if err != nil {
		return fmt.Errorf("record the intent to make a %s: %w", i.Object, err)
	}
	uncut := store.WithIntent(context.WithoutCancel(ctx), i.KeyID)
	err = f(uncut)
	if err == nil || errors.Is(err, store.ErrAway) {
		return err
	}
	return errors.Join(err, inv.settle(uncut, i, i.CreatedAt))
}

// settle destroys what an intent names, if it exists, and ends the intent.
func (inv *Inventory) settle(ctx context.Context, i store.Intent, now time.Time) error {
	if err := inv.ring.Destroy(ctx, i.Object, i.KeyID); err != nil {
		return fmt.Errorf("destroy %s %x: %w", i.Object, i.KeyID, err)
	}
	err := inv.store.Settle(ctx, i.KeyID, now)
	if errors.Is(err, store.ErrNotFound) {
		return nil // another process did
	}
	return err
}

// kindIntent is the kind of an intent's stamp.
const kindIntent = "intent"

// stampIntent authenticates an intent, because what it names may be destroyed. The error wraps
// ErrNoWrappingKey if there is no key to stamp with.
func (inv *Inventory) stampIntent(ctx context.Context, i *store.Intent) error {
	key, err := inv.currentKey(ctx, store.Seal)
	if err != nil {
		return err
	}
	v, err := inv.vault(ctx, key.ID)
	if err != nil {
		return err
	}
	i.Stamp, err = v.Stamp(ctx, inv.rand, kindIntent, intentRecord(i))
	return err
}

// checkIntent fails unless stampIntent stamped an intent. The error then wraps vault.ErrStamp.
func (inv *Inventory) checkIntent(ctx context.Context, i *store.Intent) error {
	id, err := vault.StampKey(i.Stamp)
	if err != nil {
		return err
	}
	v, err := inv.vault(ctx, id)
	if err != nil {
		return fmt.Errorf("%w: %w", vault.ErrStamp, err)
	}
	return v.CheckStamp(ctx, kindIntent, intentRecord(i), i.Stamp)
}

// intentRecord returns what the stamp of an intent covers:
//
//	opaque object<V>
//	opaque key_id<V>
//	opaque token_serial<V>
//	uint8  destroy
func intentRecord(i *store.Intent) []byte {
	b := wire.AppendVector(nil, []byte(i.Object))
	b = wire.AppendVector(b, i.KeyID)
	b = wire.AppendVector(b, []byte(i.TokenSerial))
	if i.Destroy {
		return append(b, 1)
	}
	return append(b, 0)
}

// seals reports whether an object is a wrapping key that seals.
func seals(o store.Object) bool { return o == store.ObjectSealingKey || o == store.ObjectSealingPair }

// unstampedFirst reports whether an intent is that of a first wrapping key that seals.
func unstampedFirst(i *store.Intent, serial string) bool {
	return len(i.Stamp) == 0 && seals(i.Object) && !i.Destroy && i.TokenSerial == serial
}

// Repair settles the intents that are older than age: it destroys what a crash left in the token,
// and what was to be destroyed. It returns how many there were. It leaves those of another token,
// and those that hsm-kp did not record itself; the error reports these after the others are
// settled.
func (inv *Inventory) Repair(ctx context.Context, now time.Time, age time.Duration) (uint64, error) {
	intents, err := inv.store.Intents(ctx)
	if err != nil {
		return 0, err
	}
	var repaired uint64
	var faults []error
	for _, i := range intents {
		if i.TokenSerial != inv.ring.Serial() || i.CreatedAt.After(now.Add(-age)) {
			continue
		}
		done, err := inv.repair(ctx, i, now)
		if err != nil {
			faults = append(faults, fmt.Errorf("repair: %s %x: %w", i.Object, i.KeyID, err))
		}
		if done {
			repaired++
		}
	}
	return repaired, errors.Join(faults...)
}

// repair settles one intent, and reports whether it did. It keeps a key that was recorded after
// all: an intent to make that key which still exists was restored by someone.
func (inv *Inventory) repair(ctx context.Context, i store.Intent, now time.Time) (bool, error) {
	if !i.Destroy {
		used, err := inv.store.InUse(ctx, i.KeyID)
		if err != nil {
			return false, err
		}
		if used {
			return false, fmt.Errorf("%w: it was made, and is in use", vault.ErrStamp)
		}
	}
	if unstampedFirst(&i, i.TokenSerial) {
		return false, inv.drop(ctx, i, now)
	}
	if err := inv.checkIntent(ctx, &i); err != nil {
		return false, err
	}
	return true, inv.settle(ctx, i, now)
}

// drop ends an intent to make the first wrapping key after another one exists. It does not destroy
// what the intent names, because nothing proves who recorded it. Before that, the intent is left
// for takeUp.
func (inv *Inventory) drop(ctx context.Context, i store.Intent, now time.Time) error {
	_, err := inv.currentKey(ctx, store.Seal)
	if errors.Is(err, ErrNoWrappingKey) {
		return nil
	}
	if err == nil {
		err = inv.store.Settle(ctx, i.KeyID, now)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("repair: %w", err)
	}
	return nil
}
