// Package record is what the backends of package store have in common: a record of a key
// package as it is stored, what backlogs make of it, and which step it may take. It knows no
// database. How a step is written down is for each backend to say.
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

// Row is a key package with the number of its row, which pages follow, the state that it was
// reserved from, and the backlogs that its row has still to follow.
type Row struct {
	ID                int64
	ReservedFrom      store.State
	RetireBy, EraseBy int64 // 0: none
	store.KeyPackage
}

// By returns entries with the name of who acts where they have none, checked.
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

// Lag is what backlogs have in store for a row, as it was read. A backlog with the number 0
// is none.
type Lag struct {
	Retire, Erase int64     // the backlogs
	Until         time.Time // when the grace of what is retired ends
	Erased        time.Time // when the other backlog was begun
}

// Ahead makes of a row that was read what its backlogs say, in their order.
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

// Retirable reports whether a key package can be retired. Of one that is reserved, what
// it was reserved from counts: an end of its private keys that is set already stays.
func (r *Row) Retirable() bool {
	was := r.State
	if was == store.Reserved {
		was = r.ReservedFrom
	}
	return store.Allowed(was, store.Retire, store.Retired)
}

// Reservable says what keeps a key package from being reserved: nil where nothing does.
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

// ReservedFor says what keeps the reservation for the Welcome with the digest from being
// ended: nil where nothing does.
func (r *Row) ReservedFor(digest []byte) error {
	switch {
	case r.State != store.Reserved:
		return fmt.Errorf("%w: it is %s", store.ErrState, r.State)
	case !bytes.Equal(r.WelcomeDigest, digest):
		return fmt.Errorf("%w: it is reserved for another Welcome", store.ErrState)
	}
	return nil
}

// overtaken are the states that a key package may have reached while its file was
// written: it was published, and fast.
var overtaken = []store.State{store.Reserved, store.Consumed, store.Retired, store.Expired}

// Movable says whether a key package in one of the states from may move to the state to, and
// the step that this is. Where it was overtaken, it stays in its state, and was published.
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

// Acknowledge says whether the word of a directory that it has a key package changes anything
// of it: said a second time, it does not. The error is store.ErrErased, or store.ErrState for one
// that was on no way to this directory.
func (r *Row) Acknowledge(directory string) (changes bool, err error) {
	overtaken := slices.Contains(overtaken, r.State)
	switch {
	case r.State == store.Erased:
		return false, store.ErrErased
	case r.Directory != directory:
		return false, fmt.Errorf("%w: it is on no way to directory %q", store.ErrState, directory)
	case r.State == store.Published, overtaken && r.LeasedUntil.IsZero():
		return false, nil
	case r.State != store.Pending && !overtaken:
		return false, fmt.Errorf("%w: it is %s", store.ErrState, r.State)
	}
	return true, nil
}

// As reports whether a key package is still what it was when a new sealing of its private
// keys was made.
func (r *Row) As(was *store.Rewrapped) bool {
	return bytes.Equal(r.Sealed, was.WasSealed) && bytes.Equal(r.Leaf, was.WasLeaf) && bytes.Equal(r.WrappingKeyID, was.WasWrappingKeyID)
}

// Ends reports whether the time of a reservation has come at now.
func (r *Row) Ends(now time.Time) bool {
	return r.State == store.Reserved && !r.ReservedUntil.After(now)
}

// Expires reports whether the lifetime of a key package is over, and nothing else ended it.
func (r *Row) Expires(now time.Time) bool {
	return store.Allowed(r.State, store.Expire, store.Expired) && r.NotAfter.Before(now)
}

// GraceOver reports whether the private keys of a key package are to be erased: it has been
// expired for longer than grace, or was retired until a time that has come.
func (r *Row) GraceOver(now time.Time, grace time.Duration) bool {
	return r.State == store.Expired && r.NotAfter.Add(grace).Before(now) ||
		r.State == store.Retired && !r.RetiredUntil.After(now)
}

// EntryOf is an entry of the trail about a key package.
func EntryOf(k *store.KeyPackage, act audit.Act, at time.Time) audit.Entry {
	return audit.Entry{Time: at, Act: act, Identity: k.Identity, Ref: k.Ref, KeyID: k.WrappingKeyID}
}

// AcknowledgedEntry is that of a key package that a directory has.
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

// ReservedEntries are those of a key package that is reserved, as it was before.
func ReservedEntries(was *Row, digest []byte, at time.Time) (entries []audit.Entry) {
	if was.State != store.Reserved || !bytes.Equal(was.WelcomeDigest, digest) {
		entries = append(entries, WelcomeEntry(&was.KeyPackage, audit.Reserved, digest, at))
	}
	return append(entries, WelcomeEntry(&was.KeyPackage, audit.Opened, digest, at))
}

// ConsumedEntry is that of a key package that a Welcome used up, or was opened with where it
// is of last resort.
func ConsumedEntry(r *Row, digest []byte, at time.Time) audit.Entry {
	e := WelcomeEntry(&r.KeyPackage, audit.Consumed, digest, at)
	if r.LastResort {
		e.Detail += ", last resort"
	}
	return e
}

// ShreddedEntry is that of a key package whose wrapping key is condemned. Of a consumed one,
// what is erased is the leaf's private key.
func ShreddedEntry(r *Row, at time.Time) audit.Entry {
	act := audit.Erased
	if r.State == store.Consumed {
		act = audit.LeafErased
	}
	e := EntryOf(&r.KeyPackage, act, at)
	e.Detail = "its wrapping key is destroyed"
	return e
}

// Dependents says what depends on a wrapping key.
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
