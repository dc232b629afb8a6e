package store

import (
	"context"
	"time"
)

// Dispatch asks for key packages to send to a directory.
type Dispatch struct {
	Identity  string
	Directory string // its name; not empty
	// LastResort chooses those of last resort instead of all others.
	LastResort bool
	// Resume chooses only those that were on their way before.
	Resume bool
	// Ending leaves out those that end by then. The zero time means Now.
	Ending time.Time
	// N is how many to send at most.
	N int
	// Until is the end of the lease, Now the time. Several machines compare these times, so
	// their clocks must not differ by more than the time that a lease has to spare.
	Until, Now time.Time
}

// Dispatched is a key package on its way to a directory.
type Dispatched struct {
	KeyPackage
	// Again: it was on its way before, and its sender did not report the outcome. The directory
	// may have it.
	Again bool
}

// Level counts the key packages of the current version of an identity that are valid and not
// of last resort.
type Level struct {
	Available uint64
	Underway  uint64 // to the directory
	Published uint64 // in the directory, and no Welcome came
}

// Account is how a directory knows a client.
type Account struct {
	Identity      string
	Directory     string
	Client        []byte // how the directory names it
	WrappingKeyID []byte // that Sealed is under
	Sealed        []byte // the access token that the directory gave, sealed
	CreatedAt     time.Time
}

// Directories remembers which key packages go to which directory.
//
// A key package on its way to a directory is Pending, has the name of the directory, and is leased
// to one sender: nobody else sends it, there or elsewhere. When the lease is over or returned, it
// goes to the same directory again, with the same bytes, and to no other.
type Directories interface {
	// Dispatch puts key packages on their way to a directory: first those that were on their way
	// there before and whose lease is over, then available ones of the current version, the
	// oldest first. All are valid at the time. If their private keys are for a device, it has
	// confirmed them. No other caller gets them until the lease is over.
	Dispatch(ctx context.Context, d Dispatch) ([]Dispatched, error)
	// Acknowledge records that a directory has key packages, all or none: those that were on
	// their way to it are Published. One that was reserved, consumed, retired or expired
	// meanwhile counts as published, and keeps its state. One that is published there already
	// stays so, without another entry in the trail. The error is ErrNotFound, ErrErased, or
	// ErrState for one that was not on its way to this directory.
	Acknowledge(ctx context.Context, refs [][]byte, directory string, at time.Time) error
	// Return ends the leases on key packages that were not sent: those that are still on their
	// way and leased until the given time. They go first the next time.
	Return(ctx context.Context, refs [][]byte, until time.Time) error
	// Level counts the key packages of an identity that are valid after a time. It counts none
	// of a retired identity. The error is ErrNotFound.
	Level(ctx context.Context, identity, directory string, after time.Time) (Level, error)

	// Lease takes the lease of a name for a holder, or extends it. The error is ErrHeld if
	// another holder has it until later than now.
	Lease(ctx context.Context, name, holder string, until, now time.Time) error
	// Unlease returns a lease. It does nothing if the holder does not have it.
	Unlease(ctx context.Context, name, holder string) error

	// Account returns how a directory knows a client, or ErrNotFound.
	Account(ctx context.Context, directory string, client []byte) (Account, error)
	// Accounts returns those that are sealed under a wrapping key.
	Accounts(ctx context.Context, wrappingKeyID []byte) ([]Account, error)
	// SetAccount adds an account, or replaces it. The error is ErrNotFound for an unknown
	// identity, or ErrWrappingKey.
	SetAccount(ctx context.Context, a Account) error
}
