package inventory

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// ErrNotOurs reports a Welcome that names no key package of the store.
var ErrNotOurs = errors.New("the Welcome is for none of the key packages in the store")

// WelcomeRequest asks to open a Welcome.
type WelcomeRequest struct {
	Welcome *keypackage.Welcome
	// Identity selects among several key packages that the Welcome is for; it may be empty.
	Identity string
	// PSK and RatchetTree are as in welcome.Options.
	PSK         func(welcome.PSKID) ([]byte, bool)
	RatchetTree []byte
	// KeepLeaf keeps the private key of the leaf, sealed on its own, after the key package is
	// consumed: see DecryptPathSecret. Keys in the token are kept in any case.
	KeepLeaf bool
	// Now is the time, Until the end of the reservation.
	Now, Until time.Time
}

// OpenedWelcome is an opened Welcome with the key package that it used. Clear it after use.
type OpenedWelcome struct {
	*welcome.Opened
	// Record is the key package, reserved.
	Record store.KeyPackage
	// Keys are its private keys. The init key was for this Welcome alone; the encryption key is the
	// new member's leaf, and outlives the Welcome.
	Keys vault.Keys

	binding vault.Binding
}

// Clear overwrites the secrets.
func (o *OpenedWelcome) Clear() {
	if o != nil {
		o.Opened.Clear()
		o.Keys.Clear()
	}
}

// OpenWelcome opens a Welcome with the key package that it is for, and reserves the key package for
// this Welcome until r.Until. It writes nothing before the Welcome has opened: one that does not
// open changes nothing, whoever sent it. If two are opened at once with one key package, one is
// returned. The caller must then call Confirm or Release.
//
// A Welcome may be opened again during its reservation and after it: a caller that was killed loses
// nothing. If a Welcome is for several key packages of the store, OpenWelcome skips those that are
// consumed or reserved for another. The error is ErrNotOurs, store.ErrReserved, store.ErrConsumed,
// store.ErrErased, or that of welcome.Open.
func (inv *Inventory) OpenWelcome(ctx context.Context, r WelcomeRequest) (*OpenedWelcome, error) {
	for {
		opened, err := inv.openWelcome(ctx, r)
		if !errors.Is(err, store.ErrRewrapped) {
			return opened, err
		}
		// It was rewrapped between reading and reserving, which happens once in a rotation.
	}
}

func (inv *Inventory) openWelcome(ctx context.Context, r WelcomeRequest) (*OpenedWelcome, error) {
	record, err := inv.addressee(ctx, r)
	if err != nil {
		return nil, err
	}
	opened, err := inv.openWith(ctx, &record, r)
	if err != nil {
		if now, gone := inv.store.KeyPackage(ctx, record.Ref); gone == nil && !bytes.Equal(now.WrappingKeyID, record.WrappingKeyID) {
			return nil, store.ErrRewrapped // the key over what was read may be destroyed by now
		}
		return nil, inv.refuse(ctx, &record, r.Now, "open a Welcome", err)
	}
	leaf, err := inv.leafToKeep(ctx, opened, r)
	if err == nil {
		opened.Record, err = inv.store.Reserve(ctx, store.Reservation{
			Ref: record.Ref, Digest: WelcomeDigest(r.Welcome), Leaf: leaf, LeafUnder: record.WrappingKeyID, Until: r.Until, Now: r.Now,
		})
	}
	if err != nil {
		opened.Clear()
		err = fmt.Errorf("reserve the key package of the Welcome: %w", err)
		if errors.Is(err, store.ErrRewrapped) {
			return nil, err
		}
		return nil, inv.refuse(ctx, &record, r.Now, "open a Welcome", err)
	}
	return opened, nil
}

// leafToKeep returns the private key of the leaf in its stored form, or nil if it is not kept. A
// key package of last resort keeps both its keys.
func (inv *Inventory) leafToKeep(ctx context.Context, o *OpenedWelcome, r WelcomeRequest) ([]byte, error) {
	record := &o.Record
	v, err := inv.custodian(ctx, record.WrappingKeyID)
	if err != nil || record.LastResort || !r.KeepLeaf && v.Custody() != vault.CustodyToken {
		return nil, err
	}
	return v.KeepLeaf(ctx, inv.rand, o.binding, record.Sealed, o.Keys)
}

