package operator

import (
	"context"
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// SetUpRequest says how the first wrapping keys are to be made.
type SetUpRequest struct {
	// Sealing is the mechanism of the key that seals: vault.AESGCM or vault.RSAOAEP. Empty: what
	// the token has, AES-GCM first.
	Sealing vault.Mechanism
	// Each receives each wrapping key that the config's custody asks for, and whether it was made
	// or found. Its error ends the act.
	Each func(key store.WrappingKey, made bool) error
}

// MechanismError reports a wrapping key of another mechanism than the requested one. Nothing was
// changed. It wraps a RequestError.
type MechanismError struct {
	Key  store.WrappingKey
	Have vault.Mechanism
	Want vault.Mechanism
}

// Error implements error.
func (e *MechanismError) Error() string {
	return fmt.Sprintf("the current wrapping key %x is of mechanism %s, not %s", e.Key.ID, e.Have, e.Want)
}

// Unwrap returns a RequestError.
func (e *MechanismError) Unwrap() error { return &act.RequestError{Text: e.Error()} }

// SetUp makes the wrapping keys that the config's custody requires, if the store has none. A key
// that the store has must be the same in the token. SetUp may be called again at any time.
func (o *Operator) SetUp(ctx context.Context, r SetUpRequest) error {
	purposes := []store.Purpose{store.Seal}
	if o.settings.InToken() {
		purposes = append(purposes, store.Wrap)
	}
	for _, p := range purposes {
		key, made, err := o.setUpWrappingKey(ctx, p, r.Sealing)
		if err == nil {
			err = r.Each(key, made)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setUpWrappingKey finds the current wrapping key of a purpose, or makes the first one.
func (o *Operator) setUpWrappingKey(ctx context.Context, p store.Purpose, sealing vault.Mechanism) (key store.WrappingKey, made bool, err error) {
	t, err := o.Token(ctx)
	if err != nil {
		return key, false, err
	}
	key, err = o.store.CurrentWrappingKey(ctx, p)
	if err == nil {
		return key, false, o.checkSetUp(ctx, &key, sealing)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return key, false, err
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return key, false, err
	}
	m, err := firstMechanism(ctx, t, p, sealing)
	if err != nil {
		return key, false, err
	}
	key, err = inv.CreateWrappingKey(ctx, m, true, o.now())
	return key, true, err
}

// checkSetUp checks that a wrapping key of the store is in the token, and of the mechanism that
// is asked for.
func (o *Operator) checkSetUp(ctx context.Context, key *store.WrappingKey, sealing vault.Mechanism) error {
	inv, err := o.Inventory(ctx)
	if err == nil {
		_, err = inv.Recognize(ctx, key)
	}
	if err != nil {
		return err
	}
	m, err := inventory.MechanismOf(key)
	if err == nil && key.Purpose == store.Seal && sealing != "" && m != sealing {
		err = &MechanismError{*key, m, sealing}
	}
	return err
}

// firstMechanism returns the mechanism of the first wrapping key of a purpose.
func firstMechanism(ctx context.Context, t *token.Token, p store.Purpose, sealing vault.Mechanism) (vault.Mechanism, error) {
	switch {
	case p == store.Wrap:
		return vault.AESKeyWrap, nil
	case sealing != "":
		return sealing, nil
	}
	can, err := t.CanSeal(ctx)
	if err != nil || can {
		return vault.AESGCM, err
	}
	return vault.RSAOAEP, nil
}
