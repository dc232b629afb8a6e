package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// aesKey is an AES-256 key in the token.
type aesKey struct {
	token *Token
	id    []byte
	label string
	place engine.Place
	// proof shows that a key that is found again is the same one. It is nil if the key was not
	// used yet.
	proof atomic.Pointer[proof]
}

// proof fails with ErrDecrypt if the key is not the one that it proves.
type proof func(s session, key pkcs11.ObjectHandle) error

// ID returns a copy of CKA_ID.
func (k *aesKey) ID() []byte { return bytes.Clone(k.id) }

// Label returns CKA_LABEL.
func (k *aesKey) Label() string { return k.label }

// Attributes reads the key's attributes from the token.
func (k *aesKey) Attributes(ctx context.Context) (KeyAttributes, error) {
	a, err := do(ctx, k.token, func(s session) (KeyAttributes, error) {
		h, err := k.in(s)
		if err != nil {
			return KeyAttributes{}, err
		}
		return s.readKeyAttributes(h)
	})
	if err != nil {
		return KeyAttributes{}, fmt.Errorf("read attributes of wrapping key %x: %w", k.id, err)
	}
	return a, nil
}

// generate generates the key in the token, for these uses and no other.
func (k *aesKey) generate(ctx context.Context, uses ...uint) error {
	return run(ctx, k.token, func(s session) error {
		if err := s.requireNew(pkcs11.CKO_SECRET_KEY, k.id); err != nil {
			return err
		}
		_, err := k.place.In(s.Session, func() (engine.Handles, error) {
			defer s.Making()()
			h, err := s.generateAES(append(aesTemplate(true, uses...),
				attr(pkcs11.CKA_ID, k.id),
				attr(pkcs11.CKA_LABEL, k.label),
			))
			return engine.Handles{Key: h}, engine.Once(err)
		})
		return err
	})
}

func (s session) generateAES(template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	return s.GenerateKey(pkcs11.CKM_AES_KEY_GEN, template)
}

// aesTemplate sets every attribute that matters, because defaults are the vendor's. The key stays
// in the token, or ends with the session.
func aesTemplate(onToken bool, uses ...uint) []*pkcs11.Attribute {
	template := []*pkcs11.Attribute{
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		attr(pkcs11.CKA_VALUE_LEN, 32),
		attr(pkcs11.CKA_TOKEN, onToken),
		attr(pkcs11.CKA_PRIVATE, true),
		attr(pkcs11.CKA_SENSITIVE, true),
		attr(pkcs11.CKA_EXTRACTABLE, false),
	}
	for _, use := range []uint{
		pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP,
		pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_DERIVE,
	} {
		template = append(template, attr(use, slices.Contains(uses, use)))
	}
	return template
}

// in returns the handle for a session.
func (k *aesKey) in(s session) (pkcs11.ObjectHandle, error) {
	h, err := k.place.In(s.Session, func() (engine.Handles, error) {
		h, err := k.lookUp(s)
		if err != nil {
			return engine.Handles{}, err
		}
		if p := k.proof.Load(); p != nil {
			if err := (*p)(s, h); errors.Is(err, ErrDecrypt) {
				return engine.Handles{}, changed(k.id, err)
			} else if err != nil {
				return engine.Handles{}, err
			}
		}
		return engine.Handles{Key: h}, nil
	})
	return h.Key, err
}

// prove keeps the first proof.
func (k *aesKey) prove(make func() proof) {
	if k.proof.Load() == nil {
		p := make()
		k.proof.CompareAndSwap(nil, &p)
	}
}

// find finds the key with the ID, and its label.
func (k *aesKey) find(s session) error {
	h, err := k.in(s)
	if err != nil {
		return err
	}
	label, err := s.Attribute(h, pkcs11.CKA_LABEL)
	k.label = string(label)
	return err
}

// destroy destroys the key. It checks the login first, which may be repeated.
func (k *aesKey) destroy(ctx context.Context) error {
	err := run(ctx, k.token, func(s session) error {
		h, err := k.in(s)
		if err == nil {
			err = s.RequireLogin()
		}
		if err != nil {
			return err
		}
		return engine.Once(s.Destroy(h))
	})
	if err == nil {
		err = k.token.engine.RenewSessions()
	}
	return err
}

// lookUp finds the handle of the key with the ID.
func (k *aesKey) lookUp(s session) (pkcs11.ObjectHandle, error) {
	if len(k.id) == 0 {
		return 0, errors.New("no id given")
	}
	h, err := s.FindOne(
		attr(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY),
		attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		attr(pkcs11.CKA_TOKEN, true),
		attr(pkcs11.CKA_ID, k.id),
	)
	if err != nil {
		return 0, err
	}
	length, known, err := s.Number(h, pkcs11.CKA_VALUE_LEN)
	if err != nil {
		return 0, err
	}
	if known && length != 32 {
		return 0, fmt.Errorf("%w: AES key of %d bytes, want 32", ErrUnsupported, length)
	}
	return h, nil
}
