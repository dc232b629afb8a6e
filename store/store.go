// Package store keeps what hsm-kp has to remember: identities, wrapping keys
// and key packages with their states. It sees public bytes and ciphertext only.
//
// Store is the interface; store/sqlite and, later, others implement it, and
// store/storetest is the one suite of tests for all of them.
package store

import (
	"context"
	"errors"
	"iter"
	"time"
)

// Errors that callers branch on. A backend wraps its own error with one of
// them where it fits.
var (
	// ErrNotFound reports a name, a ref or a current wrapping key that the store
	// does not have.
	ErrNotFound = errors.New("not found")
	// ErrExists reports a name, an id or a ref that the store already has.
	ErrExists = errors.New("it exists already")
	// ErrState reports a key package that is not in the state it would have to
	// be in.
	ErrState = errors.New("not in the state for that")
	// ErrReserved reports a key package that is being opened with another Welcome.
	ErrReserved = errors.New("it is reserved for another Welcome")
	// ErrConsumed reports a key package that was opened once and for all.
	ErrConsumed = errors.New("it was consumed by a Welcome, and its private keys are erased")
	// ErrExpired reports a key package that was swept away.
	ErrExpired = errors.New("it expired, and its private keys are erased")
	// ErrBusy reports a store that another process has held for too long.
	ErrBusy = errors.New("the store is held by another process")
	// ErrFull reports a disk without room.
	ErrFull = errors.New("the disk is full")
	// ErrReadOnly reports a store that cannot be written to.
	ErrReadOnly = errors.New("the store is read-only")
	// ErrDamaged reports a file that is no store, or no longer one.
	ErrDamaged = errors.New("it is not a store of hsm-kp, or it is damaged")
)

// State is where a key package is in its life.
type State string

// The states of a key package.
const (
	// Pending: made to be written to a folder, and perhaps not written yet. It is
	// handed out to nobody else: it may be in the folder.
	Pending State = "pending"
	// Available: made, and not handed out.
	Available State = "available"
	// Published: handed out. It must not be handed out again.
	Published State = "published"
	// Reserved: being opened with a Welcome, for a while. Nobody else opens it then.
	Reserved State = "reserved"
	// Consumed: opened with a Welcome, once and for all. Its private keys are erased.
	Consumed State = "consumed"
	// Expired: its lifetime was over, and no Welcome came. Its private keys are erased.
	Expired State = "expired"
)

// States are all states, in the order of a life.
var States = []State{Pending, Available, Published, Reserved, Consumed, Expired}

// Identity is a signer of key packages.
type Identity struct {
	Name         string
	Suite        uint16
	Credential   []byte // encoded Credential, RFC 9420, Section 5.3
	SignatureKey []byte // public key, RFC 9420, Section 5.1.1
	KeyID        []byte // CKA_ID
	KeyLabel     string // CKA_LABEL
	TokenSerial  string
	WeakKey      bool   // the operator allowed a key that could leave its token
	Stamp        []byte // authenticates all of it but KeyLabel and CreatedAt
	CreatedAt    time.Time
}

// WrappingKey is a key in the token that seals private keys.
type WrappingKey struct {
	ID          []byte // CKA_ID
	Label       string // CKA_LABEL
	TokenSerial string
	Stamp       []byte // by which the key is recognized
	Current     bool   // new key packages are sealed with it
	Uses        uint64 // how often it has sealed
	CreatedAt   time.Time
}

// KeyPackage is a key package with its sealed private keys. Times are whole
// seconds in UTC.
type KeyPackage struct {
	Ref           []byte
	Identity      string
	Suite         uint16
	State         State
	LastResort    bool
	Custody       string
	WrappingKeyID []byte
	Sealed        []byte
	Public        []byte // bare KeyPackage, RFC 9420, Section 10
	CreatedAt     time.Time
	NotBefore     time.Time
	NotAfter      time.Time
	PublishedAt   time.Time // zero: not published

	// WelcomeDigest is that of the Welcome which reserved or consumed it last.
	WelcomeDigest []byte
	ReservedUntil time.Time // of a reserved one
	ConsumedAt    time.Time // zero: not consumed
	// Opened is how many Welcomes a key package of last resort was opened with.
	Opened uint64
}

// Swept is what a sweep did.
type Swept struct {
	Released uint64 // reservations that had ended
	Expired  uint64 // key packages that were erased
}

