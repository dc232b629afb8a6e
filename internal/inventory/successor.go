package inventory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// ErrUnderWay reports a key that another process began to make and has not completed.
var ErrUnderWay = errors.New("another process has begun to make the key that replaces it")

// How long to wait for another process's key, how often to look, and how old its intent may be
// before the process is taken for dead.
const (
	patience    = 10 * time.Second
	look        = 50 * time.Millisecond
	stillAlive  = time.Minute
	maxAttempts = 3
)

// Succeed calls f, as Make does, to make a key that replaces the key i.Instead. If several
// processes do so at once, one makes a key and the others wait until it has. current returns the id
// of the current key of that kind, or nil. Succeed reports whether f made the key: if not, and
// there is no error, another key is current by now. The error is ErrUnderWay if another process has
// begun and does not finish.
func (inv *Inventory) Succeed(ctx context.Context, i store.Intent, current func(context.Context) ([]byte, error), f func(context.Context) error) (bool, error) {
	i.Succeeds = true
	deadline := time.Now().Add(patience)
	for attempt := 1; ; attempt++ {
		id, err := current(ctx)
		if err != nil || !bytes.Equal(id, i.Instead) {
			return false, err
		}
		err = inv.Make(ctx, i, f)
		switch {
		case errors.Is(err, store.ErrExists) && time.Now().Before(deadline):
			if err := inv.await(ctx, i); err != nil {
				return false, err
			}
			attempt--
		case errors.Is(err, store.ErrExists):
			return false, fmt.Errorf("%s %x: %w", i.Object, i.Instead, ErrUnderWay)
		case errors.Is(err, store.ErrState) && attempt < maxAttempts: // another process was faster
		default:
			return err == nil, err
		}
	}
}

// await waits a moment for the process that makes the successor of the same key. It does not wait
// for one that began long ago.
func (inv *Inventory) await(ctx context.Context, i store.Intent) error {
	intents, err := inv.store.Intents(ctx)
	if err != nil {
		return err
	}
	for _, other := range intents {
		if other.Succeeds && other.Object == i.Object && bytes.Equal(other.Instead, i.Instead) && other.CreatedAt.Before(i.CreatedAt.Add(-stillAlive)) {
			return fmt.Errorf("%s %x: %w", i.Object, i.Instead, ErrUnderWay)
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(look):
		return nil
	}
}

// ReplaceWrappingKey makes another key of the same mechanism current instead of was, and returns
// the key that is current then. If several callers replace the same key, one makes another, and all
// return that one. The error is ErrUnderWay if another process has begun and does not finish.
func (inv *Inventory) ReplaceWrappingKey(ctx context.Context, was *store.WrappingKey, now time.Time) (store.WrappingKey, error) {
	key := store.WrappingKey{
		Purpose: was.Purpose, Label: WrappingKeyLabel, TokenSerial: inv.ring.Serial(), Current: true, CreatedAt: now.UTC().Truncate(time.Second),
	}
	m, err := MechanismOf(was)
	if err != nil {
		return store.WrappingKey{}, err
	}
	if key.ID, err = vault.NewKeyID(inv.rand); err != nil {
		return store.WrappingKey{}, err
	}
	i := store.Intent{KeyID: key.ID, Object: kinds[m].object, TokenSerial: key.TokenSerial, CreatedAt: now, Instead: was.ID}
	current := func(ctx context.Context) ([]byte, error) {
		k, err := inv.currentKey(ctx, was.Purpose)
		return k.ID, err
	}
	_, err = inv.Succeed(ctx, i, current, func(ctx context.Context) error { return inv.makeWrappingKey(ctx, m, &key) })
	if err != nil {
		return store.WrappingKey{}, err
	}
	return inv.currentKey(ctx, was.Purpose)
}
