// Package store keeps what hsm-kp has to remember: identities, wrapping keys, key packages with
// their states, and the audit trail of what was done with them. It sees public bytes and ciphertext
// only.
//
// Store is the interface. Packages store/sqlite and store/postgres implement it, store/sqlstore has
// what both have in common, and store/storetest is the one suite of tests for both. The states, and
// the steps between them, are in state.go.
package store

import (
	"context"
	"errors"
	"fmt"
)

// Errors that callers branch on. A backend wraps its own error with one of them if it fits.
var (
	// ErrNotFound reports a name, a ref or a current wrapping key that the store does not have.
	ErrNotFound = errors.New("not found")
	// ErrExists reports a name, an id or a ref that the store already has.
	ErrExists = errors.New("it exists already")
	// ErrState reports a key package, an identity or a wrapping key that is not in a state that
	// allows the act.
	ErrState = errors.New("not in the state for that")
	// ErrReserved reports a key package that is being opened with another Welcome.
	ErrReserved = errors.New("it is reserved for another Welcome")
	// ErrConsumed reports a key package that a Welcome used up.
	ErrConsumed = errors.New("it was consumed by a Welcome, and its private init key is erased")
	// ErrErased reports a key package whose private keys were erased unused: it expired, was
	// retired, or its wrapping key was destroyed.
	ErrErased = errors.New("its private keys are erased")
	// ErrHeld reports a lease that another holder has.
	ErrHeld = errors.New("another process is working on it")
	// ErrInUse reports a key that something live depends on.
	ErrInUse = errors.New("it is in use")
	// ErrWrappingKey reports private keys or a stamp under a wrapping key that is destroyed, or
	// about to be.
	ErrWrappingKey = errors.New("the wrapping key is destroyed")
	// ErrRewrapped reports a leaf under another wrapping key than its key package is under now.
	ErrRewrapped = errors.New("it is under another wrapping key now")
	// ErrBusy reports a store that another process has held for too long.
	ErrBusy = errors.New("the store is held by another process")
	// ErrFull reports a disk without space.
	ErrFull = errors.New("the disk is full")
	// ErrReadOnly reports a store that cannot be written to.
	ErrReadOnly = errors.New("the store is read-only")
	// ErrAway reports a server that does not answer, or has stopped. Nothing was done, unless
	// the error says that this is not known.
	ErrAway = errors.New("the database server cannot be reached")
	// ErrLogin reports a server that refuses the user.
	ErrLogin = errors.New("the database server refuses the login")
	// ErrNoDatabase reports a server that has no database of that name.
	ErrNoDatabase = errors.New("the database server has no such database")
	// ErrDamaged reports a file that is not a store, or no longer one.
	ErrDamaged = errors.New("it is not a store of hsm-kp, or it is damaged")
)

// SchemaError reports a store whose schema is newer than this program.
type SchemaError struct{ Have, Known int }

func (e *SchemaError) Error() string {
	return fmt.Sprintf("it was written by a newer hsm-kp: its schema is %d, this one knows %d", e.Have, e.Known)
}

// Store remembers. It is safe for concurrent use, also by several processes. The caller owns slices
// that it returns; it does not keep slices that it is given.
//
// An act that changes a key or a key package adds an entry to the audit trail in the same
// transaction, in the name of the context's actor (see WithActor): there is no act without its
// entry, and no entry without its act.
type Store interface {
	Identities
	WrappingKeys
	KeyPackages
	Handovers
	Backlogs
	Directories
	Surveys
	Trail

	// Close releases the store. No method may be called after it.
	Close() error
}

type intentKey struct{}

// WithIntent returns a context in which a key is recorded only if the intent to make it is still
// there: if the intent was settled meanwhile, the key was destroyed.
func WithIntent(ctx context.Context, keyID []byte) context.Context {
	return context.WithValue(ctx, intentKey{}, string(keyID))
}

// Intended reports whether WithIntent was given this key.
func Intended(ctx context.Context, keyID []byte) bool {
	id, ok := ctx.Value(intentKey{}).(string)
	return ok && id == string(keyID)
}

type actorKey struct{}

// WithActor returns a context in which acts are recorded in the name of actor, such as
// "user:alice".
func WithActor(ctx context.Context, actor string) context.Context {
	return context.WithValue(ctx, actorKey{}, actor)
}

// Actor returns what WithActor set, or "unknown".
func Actor(ctx context.Context) string {
	if actor, ok := ctx.Value(actorKey{}).(string); ok {
		return actor
	}
	return "unknown"
}
