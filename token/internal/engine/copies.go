package engine

import (
	"errors"

	"github.com/miekg/pkcs11"
)

// copies are those that a session has of keys: so many at most, because a process may use ten
// thousand keys, and each copy is an object that the token keeps and looks at in each search.
type copies struct {
	of   map[any]sessionCopy // by their keys
	uses uint64              // of all of them
}

type sessionCopy struct {
	handle pkcs11.ObjectHandle
	used   uint64 // what copies.uses was then
}

const (
	maxCopies = 128
	// idleUses is how many uses of others there are until a copy is no longer held to be in use.
	// Where as many keys as there are copies, and more, are in use, the others go without:
	// making copies for each use would be the slowest of all.
	idleUses = 4 * maxCopies
)

// errNoRoom reports a session with as many copies as it may have, all in use.
var errNoRoom = errors.New("the session has enough copies")

func (c *copies) has(owner any) bool {
	_, ok := c.of[owner]
	return ok
}

// use returns the copy of a key, where there is one.
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

// oldest returns the copy that was not used for longest, where the session is full; owner is
// nil where all are in use.
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
