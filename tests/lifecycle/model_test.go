package lifecycle

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/hsm-kp/hsm-kp/store"
)

// keyPackage is what the model knows of a key package.
type keyPackage struct {
	ref                   []byte
	state                 store.State
	from                  store.State // that it was reserved from
	lastResort            bool
	sealed, leaf, under   string
	digest                string // of the Welcome that it is reserved for
	reservedUntil         time.Time
	retiredUntil          time.Time
	notBefore, notAfter   time.Time
	opened                uint64
	publishedAt, erasedAt time.Time
}

// model says what a store has to do. It knows store.Transitions, and what the interface
// says beside them.
type model struct {
	rt    *rapid.T
	steps map[store.Step]int // that were taken
	all   []*keyPackage
}

// take takes a step, which has to be a transition.
func (m *model) take(k *keyPackage, step store.Step, to store.State) {
	if !store.Allowed(k.state, step, to) {
		m.rt.Fatalf("%s leads from %s to %s, which is no transition", step, k.state, to)
	}
	m.steps[step]++
	k.state = to
}

// settled is the state of a key package, or that which it was reserved from.
func (k *keyPackage) settled() store.State {
	if k.state == store.Reserved {
		return k.from
	}
	return k.state
}

// all or none: f says what is to be done with a key package, or why not.
func (m *model) together(keys []*keyPackage, f func(*keyPackage) (func(), error)) error {
	before := make([]keyPackage, len(keys))
	for i, k := range keys {
		before[i] = *k
	}
	for _, k := range keys {
		do, err := f(k)
		if err != nil {
			for i, k := range keys {
				*k = before[i]
			}
			return err
		}
		do()
	}
	return nil
}

// overtaken are states of what was published, and fast.
var overtaken = []store.State{store.Reserved, store.Consumed, store.Retired, store.Expired, store.Erased}

func (m *model) move(keys []*keyPackage, from []store.State, to store.State, now time.Time) error {
	step := map[store.State]store.Step{store.Pending: store.Write, store.Published: store.Publish}[to]
	return m.together(keys, func(k *keyPackage) (func(), error) {
		published := func() {
			if to == store.Published && k.publishedAt.IsZero() {
				k.publishedAt = now
			}
		}
		switch {
		case to == store.Published && slices.Contains(from, store.Pending) && slices.Contains(overtaken, k.state):
			return func() {
				published()
				if k.from == store.Pending {
					k.from = store.Published
				}
			}, nil
		case slices.Contains(from, k.state) && store.Allowed(k.state, step, to):
			return func() { published(); m.take(k, step, to) }, nil
		}
		return nil, store.ErrState
	})
}

func (m *model) claim(n int, now time.Time) (claimed []*keyPackage) {
	for _, k := range m.all {
		if len(claimed) < n && k.state == store.Available && !k.lastResort && !now.Before(k.notBefore) && now.Before(k.notAfter) {
			m.take(k, store.Claim, store.Claimed)
			claimed = append(claimed, k)
		}
	}
	return claimed
}

func (m *model) reserve(k *keyPackage, digest, leaf string, until, now time.Time) error {
	switch {
	case k.state == store.Consumed:
		return store.ErrConsumed
	case k.state == store.Erased:
		return store.ErrErased
	case k.state == store.Reserved && k.digest != digest && now.Before(k.reservedUntil):
		return store.ErrReserved
	}
	k.from = k.settled()
	k.digest, k.leaf, k.reservedUntil = digest, leaf, until
	m.take(k, store.Reserve, store.Reserved)
	return nil
}

func (k *keyPackage) reservedFor(digest string) error {
	if k.state != store.Reserved || k.digest != digest {
		return store.ErrState
	}
	return nil
}

// back ends a reservation by a step.
func (m *model) back(k *keyPackage, step store.Step) {
	m.take(k, step, k.from)
	k.from, k.digest, k.leaf, k.reservedUntil = "", "", "", time.Time{}
}

