package main

import (
	"context"
	"sync"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
)

// opened are keys that a command has found in the token, or made there: each is found once, and
// only when it is used. Some tokens look at all of their objects for each search.
type opened struct {
	mu        sync.Mutex
	inventory *inventory.Inventory // which has the wrapping keys
	keys      map[openedKey]*signer.Key
}

// openedKey is a signature key, by its CKA_ID, and whether it may be a weak one.
type openedKey struct {
	id   string
	weak bool
}

// signatureKey finds the signature key of that CKA_ID. It is of no use once the key was destroyed
// here.
func (o *opened) signatureKey(ctx context.Context, t *token.Token, id []byte, allowWeak bool) (*signer.Key, error) {
	as := openedKey{string(id), allowWeak}
	o.mu.Lock()
	key := o.keys[as]
	o.mu.Unlock()
	if key != nil {
		return key, nil
	}
	key, err := findKey(ctx, t, token.KeyQuery{ID: id}, allowWeak)
	if err == nil {
		o.keep(key, allowWeak)
	}
	return key, err
}

// keep has a key that was found, or made.
func (o *opened) keep(key *signer.Key, allowWeak bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.keys == nil {
		o.keys = make(map[openedKey]*signer.Key)
	}
	o.keys[openedKey{string(key.ID()), allowWeak}] = key
}

// forget lets go of a key that is not used any more.
func (o *opened) forget(id []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, weak := range []bool{false, true} {
		delete(o.keys, openedKey{string(id), weak})
	}
}
