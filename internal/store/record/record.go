// Package record has what the backends of package store have in common without knowing a database:
// the record of a key package as it is stored, what backlogs make of it, which steps it may take,
// and acts that share transactions.
package record

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Row is a key package with the number of its row, which pages follow, the state that it was reserved
// from, and the backlogs that its row has still to follow.
type Row struct {
	ID                int64
	ReservedFrom      store.State
	RetireBy, EraseBy int64 // 0: none
	store.KeyPackage
}

// By checks entries, and returns them with an actor for those that have none.
func By(actor string, entries []audit.Entry) ([]audit.Entry, error) {
	entries = slices.Clone(entries)
	for i := range entries {
		if entries[i].Actor == "" {
			entries[i].Actor = actor
		}
		if err := entries[i].Check(); err != nil {
			return nil, fmt.Errorf("add to the audit trail: %w", err)
		}
	}
	return entries, nil
}

// Lag is what backlogs have decided for a row, as it was read. The number 0 stands for no backlog.
type Lag struct {
	Retire, Erase int64     // the backlogs
	Until         time.Time // the end of grace of a retired one
	Erased        time.Time // when the other backlog was begun
}

// Ahead changes a row that was read to what its backlogs say, in their order.
func (r *Row) Ahead(l Lag) {
	if len(r.Sealed)+len(r.Leaf) == 0 {
		l.Erase = 0
	}
	first := l.Erase == 0 || l.Retire < l.Erase
	if l.Retire != 0 && first && r.Retirable() {
		r.RetireBy = l.Retire
		r.RetiredUntil = l.Until
		if r.State == store.Reserved {
			r.ReservedFrom = store.Retired
		} else {
			r.State = store.Retired
		}
	}
	if l.Erase == 0 {
		return
	}
	r.EraseBy = l.Erase
	r.Sealed, r.Leaf = nil, nil
	if r.State != store.Consumed {
		r.State, r.ReservedFrom, r.ErasedAt, r.ReservedUntil = store.Erased, "", l.Erased, time.Time{}
	}
}

// Retirable reports whether a key package can be retired. For a reserved one, the state that it was
// reserved from counts: if the end of its private keys is set already, it stays.
func (r *Row) Retirable() bool {
	was := r.State
	if was == store.Reserved {
		was = r.ReservedFrom
	}
	return store.Allowed(was, store.Retire, store.Retired)
}

// Reservable fails if a key package cannot be reserved.
func (r *Row) Reservable(with store.Reservation) error {
	switch {
	case r.State == store.Consumed:
		return store.ErrConsumed
	case r.State == store.Erased:
		return store.ErrErased
	case len(r.ReleaseDigest) > 0:
		return store.ErrForDevice
	case r.State == store.Reserved && !bytes.Equal(r.WelcomeDigest, with.Digest) && with.Now.Before(r.ReservedUntil):
		return fmt.Errorf("%w until %s", store.ErrReserved, r.ReservedUntil.Format(time.RFC3339))
	case len(with.Leaf) > 0 && !bytes.Equal(with.LeafUnder, r.WrappingKeyID):
		return store.ErrRewrapped
	}
	return nil
}

// ReservedFor fails if a key package is not reserved for the Welcome with the digest.
func (r *Row) ReservedFor(digest []byte) error {
	switch {
	case r.State != store.Reserved:
		return fmt.Errorf("%w: it is %s", store.ErrState, r.State)
	case !bytes.Equal(r.WelcomeDigest, digest):
		return fmt.Errorf("%w: it is reserved for another Welcome", store.ErrState)
	}
	return nil
}

// overtaken are the states that a key package may have reached while its file was written: it was
// published, and somebody was fast.
var overtaken = []store.State{store.Reserved, store.Consumed, store.Retired, store.Expired}

// Movable fails if a key package is not in one of the states from, or may not move from it to the
// state to. It returns the step, and whether the key package stays in its state: it was overtaken,
// and counts as published.
func (r *Row) Movable(from []store.State, to store.State) (step store.Step, stays bool, err error) {
	step = store.Write
	if to == store.Published {
		step = store.Publish
	}
	wasPending := step == store.Publish && slices.Contains(from, store.Pending)
	switch {
	case wasPending && r.State == store.Erased:
		return step, false, store.ErrErased
	case wasPending && slices.Contains(overtaken, r.State):
		return step, true, nil
	case !slices.Contains(from, r.State) || !store.Allowed(r.State, step, to):
		return step, false, fmt.Errorf("%w: it is %s", store.ErrState, r.State)
	}
	return step, false, nil
}