func (m *model) release(k *keyPackage, digest string) error {
	if err := k.reservedFor(digest); err != nil {
		return err
	}
	m.back(k, store.Release)
	return nil
}

func (m *model) consume(k *keyPackage, digest string) error {
	if err := k.reservedFor(digest); err != nil {
		return err
	}
	if k.lastResort {
		m.back(k, store.Consume)
		k.opened++
		return nil
	}
	m.take(k, store.Consume, store.Consumed)
	k.sealed, k.from, k.reservedUntil = "", "", time.Time{}
	return nil
}

func (m *model) eraseLeaf(k *keyPackage) error {
	if k.state != store.Consumed {
		return store.ErrState
	}
	k.leaf = ""
	return nil
}

func (m *model) retire(keys []*keyPackage, until time.Time) error {
	return m.together(keys, func(k *keyPackage) (func(), error) {
		if !store.Allowed(k.settled(), store.Retire, store.Retired) {
			return nil, store.ErrState
		}
		return func() {
			k.retiredUntil = until
			if k.state == store.Reserved {
				m.take(k, store.Retire, store.Reserved)
				k.from = store.Retired
				return
			}
			m.take(k, store.Retire, store.Retired)
		}, nil
	})
}

func (m *model) erase(k *keyPackage, now time.Time) {
	m.take(k, store.Erase, store.Erased)
	k.sealed, k.leaf, k.from, k.reservedUntil, k.erasedAt = "", "", "", time.Time{}, now
}

func (m *model) sweep(now time.Time, grace time.Duration) (did store.Swept) {
	for _, k := range m.all {
		if k.state == store.Reserved && !now.Before(k.reservedUntil) {
			m.back(k, store.Release)
			did.Released++
		}
		if store.Allowed(k.state, store.Expire, store.Expired) && k.notAfter.Before(now) {
			m.take(k, store.Expire, store.Expired)
			did.Expired++
		}
		if k.state == store.Expired && k.notAfter.Add(grace).Before(now) || k.state == store.Retired && !now.Before(k.retiredUntil) {
			m.erase(k, now)
			did.Erased++
		}
	}
	return did
}

// shred erases what is under a wrapping key.
func (m *model) shred(under string, now time.Time) (n uint64) {
	for _, k := range m.all {
		if k.under != under || k.sealed+k.leaf == "" {
			continue
		}
		n++
		if k.state == store.Consumed {
			k.leaf = ""
			continue
		}
		m.erase(k, now)
	}
	return n
}

// compare checks a record of the store, which has no field that says what it was
// reserved from.
func (m *model) compare(k *keyPackage, got *store.KeyPackage) {
	reservedFor := ""
	if k.state == store.Reserved {
		reservedFor = k.digest
	}
	gotFor := ""
	if got.State == store.Reserved {
		gotFor = string(got.WelcomeDigest)
	}
	want := fmt.Sprint(k.state, " ", k.lastResort, " sealed=", k.sealed, " leaf=", k.leaf, " under=", k.under, " for=", reservedFor,
		" until=", k.reservedUntil, " retired until=", k.retiredUntil, " opened=", k.opened, " published=", k.publishedAt, " erased=", k.erasedAt)
	is := fmt.Sprint(got.State, " ", got.LastResort, " sealed=", string(got.Sealed), " leaf=", string(got.Leaf), " under=", string(got.WrappingKeyID), " for=", gotFor,
		" until=", got.ReservedUntil, " retired until=", got.RetiredUntil, " opened=", got.Opened, " published=", got.PublishedAt, " erased=", got.ErasedAt)
	if is != want {
		m.rt.Fatalf("key package %x is\n%s\nand ought to be\n%s", k.ref[:1], is, want)
	}
}

// agree checks that the store and the model fail alike.
func (m *model) agree(what string, got, want error) {
	if want == nil && got != nil || !errors.Is(got, want) {
		m.rt.Fatalf("%s err = %v, want %v", what, got, want)
	}
}
