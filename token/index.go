package token

import (
	"bytes"
	"sync"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// index has the key pairs of the token by their CKA_ID, for a process that uses many: some tokens
// look at every object that they have for each search. It is made little by little. After each
// search for an ID, objects are read for as long as the search took. So no more time goes into
// the index than into searches, even if a token finds an ID at once and takes minutes to read ten
// thousand objects.
//
// What the index returns is a hint. The objects are read again when one is used; if they are not
// what they should be, or the index does not know the ID, there is a search. A second key that
// somebody gives the same ID after the index was made is not noticed, and neither is one that
// comes after a search. What either signs is verified by the public key that was recorded.
type index struct {
	mu       sync.Mutex
	epoch    uint64                           // of the handles
	pairs    map[string][]pkcs11.ObjectHandle // private and public keys by CKA_ID; nil: it is not complete
	cost     time.Duration                    // what making it took
	searches int                              // for IDs, in this epoch
	spent    time.Duration                    // on those that the index did not save, since it was made
	making   bool
	next     *indexing
}

// indexing is an index in the making.
type indexing struct {
	listed bool
	left   []pkcs11.ObjectHandle
	pairs  map[string][]pkcs11.ObjectHandle
	spent  time.Duration
}

// unindexed is how many searches of an epoch pass before an index is begun: most processes use
// one key.
const unindexed = 2

// find finds the one key pair that fits.
func (i *index) find(s session, q KeyQuery) (pair, error) {
	if len(q.ID) == 0 {
		return s.findPair(q)
	}
	if known := i.lookUp(s.Epoch(), q.ID); known != nil {
		p, err := s.pairOf(q, known)
		if err == nil && bytes.Equal(p.private.values[pkcs11.CKA_ID], q.ID) && bytes.Equal(p.public.values[pkcs11.CKA_ID], q.ID) {
			return p, nil
		}
		// It was destroyed, or exchanged. If the session is at fault, a search fails too.
	}
	start := time.Now()
	p, err := s.findPair(q)
	if err == nil {
		i.searched(s, time.Since(start))
	}
	return p, err
}

func (i *index) lookUp(epoch uint64, id []byte) []pkcs11.ObjectHandle {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.epoch != epoch {
		return nil
	}
	return i.pairs[string(id)]
}

// searched goes on with the index after a search, for as long as the search took.
func (i *index) searched(s session, took time.Duration) {
	next := i.begin(s.Epoch(), took)
	if next == nil {
		return
	}
	err := next.proceed(s, took)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.next != next { // another epoch has begun
		return
	}
	i.making = false
	switch {
	case err != nil:
		i.next = nil
	case len(next.left) == 0:
		i.pairs, i.cost, i.spent, i.next = next.pairs, next.spent, 0, nil
	}
}

// begin returns the index to go on with, or nil if it is not due or another goroutine makes it.
func (i *index) begin(epoch uint64, took time.Duration) *indexing {
	i.mu.Lock()
	defer i.mu.Unlock()
	if epoch < i.epoch {
		return nil
	}
	if epoch > i.epoch {
		i.epoch, i.pairs, i.searches, i.spent, i.making, i.next = epoch, nil, 0, 0, false, nil
	}
	i.searches++
	i.spent += took
	if i.making || i.searches <= unindexed || i.pairs != nil && i.spent <= i.cost {
		return nil
	}
	if i.next == nil {
		i.next = &indexing{pairs: make(map[string][]pkcs11.ObjectHandle)}
	}
	i.making = true
	return i.next
}

// proceed reads objects until the time is over, and at least one.
func (n *indexing) proceed(s session, limit time.Duration) (err error) {
	start := time.Now()
	defer func() { n.spent += time.Since(start) }()
	if !n.listed {
		if n.left, err = s.Search([]*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, true)}); err != nil {
			return err
		}
		n.listed = true
	}
	for len(n.left) > 0 {
		o := n.left[len(n.left)-1]
		v, err := s.Read(o, pkcs11.CKA_CLASS, pkcs11.CKA_ID)
		if err != nil && !engine.FailedWith(err, engine.CKR_OBJECT_HANDLE_INVALID) { // it was destroyed meanwhile
			return err
		}
		n.left = n.left[:len(n.left)-1]
		if id := string(v[pkcs11.CKA_ID]); err == nil && id != "" && (classOf(v) == ClassPrivateKey || classOf(v) == ClassPublicKey) {
			n.pairs[id] = append(n.pairs[id], o)
		}
		if time.Since(start) > limit {
			return nil
		}
	}
	return nil
}
