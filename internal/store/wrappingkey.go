package store

import (
	"context"
	"time"
)

// Purpose is what a wrapping key does. None does both.
type Purpose string

// The purposes of wrapping keys.
const (
	Seal Purpose = "seal" // encrypts private keys, and stamps records
	Wrap Purpose = "wrap" // wraps private keys that never leave the token unwrapped
)

// Purposes are both.
var Purposes = []Purpose{Seal, Wrap}

// WrappingKey is a key in the token that seals or wraps private keys.
type WrappingKey struct {
	ID          []byte // CKA_ID
	Purpose     Purpose
	Label       string // CKA_LABEL
	TokenSerial string
	Stamp       []byte // by which the key is recognized
	Current     bool   // new key packages are sealed or wrapped with it
	Uses        uint64 // how often it has
	CreatedAt   time.Time
	// SupersededAt is when another took its place as the current one; zero: none has.
	SupersededAt time.Time
	DestroyedAt  time.Time // zero: not destroyed
	Condemned    bool      // about to be destroyed, or destroyed
}

// Rewrapped is a key package whose private keys are under another wrapping key now.
type Rewrapped struct {
	Ref              []byte
	WasSealed        []byte // what was read: a record that has changed since is left alone
	WasLeaf          []byte
	Sealed, Leaf     []byte
	WrappingKeyID    []byte // the new one
	WasWrappingKeyID []byte
}

// Dependents are what a wrapping key cannot be destroyed without.
type Dependents struct {
	KeyPackages uint64 // with private keys under it
	Identities  uint64 // with a stamp of it, old and next versions too
}

// Intent says that an object of the token is about to be made, or destroyed. It is
// recorded before the token is called, and settled in the transaction that records the
// outcome: what a crash leaves in between is an intent, and the object it names, if it
// is there, is nobody's.
type Intent struct {
	KeyID       []byte // CKA_ID
	Object      Object
	TokenSerial string
	Destroy     bool   // else it was to be made
	Stamp       []byte // authenticates all of it but CreatedAt and what follows
	CreatedAt   time.Time
	// Succeeds says that what is made is to take the place of the key Instead, which is the
	// current one of its kind, or empty where there is none yet. Of several that would take
	// the place of one key, one is under way at a time, and one does.
	Succeeds bool
	Instead  []byte
}

// Object is a kind of object in the token.
type Object string

// The kinds of objects.
const (
	ObjectSignatureKey Object = "signature key"
	ObjectSealingKey   Object = "sealing key"
	ObjectSealingPair  Object = "sealing key pair" // an RSA key, and the key pair that stamps for it
	ObjectWrappingKey  Object = "wrapping key"
	ObjectAuditKey     Object = "audit key"
)

// WrappingKeys remembers the keys that private keys are under.
type WrappingKeys interface {
	// AddWrappingKey adds a wrapping key, and settles the intent to make it. Where Current
	// is set it becomes the current one of its purpose. Uses are ignored. The error is
	// ErrExists where the id is taken, or ErrState where the intent says that it succeeds
	// another, and that is not the current one any more.
	AddWrappingKey(ctx context.Context, key WrappingKey) error
	// WrappingKeys returns all, the oldest first, those too that are destroyed.
	WrappingKeys(ctx context.Context) ([]WrappingKey, error)
	// CurrentWrappingKey returns the current one of a purpose, or ErrNotFound.
	CurrentWrappingKey(ctx context.Context, p Purpose) (WrappingKey, error)
	// RotateWrappingKey makes a wrapping key the current one of its purpose. The error is
	// ErrNotFound, or ErrWrappingKey where it is destroyed.
	RotateWrappingKey(ctx context.Context, id []byte, at time.Time) error
	// Dependents counts what depends on a wrapping key.
	Dependents(ctx context.Context, id []byte) (Dependents, error)
	// Rewrap puts key packages under another wrapping key, in one transaction, and counts
	// the uses. Those whose records have changed since they were read are left as they
	// are: it returns how many were not. The error is ErrNotFound or ErrWrappingKey.
	Rewrap(ctx context.Context, batch []Rewrapped, at time.Time) (uint64, error)
	// CondemnWrappingKey records that a wrapping key is about to be destroyed in the token,
	// as an intent: from then on nothing is added under it. The error is ErrNotFound,
	// ErrState where it is the current one, or ErrInUse where something depends on it.
	// With shred the private keys under it are erased instead, and it returns the backlog of
	// their key packages; stamps still keep it. Where there are none, or the backlog is
	// finished, that is the zero Backlog. Once it is condemned, condemning it again changes
	// nothing and returns the backlog as it is.
	//
	// The intent's KeyID is the wrapping key.
	CondemnWrappingKey(ctx context.Context, i Intent, shred bool) (Backlog, error)

	// Intend records an intent. The error is ErrExists where the key has one, or where
	// another key is about to take the same one's place; ErrState where that one is not
	// current any more.
	Intend(ctx context.Context, i Intent) error
	// Intents returns those that are not settled, the oldest first.
	Intents(ctx context.Context) ([]Intent, error)
	// InUse reports whether a key in the token is recorded as one that is kept: a signature
	// key of a version that is not destroyed, a wrapping key that is not condemned, or an
	// audit key.
	InUse(ctx context.Context, keyID []byte) (bool, error)
	// Settle removes an intent, once the object that it names is not in the token: it was
	// destroyed, or never made. What was to be destroyed is recorded as such. The error is
	// ErrNotFound.
	Settle(ctx context.Context, keyID []byte, at time.Time) error
}