// Acknowledge reports whether it changes a key package that a directory acknowledges it: the second
// time, it does not. The error is store.ErrErased, or store.ErrState for one that was not on its way
// to this directory.
func (r *Row) Acknowledge(directory string) (changes bool, err error) {
	overtaken := slices.Contains(overtaken, r.State)
	switch {
	case r.State == store.Erased:
		return false, store.ErrErased
	case r.Directory != directory:
		return false, fmt.Errorf("%w: it is not on its way to directory %q", store.ErrState, directory)
	case r.State == store.Published, overtaken && r.LeasedUntil.IsZero():
		return false, nil
	case r.State != store.Pending && !overtaken:
		return false, fmt.Errorf("%w: it is %s", store.ErrState, r.State)
	}
	return true, nil
}

// As reports whether the private keys of a key package are still those that were read when they
// were rewrapped.
func (r *Row) As(was *store.Rewrapped) bool {
	return bytes.Equal(r.Sealed, was.WasSealed) && bytes.Equal(r.Leaf, was.WasLeaf) && bytes.Equal(r.WrappingKeyID, was.WasWrappingKeyID)
}

// Ends reports whether the time of a reservation is over at now.
func (r *Row) Ends(now time.Time) bool {
	return r.State == store.Reserved && !r.ReservedUntil.After(now)
}

// Expires reports whether the lifetime of a key package is over, and nothing else has ended it.
func (r *Row) Expires(now time.Time) bool {
	return store.Allowed(r.State, store.Expire, store.Expired) && r.NotAfter.Before(now)
}

// GraceOver reports whether the private keys of a key package are to be erased: it has been expired
// for longer than grace, or was retired until a time that is over.
func (r *Row) GraceOver(now time.Time, grace time.Duration) bool {
	return r.State == store.Expired && r.NotAfter.Add(grace).Before(now) ||
		r.State == store.Retired && !r.RetiredUntil.After(now)
}

// EntryOf is an entry of the trail about a key package.
func EntryOf(k *store.KeyPackage, act audit.Act, at time.Time) audit.Entry {
	return audit.Entry{Time: at, Act: act, Identity: k.Identity, Ref: k.Ref, KeyID: k.WrappingKeyID}
}

// AcknowledgedEntry is the entry of a key package that a directory has.
func AcknowledgedEntry(r *Row, directory string, at time.Time) audit.Entry {
	e := EntryOf(&r.KeyPackage, audit.Exported, at)
	e.Detail = fmt.Sprintf("directory %q", directory)
	return e
}

// WelcomeEntry is an entry of the trail about a key package and a Welcome, by its digest.
func WelcomeEntry(k *store.KeyPackage, act audit.Act, digest []byte, at time.Time) audit.Entry {
	e := EntryOf(k, act, at)
	e.Detail = fmt.Sprintf("Welcome %x", digest)
	return e
}

// ReservedEntries are the entries of a reservation of a key package, as it was before.
func ReservedEntries(was *Row, digest []byte, at time.Time) (entries []audit.Entry) {
	if was.State != store.Reserved || !bytes.Equal(was.WelcomeDigest, digest) {
		entries = append(entries, WelcomeEntry(&was.KeyPackage, audit.Reserved, digest, at))
	}
	return append(entries, WelcomeEntry(&was.KeyPackage, audit.Opened, digest, at))
}

// ConsumedEntry is the entry of a key package that a Welcome used up, or that was opened if it is of
// last resort.
func ConsumedEntry(r *Row, digest []byte, at time.Time) audit.Entry {
	e := WelcomeEntry(&r.KeyPackage, audit.Consumed, digest, at)
	if r.LastResort {
		e.Detail += ", last resort"
	}
	return e
}

// ShreddedEntry is the entry of a key package whose wrapping key is condemned. What is erased of a
// consumed one is the leaf's private key.
func ShreddedEntry(r *Row, at time.Time) audit.Entry {
	act := audit.Erased
	if r.State == store.Consumed {
		act = audit.LeafErased
	}
	e := EntryOf(&r.KeyPackage, act, at)
	e.Detail = "its wrapping key is destroyed"
	return e
}

// Dependents describes what depends on a wrapping key.
func Dependents(d store.Dependents) string {
	var parts []string
	if d.KeyPackages > 0 {
		parts = append(parts, fmt.Sprintf("private keys of %d of the key packages", d.KeyPackages))
	}
	if d.Identities > 0 {
		parts = append(parts, fmt.Sprintf("stamps of %d of the identities", d.Identities))
	}
	return strings.Join(parts, " and ") + " are under it"
}
