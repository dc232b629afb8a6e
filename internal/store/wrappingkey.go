package store

import (
	"context"
	"time"
)

// Purpose is what a wrapping key does. No key does both.
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
	// SupersededAt is when another key took its place as the current one. Zero: none has.
	SupersededAt time.Time
	DestroyedAt  time.Time // zero: not destroyed
	Condemned    bool      // about to be destroyed, or destroyed
}

// Rewrapped is a key package with its private keys under another wrapping key.
type Rewrapped struct {
	Ref              []byte
	WasSealed        []byte // what was read: a record that has changed since is left as it is
	WasLeaf          []byte
	Sealed, Leaf     []byte
	WrappingKeyID    []byte // the new one
	WasWrappingKeyID []byte
}

// Dependents are what depends on a wrapping key.
type Dependents struct {
	KeyPackages uint64 // with private keys under it
	Identities  uint64 // with a stamp of it, old and next versions included
}

// Intent says that an object of the token is about to be made or destroyed. It is recorded before
// the token is called, and settled in the transaction that records the outcome. A crash in between
// leaves an intent. If the object that it names is in the token, it belongs to nobody.
type Intent struct {
	KeyID       []byte // CKA_ID
	Object      Object
	TokenSerial string
	Destroy     bool   // otherwise it is to be made
	Stamp       []byte // authenticates all of it but CreatedAt and what follows
	CreatedAt   time.Time
	// Succeeds says that the new key is to take the place of the key Instead, which is the
	// current one of its kind, or empty if there is none yet. Of several keys that would take the
	// place of one, one is under way at a time, and one succeeds.
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
	// AddWrappingKey adds a wrapping key, and settles the intent to make it. If Current is set,
	// it becomes the current one of its purpose. Uses is ignored. The error is ErrExists if the id
	// is taken, or ErrState if the intent says that it succeeds another key, and that is no longer
	// the current one.
	AddWrappingKey(ctx context.Context, key WrappingKey) error
	// WrappingKeys returns all, the oldest first, destroyed ones included.
	WrappingKeys(ctx context.Context) ([]WrappingKey, error)
	// CurrentWrappingKey returns the current one of a purpose, or ErrNotFound.
	CurrentWrappingKey(ctx context.Context, p Purpose) (WrappingKey, error)
	// RotateWrappingKey makes a wrapping key the current one of its purpose. The error is
	// ErrNotFound, or ErrWrappingKey if it is destroyed.
	RotateWrappingKey(ctx context.Context, id []byte, at time.Time) error
	// Dependents counts what depends on a wrapping key.
	Dependents(ctx context.Context, id []byte) (Dependents, error)
	// Rewrap puts key packages under another wrapping key, in one transaction, and counts the
	// uses. It leaves those as they are whose records have changed since they were read, and
	// returns how many it moved. The error is ErrNotFound or ErrWrappingKey.
	Rewrap(ctx context.Context, batch []Rewrapped, at time.Time) (uint64, error)
	// CondemnWrappingKey records as an intent that a wrapping key is about to be destroyed in the
	// token. From then on nothing is added under it. The error is ErrNotFound, ErrState if it is
	// the current one, or ErrInUse if something depends on it. With shred, the private keys under
	// it are erased, and it returns the backlog of their key packages; a stamp is still ErrInUse.
	// If there are none, or the backlog is finished, it returns the zero Backlog. To condemn it
	// again changes nothing and returns the backlog as it is.
	//
	// The intent's KeyID is the wrapping key.
	CondemnWrappingKey(ctx context.Context, i Intent, shred bool) (Backlog, error)

	// Intend records an intent. The error is ErrExists if the key has one, or if another key is
	// about to take the place of the same key, and ErrState if that is no longer current.
	Intend(ctx context.Context, i Intent) error
	// Intents returns the unsettled intents, the oldest first.
	Intents(ctx context.Context) ([]Intent, error)
	// InUse reports whether a key in the token is to be kept: it is recorded as a signature key of
	// a version and not destroyed, as a wrapping key and not condemned, or as an audit key.
	InUse(ctx context.Context, keyID []byte) (bool, error)
	// Settle removes an intent once the object that it names is not in the token: it was destroyed,
	// or never made. If it was to be destroyed, it is recorded as destroyed. The error is
	// ErrNotFound.
	Settle(ctx context.Context, keyID []byte, at time.Time) error
}
