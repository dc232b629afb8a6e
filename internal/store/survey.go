package store

import (
	"context"
	"time"
)

// Pool counts the key packages of one kind that an identity has and that still have their private
// keys.
type Pool struct {
	Identity   string
	Suite      uint16
	State      State
	LastResort bool
	Count      uint64
	FirstEnds  time.Time // the first end of a lifetime
	// Ending is how many lifetimes end before each of the given times.
	Ending []uint64
}

// Ending counts the lifetimes that end in a span of time.
type Ending struct {
	State State // Available or Published
	Span  int   // its number
	Count uint64
}

// Surveys look at all key packages at once, for those who operate them. A survey costs a walk over
// the key packages that have their private keys, whatever the number of identities.
type Surveys interface {
	// Pools returns the pools in the order of identity, suite, state, and whether they are of
	// last resort. It leaves out key packages of a version that does not sign yet, and empty
	// pools.
	Pools(ctx context.Context, before ...time.Time) ([]Pool, error)
	// Endings returns how many lifetimes of available or published key packages end in each of n
	// spans of time that begin at from. The last span has no end. Empty spans are left out. It
	// does not count lifetimes that ended before, and counts those of a version that does not
	// sign yet.
	Endings(ctx context.Context, from time.Time, span time.Duration, n int) ([]Ending, error)
}
