package inventory

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/vault"
)

// kind says what wrapping keys of a mechanism are.
type kind struct {
	purpose store.Purpose
	object  store.Object // its kind of object in the token
}

var kinds = map[vault.Mechanism]kind{
	vault.AESGCM:     {store.Seal, store.ObjectSealingKey},
	vault.RSAOAEP:    {store.Seal, store.ObjectSealingPair},
	vault.AESKeyWrap: {store.Wrap, store.ObjectWrappingKey},
}

// MechanismOf returns the mechanism of a wrapping key, which its stamp has. The error wraps
// vault.ErrStamp if it has none, or one that does not fit its purpose.
func MechanismOf(k *store.WrappingKey) (vault.Mechanism, error) {
	m, err := vault.MechanismOf(k.Stamp)
	if err == nil && kinds[m].purpose != k.Purpose {
		err = fmt.Errorf("%w: a key of mechanism %s does not %s", vault.ErrStamp, m, k.Purpose)
	}
	if err != nil {
		return "", fmt.Errorf("recognize wrapping key %v: %w", vault.KeyID(k.ID), err)
	}
	return m, nil
}

// PurposeOf returns the purpose of keys of a mechanism, or an empty one if there is no such
// mechanism.
func PurposeOf(m vault.Mechanism) store.Purpose { return kinds[m].purpose }

// NextMechanism returns the default mechanism of the next wrapping key of a purpose: that of the
// current one, or AES for the first.
func (inv *Inventory) NextMechanism(ctx context.Context, p store.Purpose) (vault.Mechanism, error) {
	current, err := inv.store.CurrentWrappingKey(ctx, p)
	switch {
	case errors.Is(err, store.ErrNotFound) && p == store.Wrap:
		return vault.AESKeyWrap, nil
	case errors.Is(err, store.ErrNotFound):
		return vault.AESGCM, nil
	case err != nil:
		return "", err
	}
	return MechanismOf(&current)
}

// WrappingKeyLabel is the CKA_LABEL of wrapping keys.
const WrappingKeyLabel = "hsm-kp wrapping key"

// CreateWrappingKey makes a wrapping key of a mechanism in the token. It becomes the current one if
// it is the first of its purpose or current is set. A crash in between leaves an intent, which
// Repair settles; the next call takes up the intent of the first key that seals.
func (inv *Inventory) CreateWrappingKey(ctx context.Context, m vault.Mechanism, current bool, now time.Time) (store.WrappingKey, error) {
	p := PurposeOf(m)
	if p == "" {
		return store.WrappingKey{}, fmt.Errorf("generate wrapping key: there is no mechanism %q", m)
	}
	_, err := inv.store.CurrentWrappingKey(ctx, p)
	first := errors.Is(err, store.ErrNotFound)
	if err != nil && !first {
		return store.WrappingKey{}, err
	}
	key := store.WrappingKey{
		Purpose: p, Label: WrappingKeyLabel, TokenSerial: inv.ring.Serial(), Current: current || first,
		CreatedAt: now.UTC().Truncate(time.Second),
	}
	if p == store.Seal && first {
		done, err := inv.takeUp(ctx, m, &key)
		if err != nil || done {
			return key, err
		}
	}
	if key.ID, err = vault.NewKeyID(inv.rand); err != nil {
		return store.WrappingKey{}, err
	}
	i := store.Intent{KeyID: key.ID, Object: kinds[m].object, TokenSerial: key.TokenSerial, CreatedAt: now}
	return key, inv.Make(ctx, i, func(ctx context.Context) error { return inv.makeWrappingKey(ctx, m, &key) })
}

// makeWrappingKey makes a wrapping key of a mechanism in the token and records it.
func (inv *Inventory) makeWrappingKey(ctx context.Context, m vault.Mechanism, key *store.WrappingKey) (err error) {
	if key.Stamp, err = inv.ring.Create(ctx, key.ID, m, key.Label); err != nil {
		return fmt.Errorf("generate wrapping key: %w", err)
	}
	return inv.addWrappingKey(ctx, *key)
}

func (inv *Inventory) addWrappingKey(ctx context.Context, key store.WrappingKey) error {
	if err := inv.store.AddWrappingKey(ctx, key); err != nil {
		return fmt.Errorf("record wrapping key %x: %w", key.ID, err)
	}
	return nil
}

