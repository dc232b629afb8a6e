package program

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// life is the life of a key package according to the trail.
type life struct {
	state, before store.State // before is the state before a reservation
	under         []byte      // its wrapping key
}

// led maps acts to the states that they lead to.
var led = map[audit.Act]store.State{
	audit.Exported: store.Published, audit.Claimed: store.Claimed, audit.Consumed: store.Consumed,
	audit.Retired: store.Retired, audit.Expired: store.Expired, audit.Erased: store.Erased,
}

func (l *life) follow(e audit.Entry) {
	if e.Act == audit.Generated || e.Act == audit.Rewrapped {
		l.under = e.KeyID
	}
	next, ok := led[e.Act]
	switch {
	case e.Act == audit.Reserved && l.state != store.Reserved:
		l.state, l.before = store.Reserved, l.state
	case e.Act == audit.Released, e.Act == audit.Consumed && strings.HasSuffix(e.Detail, "last resort"):
		l.state = l.before
	case !ok:
	case l.state == store.Reserved && (next == store.Published || next == store.Retired):
		l.before = next // the state before the reservation
	case next == store.Published && (l.state == store.Retired || !l.state.Open()):
		// It was published, and fast: see store.Move.
	default:
		l.state = next
	}
}

// trailFaults verifies the trail, follows each key package through it, and compares the result with
// the record.
func (o *Opened) trailFaults() []error {
	ctx := context.Background()
	if _, err := audit.Verify(o.Store.Entries(ctx, 0), nil); err != nil {
		return []error{fmt.Errorf("the audit trail: %w", err)}
	}
	lives, err := o.lives(ctx)
	if err != nil {
		return []error{err}
	}
	var faults []error
	for record, err := range o.Store.KeyPackages(ctx, store.Filter{}) {
		if err != nil {
			return append(faults, err)
		}
		l := lives[string(record.Ref)]
		delete(lives, string(record.Ref))
		switch {
		case l == nil:
			faults = append(faults, fmt.Errorf("key package %x is not in the trail", record.Ref))
		case !l.fits(record.State):
			faults = append(faults, fmt.Errorf("key package %x is %s, and by the trail it is %s", record.Ref, record.State, l.state))
		case !bytes.Equal(l.under, record.WrappingKeyID):
			faults = append(faults, fmt.Errorf("key package %x is under %x, and by the trail under %x", record.Ref, record.WrappingKeyID, l.under))
		}
	}
	for ref := range lives {
		faults = append(faults, fmt.Errorf("key package %x is in the trail and not in the store", ref))
	}
	return faults
}

// fits reports whether a state fits the life: becoming pending is not an act.
func (l *life) fits(state store.State) bool {
	return l.state == state || state == store.Pending && (l.state == store.Available || l.state == store.Published)
}

// lives follows each key package through the trail.
func (o *Opened) lives(ctx context.Context) (map[string]*life, error) {
	lives := make(map[string]*life)
	for stored, err := range o.Store.Entries(ctx, 0) {
		if err != nil {
			return nil, err
		}
		e, err := audit.ParseEntry(stored.Bytes)
		if err != nil {
			return nil, err
		}
		if len(e.Ref) == 0 {
			continue
		}
		l := lives[string(e.Ref)]
		if (l == nil) != (e.Act == audit.Generated) {
			return nil, fmt.Errorf("key package %x: entry %d is %s", e.Ref, e.Sequence, e.Act)
		}
		if l == nil {
			l = &life{state: store.Available}
			lives[string(e.Ref)] = l
		}
		l.follow(e)
	}
	return lives, nil
}
