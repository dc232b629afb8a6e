package lifecycle

import (
	"slices"
	"strings"

	"github.com/hsm-kp/hsm-kp/audit"
	"github.com/hsm-kp/hsm-kp/store"
)

// stepOf are the acts of the trail that are steps of a life.
var stepOf = map[audit.Act]store.Step{
	audit.Exported: store.Publish,
	audit.Claimed:  store.Claim,
	audit.Reserved: store.Reserve,
	audit.Released: store.Release,
	audit.Consumed: store.Consume,
	audit.Retired:  store.Retire,
	audit.Expired:  store.Expire,
	audit.Erased:   store.Erase,
}

// place is where a key package may be in its life, by what the trail says.
type place struct {
	state store.State
	from  store.State // that it was reserved from
}

// begun are the places of one that was made.
var begun = []place{{state: store.Pending}, {state: store.Available}}

// follow returns where an entry leads. A path that is not in store.Transitions ends.
func follow(places []place, e audit.Entry) (next []place) {
	for _, p := range written(places) {
		for _, to := range p.after(e) {
			if !slices.Contains(next, to) {
				next = append(next, to)
			}
		}
	}
	return next
}

// written adds what a Write may have led to: it is no act, and has no entry.
func written(places []place) []place {
	all := slices.Clone(places)
	for _, p := range places {
		if to := (place{state: store.Pending}); store.Allowed(p.state, store.Write, store.Pending) && !slices.Contains(all, to) {
			all = append(all, to)
		}
	}
	return all
}

func (p place) after(e audit.Entry) []place {
	step, moves := stepOf[e.Act]
	switch {
	case !moves && e.Act == audit.Opened:
		return p.only(store.Reserved)
	case !moves && e.Act == audit.LeafErased:
		return p.only(store.Consumed)
	case !moves:
		return []place{p}
	case step == store.Publish && slices.Contains(overtaken, p.state):
		if p.from == store.Pending {
			p.from = store.Published
		}
		return []place{p}
	}
	to := p.end(step, strings.HasSuffix(e.Detail, "last resort"))
	if !store.Allowed(p.state, step, to.state) {
		return nil
	}
	return []place{to}
}

// only keeps the place where its state is the one.
func (p place) only(s store.State) []place {
	if p.state != s {
		return nil
	}
	return []place{p}
}

// end is where a step leads, if it leads anywhere.
func (p place) end(step store.Step, lastResort bool) place {
	reserved := p.state == store.Reserved
	switch {
	case step == store.Reserve && reserved:
		return p
	case step == store.Reserve:
		return place{store.Reserved, p.state}
	case step == store.Release, step == store.Consume && lastResort:
		return place{state: p.from}
	case step == store.Retire && reserved && store.Allowed(p.from, store.Retire, store.Retired):
		return place{store.Reserved, store.Retired}
	}
	return place{state: map[store.Step]store.State{
		store.Publish: store.Published, store.Claim: store.Claimed, store.Consume: store.Consumed,
		store.Retire: store.Retired, store.Expire: store.Expired, store.Erase: store.Erased,
	}[step]}
}
