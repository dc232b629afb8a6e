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

// ErrUnderWay reports a key that somebody else began to make, and has not made yet.
var ErrUnderWay = errors.New("another process has begun to make the key that takes its place")

// How long to wait for somebody else's key, how often to look, and how old what they began
// may be for them to be believed to be at it.
const (
	patience    = 10 * time.Second
	look        = 50 * time.Millisecond
	stillAlive  = time.Minute
	maxAttempts = 3
)

// Succeed makes a key that is to take the place of the key i.Instead by f, as Make does. Of
// several that do so at once, one makes a key; the others wait until it has. current returns
// the id of the current key of that kind, or nothing. It reports whether f has made the key:
// where it has not, and there is no error, another key is current by now. The error is
// ErrUnderWay where somebody has begun and does not come to an end.
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
		case errors.Is(err, store.ErrState) && attempt < maxAttempts: // somebody was quicker
		default:
			return err == nil, err
		}
	}
}

// await waits a moment for the one who makes the key that is to succeed the same one. One
// who began long ago is not waited for.
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

// ReplaceWrappingKey makes another key of the same mechanism current in the place of was, and returns the one that
// is current then: of several that replace the same key, one makes another, which all of them
// return. The error is ErrUnderWay where somebody has begun and does not come to an end.
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