// Filter chooses key packages. Zero fields fit all.
type Filter struct {
	Identity string
	State    State
}

// Store remembers. It is safe for concurrent use, also by several processes.
// Slices that it returns are the caller's; slices that it is given are not kept.
type Store interface {
	// AddIdentity adds an identity. The error is ErrExists where the name is
	// taken.
	AddIdentity(ctx context.Context, id Identity) error
	// Identity returns the identity called name, or ErrNotFound.
	Identity(ctx context.Context, name string) (Identity, error)
	// ChangeIdentity replaces the credential and the stamp of the identity called
	// id.Name by those of id, provided that its stamp is still was: of two callers
	// that change the same record, one wins. The error is ErrNotFound, or ErrState
	// where the record was changed meanwhile.
	ChangeIdentity(ctx context.Context, id Identity, was []byte) error
	// Identities returns all, by name.
	Identities(ctx context.Context) ([]Identity, error)

	// AddWrappingKey adds a wrapping key and makes it the current one. Uses and
	// Current are ignored. The error is ErrExists where the id is taken.
	AddWrappingKey(ctx context.Context, key WrappingKey) error
	// WrappingKeys returns all, the oldest first.
	WrappingKeys(ctx context.Context) ([]WrappingKey, error)
	// CurrentWrappingKey returns the one that new key packages are sealed with,
	// or ErrNotFound.
	CurrentWrappingKey(ctx context.Context) (WrappingKey, error)

	// AddKeyPackages adds all or none, and counts them as uses of their wrapping
	// keys, in one transaction that is durable when it returns. The error is
	// ErrExists for a ref that is there, ErrNotFound for an unknown identity or
	// wrapping key.
	AddKeyPackages(ctx context.Context, batch []KeyPackage) error
	// KeyPackage returns the key package with this ref, or ErrNotFound.
	KeyPackage(ctx context.Context, ref []byte) (KeyPackage, error)
	// KeyPackages yields those that fit, the oldest first, in constant memory
	// and without holding writers back. Those that are added while it runs may
	// or may not be among them.
	KeyPackages(ctx context.Context, f Filter) iter.Seq2[KeyPackage, error]
	// FindRefs returns at most limit refs in [lo, hi], compared byte by byte.
	FindRefs(ctx context.Context, lo, hi []byte, limit int) ([][]byte, error)
	// Move moves key packages that are in one of the states from to the state to,
	// all or none. One that becomes published gets the time at, unless it has been
	// published before. The error is ErrNotFound for an unknown ref, ErrState for
	// a key package in another state: of two callers that move the same one out of
	// a state, one wins. What is moved from Pending to Published and was reserved
	// meanwhile, or consumed, counts as moved: it was published, and fast.
	Move(ctx context.Context, refs [][]byte, from []State, to State, at time.Time) error
	// Reserve reserves a key package until a time for the Welcome with this digest,
	// and returns it as it is then. One that is reserved already is reserved anew for
	// the same Welcome, or for any where its time has come at now. The error is
	// ErrNotFound, ErrReserved, ErrConsumed or ErrExpired.
	Reserve(ctx context.Context, ref, digest []byte, until, now time.Time) (KeyPackage, error)
	// Release ends a reservation: the key package is in the state again that it was
	// reserved from. The error is ErrNotFound, or ErrState where it is not reserved for
	// the Welcome with this digest.
	Release(ctx context.Context, ref, digest []byte) error
	// Consume ends a reservation for good: the key package becomes Consumed and its
	// sealed keys are erased, in one transaction. One of last resort is counted as
	// opened instead, and is in the state again that it was reserved from. The error is
	// ErrNotFound, or ErrState where it is not reserved for the Welcome with this digest.
	Consume(ctx context.Context, ref, digest []byte, at time.Time) error
	// Sweep ends reservations whose time has come at now, and makes Expired what is
	// neither reserved nor consumed and whose lifetime ended before the given time: its
	// sealed keys are erased. It does so in many short transactions, and may be called by
	// several processes at once. It returns what it did, also when it fails.
	Sweep(ctx context.Context, now, expiredBefore time.Time) (Swept, error)
	// Count returns how many key packages of an identity, or of all where name
	// is empty, are in each state.
	Count(ctx context.Context, name string) (map[State]uint64, error)

	// Close releases the store. Nothing may be called after it.
	Close() error
}
