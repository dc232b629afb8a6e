package token

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// Sizes of RSA keys in bits: the one that is generated if the token can, and the least.
const (
	rsaBits      = 3072
	rsaBitsLeast = 2048
)

// DecryptionKey is an RSA key pair in the token whose private half decrypts by RSA-OAEP.
// It may be used by several goroutines at once. Its handles are kept.
type DecryptionKey struct {
	token  *Token
	id     []byte
	label  string
	public *rsa.PublicKey
	place  engine.Place
}

// ID returns a copy of CKA_ID.
func (k *DecryptionKey) ID() []byte { return bytes.Clone(k.id) }

// Label returns CKA_LABEL.
func (k *DecryptionKey) Label() string { return k.label }

// Public returns the public key, of 2048 bits at least, as the token reports it. Whoever encrypts
// to it should first check that the token has the private key.
func (k *DecryptionKey) Public() *rsa.PublicKey { return k.public }

// GenerateDecryptionKey generates an RSA key pair in the token (CKM_RSA_PKCS_KEY_PAIR_GEN), of
// 3072 bits if the token reports that it can, and otherwise of 2048. The private half is
// sensitive, not extractable, and able to decrypt and nothing else. A nil id is 16 random bytes.
// If a private key has the id, it fails with ErrKeyExists.
func (t *Token) GenerateDecryptionKey(ctx context.Context, id []byte, label string) (*DecryptionKey, error) {
	id = idOrRandom(id)
	k, err := do(ctx, t, func(s session) (*DecryptionKey, error) {
		if err := s.requireNew(pkcs11.CKO_PRIVATE_KEY, id); err != nil {
			return nil, err
		}
		bits, err := s.rsaBits()
		if err != nil {
			return nil, err
		}
		public, private, err := s.generateRSA(bits, rsaTemplates(true, id, label))
		if err != nil {
			return nil, engine.Once(err)
		}
		k, err := t.loadDecryptionKey(s, id, private, public)
		if err != nil {
			// A key whose id nobody knows must not stay behind.
			return nil, engine.Once(errors.Join(err, s.Destroy(private), s.Destroy(public)))
		}
		return k, nil
	})
	if err != nil {
		return nil, fmt.Errorf("generate decryption key: %w", err)
	}
	return k, nil
}

// rsaBits returns the length of a key to generate.
func (s session) rsaBits() (int, error) {
	info, err := s.MechanismInfo(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN)
	if err != nil {
		return 0, err
	}
	if info.MaxKeySize < rsaBits { // some count in bytes, or report nothing
		return rsaBitsLeast, nil
	}
	return rsaBits, nil
}