// addressee returns the first key package of the store that a Welcome is for and that it may be
// opened with. If there is none, the error is about the first that the Welcome is for.
func (inv *Inventory) addressee(ctx context.Context, r WelcomeRequest) (store.KeyPackage, error) {
	suite, ok := ciphersuite.Lookup(r.Welcome.CipherSuite)
	if !ok {
		return store.KeyPackage{}, fmt.Errorf("%w: its cipher suite %v is not known", ErrNotOurs, r.Welcome.CipherSuite)
	}
	digest := WelcomeDigest(r.Welcome)
	seen := make(map[string]bool)
	var refused error
	var of store.KeyPackage
	for _, s := range r.Welcome.Secrets {
		if len(s.NewMember) != suite.Nh || seen[string(s.NewMember)] {
			continue // not a ref of the suite, or looked up already
		}
		seen[string(s.NewMember)] = true
		record, err := inv.store.KeyPackage(ctx, s.NewMember)
		switch {
		case errors.Is(err, store.ErrNotFound) || err == nil && r.Identity != "" && record.Identity != r.Identity:
			continue
		case err != nil:
			return record, fmt.Errorf("find the key package of the Welcome: %w", err)
		}
		fault := openable(&record, digest, r.Now)
		if fault == nil {
			return record, nil
		}
		if refused == nil {
			refused = fmt.Errorf("key package %v: %w", keypackage.Ref(record.Ref), fault)
			of = record
		}
	}
	if refused == nil {
		return store.KeyPackage{}, ErrNotOurs
	}
	return store.KeyPackage{}, inv.refuse(ctx, &of, r.Now, "open a Welcome", refused)
}

// openable returns why a key package cannot be opened with the Welcome that has the digest. Reserve
// decides; this function only chooses.
func openable(record *store.KeyPackage, digest []byte, now time.Time) error {
	switch {
	case erased(record) != nil:
		return erased(record)
	case record.State == store.Reserved && !bytes.Equal(record.WelcomeDigest, digest) && now.Before(record.ReservedUntil):
		return fmt.Errorf("%w until %s", store.ErrReserved, record.ReservedUntil.Format(time.RFC3339))
	}
	return nil
}

func (inv *Inventory) openWith(ctx context.Context, record *store.KeyPackage, r WelcomeRequest) (*OpenedWelcome, error) {
	kp, err := Public(record)
	if err != nil {
		return nil, err
	}
	keys, err := inv.keys(ctx, record, kp)
	if err != nil {
		return nil, err
	}
	b, err := binding(record, kp)
	if err != nil {
		return nil, err
	}
	opened, err := welcome.Open(r.Welcome, kp, keys.Init, welcome.Options{PSK: r.PSK, RatchetTree: r.RatchetTree})
	if err != nil {
		if mixedUp := keys.Check(); mixedUp != nil { // the fault may be the key's
			err = mixedUp
		}
		keys.Clear()
		return nil, fmt.Errorf("open the Welcome for key package %v: %w", keypackage.Ref(record.Ref), err)
	}
	return &OpenedWelcome{Opened: opened, Record: *record, Keys: keys, binding: b}, nil
}

// Confirm ends the life of a key package that was opened with the Welcome of this digest: its
// private keys are erased, and no other Welcome can be opened with it. One of last resort is only
// counted. The error is store.ErrNotFound, or store.ErrState if it is not reserved for that
// Welcome.
func (inv *Inventory) Confirm(ctx context.Context, ref keypackage.Ref, digest []byte, now time.Time) error {
	if err := inv.store.Consume(ctx, ref, digest, now); err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	return nil
}

// Release ends the reservation of a key package that was opened with the Welcome of this digest and
// is not used. Its errors are those of Confirm.
func (inv *Inventory) Release(ctx context.Context, ref keypackage.Ref, digest []byte, now time.Time) error {
	if err := inv.store.Release(ctx, ref, digest, now); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return nil
}

// WelcomeDigest identifies a Welcome: SHA-256 over the bare Welcome.
func WelcomeDigest(w *keypackage.Welcome) []byte {
	digest := sha256.Sum256(w.Bytes())
	return digest[:]
}
