package engine

import (
	"crypto"
	"fmt"
	"time"

	"github.com/ThalesGroup/crypto11"
)

// UsesCrypto11 reports whether ECDSA goes through crypto11.
func (s *Session) UsesCrypto11() bool { return s.one == nil && s.link.ec != nil }

// Crypto11Key finds a private key again through crypto11. Asking for private
// keys, and for the key type, keeps crypto11 from stumbling over public keys in an
// encoding that it does not know, and over Edwards keys of the same ID.
func (s *Session) Crypto11Key(keyType uint, id []byte) (crypto11.PrivateKey, error) {
	set := crypto11.NewAttributeSet()
	for attribute, value := range map[crypto11.AttributeType]any{
		crypto11.CkaToken:   true,
		crypto11.CkaKeyType: keyType,
		crypto11.CkaId:      id,
	} {
		if err := set.Set(attribute, value); err != nil {
			return nil, err
		}
	}
	keys, err := s.link.ec.FindPrivateKeysWithAttributes(set)
	switch {
	case err != nil:
		return nil, callError("C_FindObjects", err)
	case len(keys) == 0:
		return nil, fmt.Errorf("key %x was destroyed while it was read", id)
	case len(keys) > 1:
		return nil, fmt.Errorf("%w: %d do", ErrAmbiguousKey, len(keys))
	}
	return keys[0], nil
}

// SignCrypto11 signs with a key of Crypto11Key, in a session of crypto11's own.
func (s *Session) SignCrypto11(key crypto11.PrivateKey, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	begun := time.Now()
	sig, err := key.Sign(nil, digest, opts)
	err = callError("C_Sign", err)
	if tell := s.link.engine.cfg.Watch; tell != nil {
		tellOf(tell, "C_Sign", begun, err)
	}
	return sig, err
}
