package engine

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"
)

// Gauge finds out whether one kind of operation is faster with a copy of the key that ends with
// the session (C_CopyObject) than with the key itself. SoftHSM opens and locks a file for each
// operation with an object that stays in the token; with other tokens it makes no difference. The
// Gauge measures operations that are done anyway: the first ones with the key, the next ones with
// copies, and then it decides. A copy is as sensitive and as little extractable as its key.
type Gauge struct {
	// Others is what was found out with other keys of the token, or nil.
	Others *Experience
	state  atomic.Int32

	mu      sync.Mutex
	seen    [2]int
	best    [2]time.Duration // the quickest of each: the others waited for something
	copying int              // copies that are being made to measure with
}

// Experience is what was found out with keys of one kind, so that a new key need not be measured
// again. The key of a device that gets few key packages would be measured for as long as it is in
// use.
type Experience struct{ worth, not atomic.Int32 }

// enough is how many keys have to be faster without copies before others go without.
const enough = 3

// expect decides by what was found out with other keys.
func (g *Gauge) expect() {
	if g.Others == nil || g.state.Load() != measuring {
		return
	}
	switch {
	case g.Others.worth.Load() > 0:
		g.state.Store(useCopies)
	case g.Others.not.Load() >= enough:
		g.state.Store(useKey)
	}
}

// learn adds what was decided to the Experience.
func (g *Gauge) learn(copies bool) {
	switch {
	case g.Others == nil:
	case copies:
		g.Others.worth.Add(1)
	default:
		g.Others.not.Add(1)
	}
}

// States of a gauge.
const (
	measuring int32 = iota
	useKey
	useCopies
)

// trials is how many operations of each kind are measured.
const trials = 16

// copiers is how many sessions make a copy to measure with at once: the others lose no time on
// what may not be worth it.
const copiers = 4

// gain is the share of the key's time that a copy may take to be worth having.
const gain = 0.9

// With runs op with the key or with a copy of it.
func (g *Gauge) With(s *Session, owner any, key pkcs11.ObjectHandle, op func(pkcs11.ObjectHandle) error) error {
	used, copied, err := g.choose(s, owner, key)
	if err != nil {
		return err
	}
	if g.state.Load() != measuring {
		return op(used)
	}
	start := time.Now()
	err = op(used)
	if err == nil {
		g.note(copied, time.Since(start))
	}
	return err
}

// choose returns the key, or the session's copy of it.
func (g *Gauge) choose(s *Session, owner any, key pkcs11.ObjectHandle) (used pkcs11.ObjectHandle, copied bool, err error) {
	if s.link.engine.cfg.Quirks.TokenObjects {
		return key, false, nil
	}
	g.expect()
	switch g.state.Load() {
	case useKey:
		return key, false, nil
	case measuring:
		has := s.copies.has(owner)
		if !has && !g.mayCopy() {
			return key, false, nil
		}
		if !has {
			defer g.endCopy()
		}
	}
	used, err = s.copyOf(owner, key)
	if errors.Is(err, errNoRoom) {
		return key, false, nil
	}
	if err != nil && s.Quirks().StepOf(err) == StepNone {
		g.state.Store(useKey) // this token does not copy
		g.learn(false)
		return key, false, nil
	}
	return used, true, err
}

// mayCopy reports whether the session should make a copy to measure with. endCopy ends that.
func (g *Gauge) mayCopy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seen[0] < trials || g.copying >= copiers {
		return false
	}
	g.copying++
	return true
}

func (g *Gauge) endCopy() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.copying--
}

// note counts a measurement, and decides once there are enough.
func (g *Gauge) note(copied bool, took time.Duration) {
	i := 0
	if copied {
		i = 1
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.seen[i] == 0 || took < g.best[i] {
		g.best[i] = took
	}
	if g.seen[i]++; g.seen[0] < trials || g.seen[1] < trials {
		return
	}
	quicker := float64(g.best[1]) < gain*float64(g.best[0])
	if quicker {
		g.state.Store(useCopies)
	} else {
		g.state.Store(useKey)
	}
	g.learn(quicker)
}

// errCopy reports a copy with other attributes than its key: it is not used.
var errCopy = errors.New("the copy is not kept as its key is")

// copyOf returns the session's copy of the owner's key, and makes it if there is none. It fails
// with errNoRoom if the session has as many copies as it may.
func (s *Session) copyOf(owner any, key pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	if c, ok := s.copies.use(owner); ok {
		return c, nil
	}
	if err := s.makeRoom(); err != nil {
		return 0, err
	}
	c, err := s.copyObject(key)
	if err != nil {
		return 0, err
	}
	if err := s.checkCopy(c); err != nil {
		return 0, errors.Join(err, s.Destroy(c))
	}
	s.copies.add(owner, c)
	return c, nil
}

// makeRoom destroys the copy that was unused for longest, if there are too many.
func (s *Session) makeRoom() error {
	owner, oldest, full := s.copies.oldest()
	if !full {
		return nil
	}
	if owner == nil {
		return errNoRoom
	}
	delete(s.copies.of, owner)
	return s.Destroy(oldest)
}

func (s *Session) copyObject(key pkcs11.ObjectHandle) (pkcs11.ObjectHandle, error) {
	defer s.Making()()
	c, err := s.api.CopyObject(s.handle, key, []*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, false)})
	return c, callError("C_CopyObject", err)
}

func (s *Session) checkCopy(c pkcs11.ObjectHandle) error {
	v, err := s.Read(c, pkcs11.CKA_TOKEN, pkcs11.CKA_PRIVATE, pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE)
	if err != nil {
		return err
	}
	for _, rule := range copyRules {
		if set := s.FlagOf(v, rule.attribute); set == nil || *set != rule.want {
			return fmt.Errorf("%w: %s is not %t", errCopy, rule.name, rule.want)
		}
	}
	return nil
}

// copyRules are the attributes that a copy must have: those of its key, except that it ends with
// the session.
var copyRules = []struct {
	attribute uint
	name      string
	want      bool
}{
	{pkcs11.CKA_TOKEN, "CKA_TOKEN", false},
	{pkcs11.CKA_PRIVATE, "CKA_PRIVATE", true},
	{pkcs11.CKA_SENSITIVE, "CKA_SENSITIVE", true},
	{pkcs11.CKA_EXTRACTABLE, "CKA_EXTRACTABLE", false},
}
