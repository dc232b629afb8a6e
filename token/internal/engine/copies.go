package engine

import (
	"errors"

	"github.com/miekg/pkcs11"
)

// copies are the copies of keys that a session has. Their number is limited, because a process
// may use ten thousand keys, and each copy is an object that the token keeps and looks at in each
// search.
type copies struct {
	of   map[any]sessionCopy // by the owner of the key
	uses uint64              // of all copies
}

type sessionCopy struct {
	handle pkcs11.ObjectHandle
	used   uint64 // copies.uses at the last use
}

const (
	maxCopies = 128
	// idleUses is after how many uses of other copies a copy counts as idle. If more keys than
	// there may be copies are in use, the others go without: making a copy for each use would be
	// slowest of all.
	idleUses = 4 * maxCopies
)

// errNoRoom reports a session that has as many copies as it may, all in use.
var errNoRoom = errors.New("the session has enough copies")

func (c *copies) has(owner any) bool {
	_, ok := c.of[owner]
	return ok
}

// use returns the copy of a key, if the session has one.
func (c *copies) use(owner any) (pkcs11.ObjectHandle, bool) {
	c.uses++
	found, ok := c.of[owner]
	if ok {
		c.of[owner] = sessionCopy{found.handle, c.uses}
	}
	return found.handle, ok
}

func (c *copies) add(owner any, handle pkcs11.ObjectHandle) {
	if c.of == nil {
		c.of = make(map[any]sessionCopy)
	}
	c.of[owner] = sessionCopy{handle, c.uses}
}

// oldest returns the copy that was unused for longest, if the session is full; owner is nil if
// all are in use.
func (c *copies) oldest() (owner any, handle pkcs11.ObjectHandle, full bool) {
	if len(c.of) < maxCopies {
		return nil, 0, false
	}
	least := c.uses
	for o, one := range c.of {
		if one.used+idleUses < c.uses && one.used < least {
			owner, handle, least = o, one.handle, one.used
		}
	}
	return owner, handle, true
}
