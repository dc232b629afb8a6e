package engine

import (
	"sync"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"
)

// Place is where the objects of a key are. Handles are good for an epoch: after a recovery they
// are found again, by CKA_ID, and compared with the key.
type Place struct {
	mu      sync.Mutex
	epoch   uint64 // of the handles; 0: none found yet
	handles Handles
}

// Handles are those of a secret key, or of a key pair.
type Handles struct {
	Key    pkcs11.ObjectHandle // the secret or private key
	Verify pkcs11.ObjectHandle // the public key object, or 0
	EC     crypto11.PrivateKey // ECDSA keys, if crypto11 signs; else nil
}

// In returns the handles for a session, and calls find if they are of an earlier epoch. Those of
// a later one are good too: handles hold for all sessions.
func (p *Place) In(s *Session, find func() (Handles, error)) (Handles, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch >= s.epoch {
		return p.handles, nil
	}
	h, err := find()
	if err != nil {
		return Handles{}, err
	}
	p.handles, p.epoch = h, s.epoch
	return h, nil
}
