package operator

import (
	"bytes"
	"context"
	"maps"

	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
)

// openedKey identifies a signature key that an act has found in the token or made there, by its CKA_ID
// and by whether a weak key is allowed. Each key is searched for once, when it is first used: some
// tokens examine all of their objects for each search.
type openedKey struct {
	id   string
	weak bool
}

// signatureKey finds the signature key with a CKA_ID. It is of no use once the key was
// destroyed here.
func (o *Operator) signatureKey(ctx context.Context, id []byte, allowWeak bool) (*signer.Key, error) {
	o.mu.Lock()
	key := o.keys[openedKey{string(id), allowWeak}]
	o.mu.Unlock()
	if key != nil {
		return key, nil
	}
	t, err := o.Token(ctx)
	if err != nil {
		return nil, err
	}
	key, err = findKey(ctx, t, token.KeyQuery{ID: id}, allowWeak)
	if err == nil {
		o.keep(key, allowWeak)
	}
	return key, err
}

// keep remembers a key that was found or made.
func (o *Operator) keep(key *signer.Key, allowWeak bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.keys == nil {
		o.keys = make(map[openedKey]*signer.Key)
	}
	o.keys[openedKey{string(key.ID()), allowWeak}] = key
}

// forget removes a key that is no longer used.
func (o *Operator) forget(id []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, weak := range []bool{false, true} {
		delete(o.keys, openedKey{string(id), weak})
	}
	maps.DeleteFunc(o.signers, func(_ string, s opened) bool { return bytes.Equal(s.record.KeyID, id) })
}

// findKey finds a signature key. It refuses one whose attributes let it leave the token, unless
// that is allowed.
func findKey(ctx context.Context, t *token.Token, q token.KeyQuery, allowWeak bool) (*signer.Key, error) {
	if allowWeak {
		return signer.Find(ctx, t, q, signer.AllowWeak())
	}
	return signer.Find(ctx, t, q)
}