func (s session) generateRSA(bits int, t templates) (public, private pkcs11.ObjectHandle, err error) {
	t.public = append(t.public, attr(pkcs11.CKA_MODULUS_BITS, bits), attr(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
	return s.GenerateKeyPair(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, t.public, t.private)
}

// rsaTemplates set every attribute of the private half that matters, because defaults are the
// vendor's. They do not set what the public half may do: anybody may use it, and tpm2-pkcs11
// fails if they differ from what it has.
func rsaTemplates(onToken bool, id []byte, label string) templates {
	return templates{
		public: []*pkcs11.Attribute{
			attr(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
			attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
			attr(pkcs11.CKA_TOKEN, onToken),
			attr(pkcs11.CKA_PRIVATE, false),
			attr(pkcs11.CKA_ID, id),
			attr(pkcs11.CKA_LABEL, label),
		},
		private: []*pkcs11.Attribute{
			attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
			attr(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
			attr(pkcs11.CKA_TOKEN, onToken),
			attr(pkcs11.CKA_PRIVATE, true),
			attr(pkcs11.CKA_SENSITIVE, true),
			attr(pkcs11.CKA_EXTRACTABLE, false),
			attr(pkcs11.CKA_DECRYPT, true),
			attr(pkcs11.CKA_SIGN, false),
			attr(pkcs11.CKA_UNWRAP, false),
			attr(pkcs11.CKA_DERIVE, false),
			attr(pkcs11.CKA_ID, id),
			attr(pkcs11.CKA_LABEL, label),
		},
	}
}

// FindDecryptionKey finds the RSA key pair of that CKA_ID. It fails with ErrNotFound if there is
// none, ErrAmbiguousKey if there are several, and ErrUnsupported for another kind of key or a
// shorter one.
func (t *Token) FindDecryptionKey(ctx context.Context, id []byte) (*DecryptionKey, error) {
	id = bytes.Clone(id)
	k, err := do(ctx, t, func(s session) (*DecryptionKey, error) { return t.findDecryptionKey(s, id) })
	if err != nil {
		return nil, fmt.Errorf("find decryption key %x: %w", id, err)
	}
	return k, nil
}

func (t *Token) findDecryptionKey(s session, id []byte) (*DecryptionKey, error) {
	if len(id) == 0 {
		return nil, errors.New("no id given")
	}
	p, err := s.findPair(KeyQuery{ID: id})
	if err != nil {
		return nil, err
	}
	if keyType, _ := p.private.values.Number(pkcs11.CKA_KEY_TYPE); keyType != pkcs11.CKK_RSA {
		return nil, fmt.Errorf("%w: it is no RSA key", ErrUnsupported)
	}
	return t.loadDecryptionKey(s, id, p.private.handle, p.public.handle)
}

// loadDecryptionKey makes a DecryptionKey of two objects.
func (t *Token) loadDecryptionKey(s session, id []byte, private, public pkcs11.ObjectHandle) (*DecryptionKey, error) {
	label, err := s.Attribute(private, pkcs11.CKA_LABEL)
	if err != nil {
		return nil, err
	}
	k := &DecryptionKey{token: t, id: id, label: string(label)}
	if k.public, err = s.rsaPublic(private, public); err != nil {
		return nil, err
	}
	_, err = k.place.In(s.Session, func() (engine.Handles, error) { return engine.Handles{Key: private, Verify: public}, nil })
	return k, err
}

// in returns the handles of the key pair for a session.
func (k *DecryptionKey) in(s session) (engine.Handles, error) {
	return k.place.In(s.Session, func() (engine.Handles, error) {
		again, err := k.token.findDecryptionKey(s, k.id)
		switch {
		case err != nil:
			return engine.Handles{}, err
		case !again.public.Equal(k.public):
			return engine.Handles{}, changed(k.id, errOtherPublic)
		}
		return again.in(s)
	})
}

// rsaPublic reads the public key, from the private object if that has it: it cannot be exchanged
// without the private key.
func (s session) rsaPublic(private, public pkcs11.ObjectHandle) (*rsa.PublicKey, error) {
	var parts [2][]byte
	for i, a := range []uint{pkcs11.CKA_MODULUS, pkcs11.CKA_PUBLIC_EXPONENT} {
		for _, o := range []pkcs11.ObjectHandle{private, public} {
			if len(parts[i]) > 0 || o == 0 {
				continue
			}
			var err error
			if parts[i], err = s.Attribute(o, a); err != nil {
				return nil, err
			}
		}
	}
	n, e := new(big.Int).SetBytes(parts[0]), new(big.Int).SetBytes(parts[1])
	if n.BitLen() < rsaBitsLeast || n.BitLen()%8 != 0 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > 1<<31-1 {
		return nil, fmt.Errorf("%w: RSA key of %d bits and exponent %v", ErrUnsupported, n.BitLen(), e)
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// DestroyDecryptionKey destroys both halves in the token (C_DestroyObject), the private one
// first. Nothing that was encrypted to it opens any more. It cannot be undone.
func (t *Token) DestroyDecryptionKey(ctx context.Context, k *DecryptionKey) error {
	err := run(ctx, t, func(s session) error {
		h, err := k.in(s)
		if err == nil {
			err = s.RequireLogin()
		}
		if err != nil {
			return err
		}
		if err := s.Destroy(h.Key); err != nil {
			return engine.Once(err)
		}
		return engine.Once(s.Destroy(h.Verify))
	})
	if err != nil {
		return fmt.Errorf("destroy decryption key %x: %w", k.id, err)
	}
	return nil
}

// Attributes reads the attributes of the private key from the token.
func (k *DecryptionKey) Attributes(ctx context.Context) (KeyAttributes, error) {
	a, err := do(ctx, k.token, func(s session) (KeyAttributes, error) {
		h, err := k.in(s)
		if err != nil {
			return KeyAttributes{}, err
		}
		return s.readKeyAttributes(h.Key)
	})
	if err != nil {
		return KeyAttributes{}, fmt.Errorf("read attributes of decryption key %x: %w", k.id, err)
	}
	return a, nil
}

// CanSeal reports whether the token says that it has AES-GCM (C_GetMechanismInfo). If so,
// wrapping keys are made for AES-GCM by default. Whether it works is tried when one is made.
func (t *Token) CanSeal(ctx context.Context) (bool, error) {
	can, err := do(ctx, t, func(s session) (bool, error) {
		_, err := s.MechanismInfo(pkcs11.CKM_AES_GCM)
		if engine.FailedWith(err, engine.CKR_MECHANISM_INVALID) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return false, fmt.Errorf("ask for CKM_AES_GCM: %w", err)
	}
	return can, nil
}
