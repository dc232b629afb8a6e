package store

import (
	"context"
	"time"
)

// Dispatch asks for key packages that are to be sent to a directory.
type Dispatch struct {
	Identity  string
	Directory string // its name; not empty
	// LastResort chooses those of last resort, in place of all others.
	LastResort bool
	// Resume takes those alone that were on their way before.
	Resume bool
	// Ending leaves those out that end by then; zero is Now.
	Ending time.Time
	// N is how many, at most.
	N int
	// Until is the end of the lease, Now the time. Several machines compare these times:
	// their clocks must not differ by more than what a lease has to spare.
	Until, Now time.Time
}

// Dispatched is a key package on its way to a directory.
type Dispatched struct {
	KeyPackage
	// Again: it was on its way before, and whoever sent it did not say what became of it.
	// It may be there.
	Again bool
}

// Level counts the key packages of the current version of an identity that are valid and not
// of last resort.
type Level struct {
	Available uint64
	Underway  uint64 // to the directory
	Published uint64 // in the directory, and no Welcome came
}

// Account is what a directory knows a client by.
type Account struct {
	Identity      string
	Directory     string
	Client        []byte // how the directory names it
	WrappingKeyID []byte // that Sealed is under
	Sealed        []byte // the token that the directory gave, sealed
	CreatedAt     time.Time
}

// Directories remembers what goes to directories.
//
// A key package on its way to one is Pending, has the name of the directory, and is leased to
// one sender: nobody else sends it, there or elsewhere. When the lease is over, or given back,
// it goes to the same directory again, with the same bytes, and to no other.
type Directories interface {
	// Dispatch puts key packages on their way to a directory: first those that were on
	// it before and whose lease is over, then available ones of the current version, the
	// oldest first, all of them valid at the time, and, where their private keys are for a
	// device, confirmed by it. No other caller gets them until the lease is over.
	Dispatch(ctx context.Context, d Dispatch) ([]Dispatched, error)
	// Acknowledge records that a directory has key packages, all or none: those that were
	// on their way to it are Published. One that was reserved, consumed, retired or expired
	// meanwhile counts as published, and stays what it is. What is published there already
	// stays so, without another entry in the trail. The error is ErrNotFound, ErrErased,
	// or ErrState for one that was on no way to this directory.
	Acknowledge(ctx context.Context, refs [][]byte, directory string, at time.Time) error
	// Return ends the leases on key packages that were not sent: those that are still
	// on their way and leased until the given time. They go first the next time.
	Return(ctx context.Context, refs [][]byte, until time.Time) error
	// Level counts what an identity has that is valid after a time. Of one that is retired
	// nothing counts. The error is ErrNotFound.
	Level(ctx context.Context, identity, directory string, after time.Time) (Level, error)

	// Lease takes the lease of a name for a holder, or prolongs it. The error is ErrHeld
	// where another holder has it until later than now.
	Lease(ctx context.Context, name, holder string, until, now time.Time) error
	// Unlease gives a lease back. One that the holder has not is nothing to give back.
	Unlease(ctx context.Context, name, holder string) error

	// Account returns what a directory knows a client by, or ErrNotFound.
	Account(ctx context.Context, directory string, client []byte) (Account, error)
	// Accounts returns those that are sealed under a wrapping key.
	Accounts(ctx context.Context, wrappingKeyID []byte) ([]Account, error)
	// SetAccount remembers an account in the place of the one before. The error is
	// ErrNotFound for an unknown identity, or ErrWrappingKey.
	SetAccount(ctx context.Context, a Account) error
}
