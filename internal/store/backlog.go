package store

import (
	"context"
	"time"
)

// Backlog is what one small transaction has decided of many key packages: that they are
// retired, or that their private keys are erased. From that transaction on they are so to
// whoever asks the store, and no step is taken with one that the state it has come to does
// not allow. What is left to do is to write it down for each of them, with its entry in the
// trail, which WorkOff does in many small transactions; so does every other act on a key
// package of a backlog, for that one and first of all.
type Backlog struct {
	ID            uint64
	Step          Step      // Retire or Erase
	Identity      string    // whose key packages are retired
	Version       uint64    // of the identity that took the place of those before it; 0: none did
	WrappingKeyID []byte    // what was under it is erased
	Until         time.Time // when the grace of the retired ones ends
	BegunAt       time.Time
	Moved         uint64    // how many key packages are written down, whoever did it
	FinishedAt    time.Time // zero: there may be more of them
}

// Finished reports whether all key packages of a backlog are written down.
func (b *Backlog) Finished() bool { return !b.FinishedAt.IsZero() }

// Backlogs remembers what is to be written down of many key packages.
type Backlogs interface {
	// Backlogs returns those that are not finished, the oldest first.
	Backlogs(ctx context.Context) ([]Backlog, error)
	// Left counts the key packages that a backlog has still to write down.
	Left(ctx context.Context, id uint64) (uint64, error)
	// WorkOff writes down at most n key packages of a backlog, which is 1 or more, in one
	// transaction, and returns the backlog as it is then. It may be called by several
	// processes at once, and leaves others a moment to write in before it returns. The error
	// is ErrNotFound.
	WorkOff(ctx context.Context, id uint64, n int, at time.Time) (Backlog, error)
}
