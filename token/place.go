package token

import (
	"errors"
	"fmt"
	"sync"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"
)

// place is where the objects of a key are. Handles are good for an epoch: after a recovery
// they are found again, by CKA_ID, and found to be of the same key.
type place struct {
	mu      sync.Mutex
	epoch   uint64 // of the handles; 0: none found yet
	handles handles
}

// handles are those of a secret key, or of a key pair.
type handles struct {
	key    pkcs11.ObjectHandle // the secret or private key
	verify pkcs11.ObjectHandle // the public key object, or 0
	ec     crypto11.PrivateKey // ECDSA keys, where crypto11 signs; else nil
}

// in returns the handles for a session, and finds them where they are of an earlier epoch.
// Those of a later one are good too: handles are one for all sessions.
func (p *place) in(s *session, find func(*session) (handles, error)) (handles, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.epoch >= s.epoch {
		return p.handles, nil
	}
	h, err := find(s)
	if err != nil {
		return handles{}, err
	}
	p.handles, p.epoch = h, s.epoch
	return h, nil
}

// changed says that another key stands under an ID. It ends everything: see Token.
func changed(id []byte, why error) error {
	return fmt.Errorf("%w: CKA_ID %x: %w", ErrKeyChanged, id, why)
}

var errOtherPublic = errors.New("its public key is another one")
