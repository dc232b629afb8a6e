package operator

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// OpenWelcomeRequest asks for a Welcome to be opened.
type OpenWelcomeRequest struct {
	Welcome     *keypackage.Welcome
	Identity    string // empty: any that it is for
	PSK         func(welcome.PSKID) ([]byte, bool)
	RatchetTree []byte // if the Welcome does not carry it
	// HandOverLeaf hands the leaf's private key over instead of keeping it, if the config lets
	// private keys out.
	HandOverLeaf bool
}

// OpenedWelcome has the secrets of a new member. Clear erases them.
type OpenedWelcome struct {
	*inventory.OpenedWelcome
	LeafKey []byte // the leaf's private key, if it was handed over
}

// Clear erases the secrets.
func (w *OpenedWelcome) Clear() {
	w.OpenedWelcome.Clear()
	clear(w.LeafKey)
}

// OpenWelcome opens a Welcome with the key package that it is for, and reserves the key package
// for welcome.reservation of the config: until ConfirmWelcome or ReleaseWelcome, no other Welcome
// opens with it. A Welcome that does not open uses nothing up.
func (o *Operator) OpenWelcome(ctx context.Context, r OpenWelcomeRequest) (*OpenedWelcome, error) {
	inv, err := o.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	now := o.now()
	handOver := r.HandOverLeaf && o.settings.Unwrap.Allow
	opened, err := inv.OpenWelcome(ctx, inventory.WelcomeRequest{
		Welcome: r.Welcome, Identity: r.Identity, PSK: r.PSK, RatchetTree: r.RatchetTree, KeepLeaf: !handOver,
		Now: now, Until: now.Add(time.Duration(o.settings.Welcome.Reservation)),
	})
	if err != nil {
		return nil, err
	}
	out := &OpenedWelcome{OpenedWelcome: opened}
	secret, ok := opened.Keys.Secret()
	if !ok || !handOver {
		return out, nil
	}
	// The trail names the caller before it gets the key.
	if err := o.store.Record(ctx, audit.Entry{
		Time: now, Act: audit.Unwrapped, Identity: opened.Record.Identity, Ref: opened.Record.Ref, KeyID: opened.Record.WrappingKeyID, Detail: "the leaf's key",
	}); err != nil {
		out.Clear()
		return nil, err
	}
	out.LeafKey = secret.Encryption.Bytes()
	return out, nil
}

// ConfirmWelcome erases the private keys of a key package that is reserved for the Welcome with a
// digest: the member exists. A key package of last resort is only counted. An empty digest is for
// any Welcome.
func (o *Operator) ConfirmWelcome(ctx context.Context, ref, digest []byte) (store.KeyPackage, error) {
	if err := o.records.Confirm(ctx, ref, digest, o.now()); err != nil {
		return store.KeyPackage{}, err
	}
	return o.store.KeyPackage(ctx, ref)
}

// ReleaseWelcome gives back a key package that is reserved for the Welcome with a digest.
func (o *Operator) ReleaseWelcome(ctx context.Context, ref, digest []byte) (store.KeyPackage, error) {
	if err := o.records.Release(ctx, ref, digest, o.now()); err != nil {
		return store.KeyPackage{}, err
	}
	return o.store.KeyPackage(ctx, ref)
}

// Reserved returns the record of a key package, by the first digits of its ref, if it is reserved
// for the Welcome whose digest begins with the given digits. No digits are for any Welcome.
func (o *Operator) Reserved(ctx context.Context, prefix, digest string) (store.KeyPackage, error) {
	record, err := o.Find(ctx, prefix)
	if err != nil {
		return record, err
	}
	if digest = strings.ToLower(digest); !strings.HasPrefix(hex.EncodeToString(record.WelcomeDigest), digest) {
		return record, fmt.Errorf("key package %v: %w: it is not reserved for the Welcome %s", keypackage.Ref(record.Ref), store.ErrState, digest)
	}
	return record, nil
}

// EraseLeaf erases the private key of a leaf, which was kept when its Welcome was opened: the
// member has another leaf, or has left the group.
func (o *Operator) EraseLeaf(ctx context.Context, ref []byte) (store.KeyPackage, error) {
	if err := o.records.ConfirmLeaf(ctx, ref, o.now()); err != nil {
		return store.KeyPackage{}, err
	}
	return o.store.KeyPackage(ctx, ref)
}

// DecryptPathSecret decrypts a path secret (RFC 9420, Section 7.6) with the leaf's private key,
// which was kept when its Welcome was opened. The caller clears the result.
func (o *Operator) DecryptPathSecret(ctx context.Context, ref []byte, c inventory.Ciphertext) ([]byte, error) {
	inv, err := o.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	return inv.DecryptPathSecret(ctx, ref, c, o.now())
}
