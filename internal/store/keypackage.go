package store

import (
	"context"
	"iter"
	"time"
)

// KeyPackage is a key package with its sealed private keys. Times are whole seconds in UTC.
type KeyPackage struct {
	Ref           []byte
	Identity      string
	Version       uint64 // of the identity that signed it
	Suite         uint16
	State         State
	LastResort    bool
	Custody       string
	WrappingKeyID []byte
	Sealed        []byte // both private keys; empty once erased
	Leaf          []byte // the private key of the leaf alone, once a Welcome was opened
	Public        []byte // bare KeyPackage, RFC 9420, Section 10
	CreatedAt     time.Time
	NotBefore     time.Time
	NotAfter      time.Time
	PublishedAt   time.Time // zero: not published
	ClaimedAt     time.Time // zero: not claimed

	// Directory is where it is published or on its way to. It is empty for a folder, and for a
	// key package that is not on its way. LeasedUntil is the end of its sender's lease.
	Directory   string
	LeasedUntil time.Time

	// WelcomeDigest is that of the Welcome that reserved or consumed it last.
	WelcomeDigest []byte
	ReservedUntil time.Time // of a reserved one
	ConsumedAt    time.Time // zero: not consumed
	RetiredUntil  time.Time // of a retired one: the end of its grace
	ErasedAt      time.Time // zero: not erased
	// Opened is how many Welcomes a key package of last resort was opened with.
	Opened uint64

	// ReleaseDigest is that of the public key that the private keys may be released to. It is
	// empty if they are not for a device.
	ReleaseDigest []byte
	HandedOverAt  time.Time // zero: not yet
	ConfirmedAt   time.Time // when the device had them; zero: not yet
}

// Unconfirmed reports whether the store has private keys that are for a device.
func (k *KeyPackage) Unconfirmed() bool { return len(k.ReleaseDigest) > 0 && len(k.Sealed) > 0 }

// Reservation asks for a key package to be reserved for a Welcome.
type Reservation struct {
	Ref    []byte
	Digest []byte // of the Welcome
	// Leaf is the sealed private key of the leaf, to be kept when the key package is consumed.
	// It is empty if it is not to be kept. LeafUnder is its wrapping key.
	Leaf, LeafUnder []byte
	// Until is the end of the reservation, Now the time.
	Until, Now time.Time
}

// Swept is what a sweep did.
type Swept struct {
	Released uint64 // reservations that had ended
	Expired  uint64 // key packages whose lifetime was over
	Erased   uint64 // key packages whose grace was over
	Finished uint64 // key packages of backlogs that were written down
}

// Stock counts key packages of one kind.
type Stock struct {
	Version    uint64 // of the identity
	State      State
	LastResort bool
	Custody    string
	Count      uint64
}

// Filter chooses key packages. A zero field chooses all.
type Filter struct {
	Identity string
	State    State
	// LastResort chooses those of last resort of an identity.
	LastResort bool
	// After leaves out the key package with this ref and those before it.
	After []byte
	// WrappingKeyID chooses those that have private keys under it. It goes with no other field
	// but After.
	WrappingKeyID []byte
	// Unconfirmed chooses those that have private keys for a device, by an index.
	Unconfirmed bool
}

// KeyPackages remembers key packages.
type KeyPackages interface {
	// AddKeyPackages adds all or none, and counts them as uses of their wrapping keys, in one
	// transaction that is durable when it returns. The error is ErrExists for a ref that the
	// store has, ErrNotFound for an unknown identity or wrapping key, ErrWrappingKey for a
	// wrapping key that is destroyed, or ErrState for a version of an identity that is old or
	// retired.
	AddKeyPackages(ctx context.Context, batch []KeyPackage) error
	// KeyPackage returns the key package with this ref, or ErrNotFound.
	KeyPackage(ctx context.Context, ref []byte) (KeyPackage, error)
	// KeyPackages yields those that f chooses, the oldest first, in constant memory and without
	// holding writers back. Those that are added while it runs may or may not be among them. What
	// comes before f.After costs nothing. The error is ErrNotFound if there is no key package
	// f.After.
	KeyPackages(ctx context.Context, f Filter) iter.Seq2[KeyPackage, error]
	// FindRefs returns at most limit refs in [lo, hi], compared byte by byte.
	FindRefs(ctx context.Context, lo, hi []byte, limit int) ([][]byte, error)
	// Move moves key packages that are in one of the states from to the state to, which is
	// Pending or Published, all or none. One that becomes published gets the time at, unless it
	// was published before. One that becomes pending is no longer on its way to a directory. The
	// error is ErrNotFound for an unknown ref, or ErrState for a key package in another state: of
	// two callers that move the same one out of a state, one succeeds. One that is moved from
	// Pending to Published, and was reserved, consumed, retired or expired meanwhile, counts as
	// moved: it was published, and somebody was fast. If its private keys were erased, the error
	// is ErrErased.
	Move(ctx context.Context, refs [][]byte, from []State, to State, at time.Time) error
	// Claim hands out at most n key packages of the current version of an identity that are
	// available, valid at the given time and not of last resort, the oldest first. No other
	// caller gets them. It leaves out those whose private keys are for a device that has not
	// confirmed them.
	Claim(ctx context.Context, identity string, n int, at time.Time) ([]KeyPackage, error)
	// Reserve reserves a key package for a Welcome, and returns it as it is then. One that is
	// reserved already is reserved anew for the same Welcome, or for any Welcome once its time
	// is over. The error is ErrNotFound, ErrReserved, ErrConsumed, ErrErased, ErrForDevice, or
	// ErrRewrapped if the leaf is not under the key package's wrapping key.
	Reserve(ctx context.Context, r Reservation) (KeyPackage, error)
	// Release ends a reservation: the key package returns to the state that it was reserved
	// from. The error is ErrNotFound, or ErrState if it is not reserved for the Welcome with this
	// digest.
	Release(ctx context.Context, ref, digest []byte, at time.Time) error
	// Consume ends a reservation for good: in one transaction the key package becomes Consumed,
	// and its sealed keys are erased, except for the leaf's if the reservation brought it. One of
	// last resort is counted as opened instead, and returns to the state that it was reserved
	// from. The error is ErrNotFound, or ErrState if it is not reserved for the Welcome with this
	// digest.
	Consume(ctx context.Context, ref, digest []byte, at time.Time) error
	// EraseLeaf erases the private key of the leaf of a consumed key package. It does nothing if
	// that is erased already. The error is ErrNotFound, or ErrState if it is not consumed.
	EraseLeaf(ctx context.Context, ref []byte, at time.Time) error
	// Retire retires key packages until a time, all or none. The error is ErrNotFound, or
	// ErrState for one that can no longer be retired.
	Retire(ctx context.Context, refs [][]byte, until, at time.Time) error
	// Sweep works off all backlogs, ends reservations whose time is over at now, and expires key
	// packages that are past their lifetimes. Those that have been so for longer than grace, and
	// retired ones whose time is over, become Erased: their sealed keys are erased. It runs many
	// short transactions, and several processes may call it at once. It returns what it did, also
	// when it fails.
	Sweep(ctx context.Context, now time.Time, grace time.Duration) (Swept, error)
	// Stock returns how many key packages of an identity there are of each kind.
	Stock(ctx context.Context, name string) ([]Stock, error)
	// Count returns how many key packages of an identity are in each state, or of all
	// identities if name is empty.
	Count(ctx context.Context, name string) (map[State]uint64, error)
}