// takeUp records the first wrapping key that seals if a crash left it in the token without a
// record. The intent to make it has no stamp, because no key could stamp it yet, and so nothing
// that it names is destroyed: anyone who can write to the store might have planted it. At worst,
// the planted key is a wrapping key of the token, which serves as well as another.
//
// A key of another mechanism is left, and so is an incomplete key pair.
func (inv *Inventory) takeUp(ctx context.Context, m vault.Mechanism, key *store.WrappingKey) (bool, error) {
	intents, err := inv.store.Intents(ctx)
	if err != nil {
		return false, err
	}
	for _, i := range intents {
		if !unstampedFirst(&i, key.TokenSerial) || i.Object != kinds[m].object {
			continue
		}
		c, err := inv.ring.Open(ctx, i.KeyID, m)
		if err != nil { // it was not made, or is not usable
			if err := inv.ring.Discard(ctx, i.KeyID, key.Label); err != nil {
				return false, err
			}
			continue
		}
		v, ok := c.(vault.Sealer)
		if !ok {
			continue
		}
		key.ID = i.KeyID
		if key.Stamp, err = v.Prove(ctx, inv.rand); err != nil {
			return false, fmt.Errorf("take up wrapping key %x: %w", key.ID, err)
		}
		return true, inv.addWrappingKey(ctx, *key)
	}
	return false, nil
}

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

// RotateWrappingKey makes a wrapping key the current one of its purpose: the one with the given id,
// or a new one of the mechanism if id is nil.
func (inv *Inventory) RotateWrappingKey(ctx context.Context, m vault.Mechanism, id vault.KeyID, now time.Time) (store.WrappingKey, error) {
	if id == nil {
		return inv.CreateWrappingKey(ctx, m, true, now)
	}
	// A key that does not work must not become the current one.
	if _, err := inv.custodian(ctx, id); err != nil {
		return store.WrappingKey{}, err
	}
	if err := inv.store.RotateWrappingKey(ctx, id, now); err != nil {
		return store.WrappingKey{}, fmt.Errorf("rotate: %w", err)
	}
	return inv.wrappingKey(ctx, id)
}

// Schedule says when to replace a wrapping key. A zero field means never.
type Schedule struct {
	MaxAge  time.Duration
	MaxUses uint64
}

// Due reports whether a wrapping key must be replaced.
func (s Schedule) Due(k *store.WrappingKey, now time.Time) bool {
	return s.MaxAge > 0 && !now.Before(k.CreatedAt.Add(s.MaxAge)) || s.MaxUses > 0 && k.Uses >= s.MaxUses
}

// DueWrappingKeys returns the current wrapping keys that must be replaced.
func (inv *Inventory) DueWrappingKeys(ctx context.Context, s Schedule, now time.Time) ([]store.WrappingKey, error) {
	keys, err := inv.store.WrappingKeys(ctx)
	var due []store.WrappingKey
	for _, k := range keys {
		if k.Current && s.Due(&k, now) {
			due = append(due, k)
		}
	}
	return due, err
}

// Rewrapped is the progress of a Rewrap.
type Rewrapped struct {
	KeyPackages uint64 // now under the current wrapping key
	Identities  uint64 // now stamped with it
	Left        uint64 // left unchanged because their private keys do not unseal
}

// Rewrap moves everything under the wrapping key from to the current one of its purpose: private
// keys, and stamps of identities. It may be interrupted and repeated at any time. It calls progress
// from one goroutine. It leaves key packages whose private keys do not unseal; the error joins up
// to ten of their errors.
func (inv *Inventory) Rewrap(ctx context.Context, from vault.KeyID, now time.Time, progress func(Rewrapped)) (Rewrapped, error) {
	record, err := inv.wrappingKey(ctx, from)
	if err != nil {
		return Rewrapped{}, err
	}
	r := &rewrapping{inv: inv, now: now, start: time.Now(), progress: progress, faults: make(map[string]error)}
	to, err := inv.currentKey(ctx, record.Purpose)
	if err == nil && string(to.ID) == string(from) {
		err = fmt.Errorf("rewrap: wrapping key %v: %w: it is the current one", from, store.ErrState)
	}
	if err != nil {
		return r.done, err
	}
	if r.from, err = inv.custodian(ctx, from); err != nil {
		return r.done, err
	}
	if r.to, err = inv.custodian(ctx, to.ID); err != nil {
		return r.done, err
	}
	if record.Purpose == store.Seal {
		if r.done.Identities, err = inv.restamp(ctx, from, now); err != nil {
			return r.done, err
		}
	}
	// What is reserved or confirmed during a pass is left for the next one.
	for moved := uint64(1); moved > 0; {
		before := r.done.KeyPackages
		if err := r.pass(ctx); err != nil {
			return r.done, err
		}
		moved = r.done.KeyPackages - before
	}
	r.done.Left = uint64(len(r.faults))
	return r.done, r.fault()
}

