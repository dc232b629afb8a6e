package store

import (
	"context"
	"time"
)

// Backlog is what one small transaction has decided for many key packages: they are retired, or
// their private keys are erased. From that transaction on, every answer of the store says so, and
// no step is allowed that their new state does not allow. What remains is to write it down for each
// of them, with its entry in the trail. WorkOff does that in many small transactions. Every other
// act on a key package of a backlog first does it for that one.
type Backlog struct {
	ID            uint64
	Step          Step      // Retire or Erase
	Identity      string    // whose key packages are retired
	Version       uint64    // of the identity that took the place of those before it; 0: none
	WrappingKeyID []byte    // private keys under it are erased
	Until         time.Time // when the grace of the retired ones ends
	BegunAt       time.Time
	Moved         uint64    // how many key packages are written down, by any act
	FinishedAt    time.Time // zero: some may be left
}

// Finished reports whether all key packages of a backlog are written down.
func (b *Backlog) Finished() bool { return !b.FinishedAt.IsZero() }

// Backlogs remembers what has still to be written down for many key packages.
type Backlogs interface {
	// Backlogs returns the unfinished backlogs, the oldest first.
	Backlogs(ctx context.Context) ([]Backlog, error)
	// Left counts the key packages of a backlog that are not written down.
	Left(ctx context.Context, id uint64) (uint64, error)
	// WorkOff writes down at most n key packages of a backlog, in one transaction, and returns
	// the backlog as it is then. n is 1 or more. Several processes may call it at once. It leaves
	// others a moment for writing before it returns. The error is ErrNotFound.
	WorkOff(ctx context.Context, id uint64, n int, at time.Time) (Backlog, error)
}
