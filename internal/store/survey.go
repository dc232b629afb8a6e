package store

import (
	"context"
	"time"
)

// Pool counts the key packages of one kind that an identity has, and that still have their
// private keys.
type Pool struct {
	Identity   string
	Suite      uint16
	State      State
	LastResort bool
	Count      uint64
	FirstEnds  time.Time // the first end of a lifetime
	// Ending is how many lifetimes end before each of the times that were asked for.
	Ending []uint64
}

// Ending counts the lifetimes that end in a span of time.
type Ending struct {
	State State // Available or Published
	Span  int   // its number
	Count uint64
}

// Surveys look at all key packages at once, for whoever watches over them: they cost a walk
// over those that have their private keys, whatever the number of identities.
type Surveys interface {
	// Pools returns what there is, by identity, suite, state and whether it is of last
	// resort, in this order. Key packages of a version that does not sign yet are not among
	// it, and nothing is of what there is none of.
	Pools(ctx context.Context, before ...time.Time) ([]Pool, error)
	// Endings returns how many lifetimes of key packages that are available or published end
	// in each of n spans of time from a time on, the last of which has no end. Spans without
	// any are left out. Those that ended before are not counted; those of a version that does
	// not sign yet are.
	Endings(ctx context.Context, from time.Time, span time.Duration, n int) ([]Ending, error)
}
