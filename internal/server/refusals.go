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
	// refusalEvery is how often the trail records one kind of refusal.
	refusalEvery = time.Minute
	// maxRefusalKinds bounds the kinds that are recorded separately in a minute; all beyond it are
	// one kind.
	maxRefusalKinds = 256
)

// refusals records refusals in the trail, but does not let refused callers fill it: each kind has
// one entry a minute, which counts the earlier ones that have no entry of their own.
type refusals struct {
	record func(context.Context, ...audit.Entry) error // writes the trail
	mu     sync.Mutex
	kinds  map[refusal]*refused
}

// refusal is a kind of refusal: who was refused, what, and why.
type refusal struct{ actor, what, identity, why string }

type refused struct {
	last   time.Time
	unsaid uint64
}

// add records a refusal. identity is empty if the caller may not know whether it exists.
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

// count counts a refusal. It reports whether the trail is to record it, and how many before it were
// not recorded.
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

// flush records the refusals that were only counted, and forgets the kinds that had none for a
// minute, or every kind if all is set. The caller runs it once a minute and at the end.
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
