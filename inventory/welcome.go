package inventory

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// ErrNotOurs reports a Welcome that names no key package of the store.
var ErrNotOurs = errors.New("the Welcome is for none of the key packages in the store")

// WelcomeRequest asks to open a Welcome.
type WelcomeRequest struct {
	Welcome *keypackage.Welcome
	// PSK and RatchetTree are as in welcome.Options.
	PSK         func(welcome.PSKID) ([]byte, bool)
	RatchetTree []byte
	// Now is the time, Until the end of the reservation.
	Now, Until time.Time
}

// OpenedWelcome is a Welcome that was opened, with the key package that it used. Clear
// it after use.
type OpenedWelcome struct {
	*welcome.Opened
	// Record is the key package, reserved.
	Record store.KeyPackage
	// Keys are its private keys. The init key was for this Welcome and for no other;
	// the encryption key is the new member's leaf, and outlives it.
	Keys vault.PrivateKeys
}

// Clear overwrites the secrets.
func (o *OpenedWelcome) Clear() {
	if o != nil {
		o.Opened.Clear()
		o.Keys.Clear()
	}
}

// OpenWelcome opens a Welcome with the key package that it is for. The key package is
// reserved before its private keys are unsealed, for this Welcome and until r.Until;
// where the Welcome does not open, the reservation ends and nothing has changed. What
// follows is Confirm, or Release.
//
// A Welcome may be opened again while its reservation lasts, and after it: a caller
// that was killed loses nothing. The error is ErrNotOurs, store.ErrReserved,
// store.ErrConsumed, or that of welcome.Open.
func (inv *Inventory) OpenWelcome(ctx context.Context, r WelcomeRequest) (*OpenedWelcome, error) {
	ref, err := inv.addressee(ctx, r.Welcome)
	if err != nil {
		return nil, err
	}
	before, err := inv.Store.KeyPackage(ctx, ref)
	if err != nil {
		return nil, err
	}
	digest := welcomeDigest(r.Welcome)
	record, err := inv.Store.Reserve(ctx, ref, digest, r.Until, r.Now)
	if err != nil {
		return nil, fmt.Errorf("reserve the key package of the Welcome: %w", err)
	}
	opened, err := inv.openReserved(ctx, &record, r)
	if err != nil {
		// A reservation that was there before is somebody's who has opened it.
		if before.State != store.Reserved {
			err = errors.Join(err, inv.Store.Release(context.WithoutCancel(ctx), ref))
		}
		return nil, err
	}
	return opened, nil
}

// addressee returns the first ref of a Welcome that the store has.
func (inv *Inventory) addressee(ctx context.Context, w *keypackage.Welcome) (keypackage.Ref, error) {
	for _, s := range w.Secrets {
		switch refs, err := inv.Store.FindRefs(ctx, s.NewMember, s.NewMember, 1); {
		case err != nil:
			return nil, fmt.Errorf("find the key package of the Welcome: %w", err)
		case len(refs) == 1:
			return refs[0], nil
		}
	}
	return nil, ErrNotOurs
}

func (inv *Inventory) openReserved(ctx context.Context, record *store.KeyPackage, r WelcomeRequest) (*OpenedWelcome, error) {
	kp, err := Public(record)
	if err != nil {
		return nil, err
	}
	keys, err := inv.unseal(ctx, record, kp)
	if err != nil {
		return nil, err
	}
	opened, err := welcome.Open(r.Welcome, kp, keys.Init, welcome.Options{PSK: r.PSK, RatchetTree: r.RatchetTree})
	if err != nil {
		keys.Clear()
		return nil, fmt.Errorf("open the Welcome for key package %v: %w", keypackage.Ref(record.Ref), err)
	}
	return &OpenedWelcome{Opened: opened, Record: *record, Keys: keys}, nil
}

// Confirm ends the life of a key package that was opened: its private keys are
// erased, and no Welcome opens with it again. One of last resort is only counted.
// The error is store.ErrNotFound or store.ErrState.
func (inv *Inventory) Confirm(ctx context.Context, ref keypackage.Ref, now time.Time) error {
	record, err := inv.Store.KeyPackage(ctx, ref)
	if err != nil {
		return fmt.Errorf("confirm key package %v: %w", ref, err)
	}
	if err := inv.Store.Consume(ctx, ref, record.WelcomeDigest, now); err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	return nil
}

// Release gives a key package back that was opened and is not used after all. The
// error is store.ErrNotFound or store.ErrState.
func (inv *Inventory) Release(ctx context.Context, ref keypackage.Ref) error {
	if err := inv.Store.Release(ctx, ref); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

// welcomeDigest names a Welcome: SHA-256 over the bare Welcome.
func welcomeDigest(w *keypackage.Welcome) []byte {
	digest := sha256.Sum256(w.Bytes())
	return digest[:]
}
