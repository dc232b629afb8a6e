package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

const (
	// refusalEvery is how often the trail takes one refusal of a kind.
	refusalEvery = time.Minute
	// maxRefusalKinds bounds the kinds that are told apart; what comes beyond it in a
	// minute is one kind.
	maxRefusalKinds = 256
)

// refusals puts what was refused into the trail, without letting whoever is refused fill
// it: of one kind there is an entry a minute, which has the number of those before it that
// have none of their own.
type refusals struct {
	record func(context.Context, ...audit.Entry) error // writes the trail
	mu     sync.Mutex
	kinds  map[refusal]*refused
}

// refusal is a kind of refusal: who was refused what, and why.
type refusal struct{ actor, what, identity, why string }

type refused struct {
	last   time.Time
	unsaid uint64
}

// add records a refusal. The identity is empty where the caller may not know whether it is
// there.
func (r *refusals) add(ctx context.Context, kind refusal, now time.Time) error {
	unsaid, say := r.count(&kind, now)
	if !say {
		return nil
	}
	return r.write(ctx, kind, unsaid, now)
}

func (r *refusals) write(ctx context.Context, kind refusal, unsaid uint64, now time.Time) error {
	detail := kind.what + ": " + kind.why
	if unsaid > 0 {
		detail += fmt.Sprintf(", and %d more since the entry before", unsaid)
	}
	ctx = store.WithActor(context.WithoutCancel(ctx), kind.actor)
	return r.record(ctx, audit.Entry{Time: now, Act: audit.Refused, Identity: kind.identity, Detail: detail})
}

// count counts a refusal, and reports whether it is to be said, with how many before it
// were not.
func (r *refusals) count(kind *refusal, now time.Time) (unsaid uint64, say bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kinds[*kind] == nil && len(r.kinds) >= maxRefusalKinds {
		*kind = refusal{actor: "several", what: "several operations", why: "refused"}
	}
	k := r.kinds[*kind]
	if k == nil {
		k = new(refused)
		r.kinds[*kind] = k
	}
	if now.Sub(k.last) < refusalEvery {
		k.unsaid++
		return 0, false
	}
	unsaid, k.unsaid, k.last = k.unsaid, 0, now
	return unsaid, true
}

// flush records what was counted and not said, and forgets the kinds that were quiet for a
// minute; with all, it forgets every kind. It is called once a minute, and at the end.
func (r *refusals) flush(ctx context.Context, now time.Time, all bool) error {
	var first error
	for kind, unsaid := range r.due(now, all) {
		if err := r.write(ctx, kind, unsaid-1, now); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (r *refusals) due(now time.Time, all bool) map[refusal]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[refusal]uint64)
	for kind, k := range r.kinds {
		if !all && now.Sub(k.last) < refusalEvery {
			continue
		}
		if k.unsaid > 0 {
			out[kind] = k.unsaid
		}
		delete(r.kinds, kind)
	}
	return out
}