// restamp renews the stamps of a wrapping key with the current one, and reseals the accounts under
// it.
func (inv *Inventory) restamp(ctx context.Context, from vault.KeyID, now time.Time) (uint64, error) {
	if err := inv.resealAccounts(ctx, from); err != nil {
		return 0, err
	}
	identities, err := inv.store.Identities(ctx)
	if err != nil {
		return 0, err
	}
	var n uint64
	for _, id := range identities {
		versions, err := inv.store.Versions(ctx, id.Name)
		if err != nil {
			return n, err
		}
		for _, v := range versions {
			if string(v.StampKey) != string(from) {
				continue
			}
			err := inv.restampOne(ctx, &v, now)
			if errors.Is(err, store.ErrState) {
				continue // another process was faster
			}
			if err != nil {
				return n, fmt.Errorf("restamp identity %q: %w", v.Name, err)
			}
			n++
		}
	}
	return n, nil
}

// restampOne stamps a genuine record again.
func (inv *Inventory) restampOne(ctx context.Context, v *store.Identity, now time.Time) error {
	if err := inv.CheckIdentity(ctx, v); err != nil {
		return err
	}
	was := v.Stamp
	if err := inv.StampIdentity(ctx, v); err != nil {
		return err
	}
	return inv.store.ChangeIdentity(ctx, *v, was, now)
}

// rewrapping is the state of a Rewrap.
type rewrapping struct {
	inv      *Inventory
	from, to vault.Custodian
	now      time.Time
	start    time.Time // this machine's clock at the time now
	progress func(Rewrapped)
	done     Rewrapped

	mu     sync.Mutex
	faults map[string]error // by KeyPackageRef
}

// pass goes once through everything under the old key.
func (r *rewrapping) pass(ctx context.Context) error {
	var batch []store.KeyPackage
	for record, err := range r.inv.store.KeyPackages(ctx, store.Filter{WrappingKeyID: r.from.KeyID()}) {
		if err != nil {
			return fmt.Errorf("rewrap: %w", err)
		}
		if batch = append(batch, record); len(batch) < max(r.inv.batch, 1) {
			continue
		}
		if err := r.move(ctx, batch); err != nil {
			return err
		}
		batch = batch[:0]
	}
	return r.move(ctx, batch)
}

// move rewraps a batch in parallel and stores it.
func (r *rewrapping) move(ctx context.Context, batch []store.KeyPackage) error {
	moved := make([]*store.Rewrapped, len(batch))
	var workers errgroup.Group
	workers.SetLimit(max(r.inv.workers, 1))
	for i := range batch {
		workers.Go(func() (err error) {
			if moved[i], err = r.rewrap(ctx, &batch[i]); errors.Is(err, vault.ErrSealed) || errors.Is(err, ErrMixedUp) || errors.Is(err, ErrSuiteUnknown) {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.faults[string(batch[i].Ref)] = err
				return nil
			}
			return err
		})
	}
	if err := workers.Wait(); err != nil {
		return err
	}
	var whole []store.Rewrapped
	for _, m := range moved {
		if m != nil {
			whole = append(whole, *m)
		}
	}
	n, err := r.inv.store.Rewrap(ctx, whole, r.now.Add(time.Since(r.start)))
	r.done.KeyPackages += n
	if err == nil && r.progress != nil {
		r.progress(r.done)
	}
	return err
}

func (r *rewrapping) rewrap(ctx context.Context, record *store.KeyPackage) (*store.Rewrapped, error) {
	kp, err := Public(record)
	if err != nil {
		return nil, err
	}
	b, err := binding(record, kp)
	if err != nil {
		return nil, err
	}
	out := &store.Rewrapped{
		Ref: record.Ref, WasSealed: record.Sealed, WasLeaf: record.Leaf,
		WrappingKeyID: r.to.KeyID(), WasWrappingKeyID: record.WrappingKeyID,
	}
	for _, part := range []struct {
		sealed []byte
		leaf   bool
		to     *[]byte
	}{{record.Sealed, false, &out.Sealed}, {record.Leaf, true, &out.Leaf}} {
		if len(part.sealed) == 0 {
			continue
		}
		if *part.to, err = r.from.Rewrap(ctx, r.inv.rand, b, part.sealed, part.leaf, r.to); err != nil {
			return nil, fmt.Errorf("rewrap key package %x: %w", record.Ref, err)
		}
	}
	return out, nil
}

// maxFaults is how many faults an error contains.
const maxFaults = 10

func (r *rewrapping) fault() error {
	var faults []error
	for _, err := range r.faults {
		if faults = append(faults, err); len(faults) == maxFaults {
			break
		}
	}
	return errors.Join(faults...)
}

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
