package token

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// KeyWrap is a mechanism of C_WrapKey and C_UnwrapKey. Keep it with the wrapped key: tokens do
// not agree on what KeyWrapPad is.
type KeyWrap uint

// The mechanisms that wrap an EC private key, which is in PKCS#8 inside. Neither has a parameter.
const (
	// KeyWrapKWP is AES Key Wrap with Padding (RFC 5649), of PKCS#11 3.0.
	KeyWrapKWP KeyWrap = ckmAESKeyWrapKWP
	// KeyWrapPad is RFC 5649 too on some tokens, and something else on others.
	KeyWrapPad KeyWrap = ckmAESKeyWrapPad
)

// keyWraps are all, the better first.
var keyWraps = []KeyWrap{KeyWrapKWP, KeyWrapPad}

// String returns the name of the constant in PKCS#11, such as
// "CKM_AES_KEY_WRAP_KWP".
func (m KeyWrap) String() string {
	switch m {
	case KeyWrapKWP:
		return "CKM_AES_KEY_WRAP_KWP"
	case KeyWrapPad:
		return "CKM_AES_KEY_WRAP_PAD"
	}
	return fmt.Sprintf("CKM_0x%08X", uint(m))
}

func (m KeyWrap) check() error {
	if !slices.Contains(keyWraps, m) {
		return fmt.Errorf("%w: wrapped by %v", ErrUnsupported, m)
	}
	return nil
}

// KeyWrappingKey is an AES-256 key in the token that wraps private keys for ECDH. Those are
// nowhere else than in the token and in what it wraps. It may be used by several goroutines at
// once. Its handle is kept.
type KeyWrappingKey struct{ aesKey }

// GenerateKeyWrappingKey generates an AES-256 key in the token (CKM_AES_KEY_GEN) that is
// sensitive, not extractable, and able to wrap and unwrap and nothing else: one that could also
// decrypt would open what it wrapped. A nil id is 16 random bytes. If a key has the id, it fails
// with ErrKeyExists.
func (t *Token) GenerateKeyWrappingKey(ctx context.Context, id []byte, label string) (*KeyWrappingKey, error) {
	k := &KeyWrappingKey{aesKey: aesKey{token: t, id: idOrRandom(id), label: label}}
	if err := k.generate(ctx, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP); err != nil {
		return nil, fmt.Errorf("generate key-wrapping key: %w", err)
	}
	return k, nil
}

// FindKeyWrappingKey finds the AES-256 key of that CKA_ID. It fails with ErrNotFound if there is
// none and ErrAmbiguousKey if there are several. It fails with ErrUnsupported for another key
// length, and for a key that may encrypt or decrypt: whoever may use it could open what it wraps.
func (t *Token) FindKeyWrappingKey(ctx context.Context, id []byte) (*KeyWrappingKey, error) {
	k := &KeyWrappingKey{aesKey: aesKey{token: t, id: bytes.Clone(id)}}
	if err := run(ctx, t, k.find); err != nil {
		return nil, fmt.Errorf("find key-wrapping key %x: %w", id, err)
	}
	return k, nil
}

func (k *KeyWrappingKey) find(s session) error {
	if err := k.aesKey.find(s); err != nil {
		return err
	}
	h, err := k.in(s)
	if err != nil {
		return err
	}
	encrypt, errEncrypt := s.Flag(h, pkcs11.CKA_ENCRYPT)
	decrypt, errDecrypt := s.Flag(h, pkcs11.CKA_DECRYPT)
	if err := errors.Join(errEncrypt, errDecrypt); err != nil {
		return err
	}
	faults := Broken(AttributeRule{"CKA_ENCRYPT", encrypt, false, false}, AttributeRule{"CKA_DECRYPT", decrypt, false, false})
	if len(faults) > 0 {
		return fmt.Errorf("%w: %s, and so it does not only wrap", ErrUnsupported, faults[0])
	}
	return nil
}

// DestroyKeyWrappingKey destroys the key in the token (C_DestroyObject): nothing
// that it wrapped can be used any more. It cannot be undone.
func (t *Token) DestroyKeyWrappingKey(ctx context.Context, k *KeyWrappingKey) error {
	if err := k.destroy(ctx); err != nil {
		return fmt.Errorf("destroy key-wrapping key %x: %w", k.id, err)
	}
	return nil
}

// GenerateWrapped generates an EC key pair on c, which is P-256, P-384 or P-521, as session
// objects (C_GenerateKeyPair), wraps the private half (C_WrapKey), destroys both objects, and
// returns the public key and the wrapped private key. The length of that depends on the token:
// some 80 to 160 bytes. It contains no public key that could be relied on: keep that beside it,
// and see Fits.
//
// It fails with ErrUnsupported for another curve or mechanism, and otherwise with the token's
// error.
func (k *KeyWrappingKey) GenerateWrapped(ctx context.Context, m KeyWrap, c Curve) (public *ecdh.PublicKey, wrapped []byte, err error) {
	var pair wrappedPair
	err = errors.Join(m.check(), requireAgreement(c))
	if err == nil {
		pair, err = do(ctx, k.token, func(s session) (wrappedPair, error) {
			h, err := k.in(s)
			if err != nil {
				return wrappedPair{}, err
			}
			return s.generateWrapped(m, h, c)
		})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("generate %v key wrapped under %x: %w", c, k.id, err)
	}
	k.witness(m, pair)
	return pair.public, pair.wrapped, nil
}

// wrappedPair is a key pair whose private half is wrapped.
type wrappedPair struct {
	public  *ecdh.PublicKey
	wrapped []byte
}

// witness keeps the first private key that was wrapped under the key as its proof: it does not
// unwrap under another key.
func (k *KeyWrappingKey) witness(m KeyWrap, pair wrappedPair) {
	k.prove(func() proof {
		wrapped := bytes.Clone(pair.wrapped)
		return func(s session, key pkcs11.ObjectHandle) error {
			return s.withUnwrapped(m, key, wrapped, s.unwrapTemplate(pair.public, false), func(pkcs11.ObjectHandle) error { return nil })
		}
	})
}

// requireAgreement fails with ErrUnsupported if there is no ECDH on the curve.
func requireAgreement(c Curve) error {
	if p := c.params(); p == nil || p.exchange == nil {
		return fmt.Errorf("%w: ECDH on %v", ErrUnsupported, c)
	}
	return nil
}

func (s session) generateWrapped(m KeyWrap, wrapping pkcs11.ObjectHandle, c Curve) (pair wrappedPair, err error) {
	err = s.withAgreementKey(c, func(p *ecdh.PublicKey, private pkcs11.ObjectHandle) error {
		pair.public = p
		pair.wrapped, err = s.wrap(m, wrapping, private)
		return err
	})
	return pair, err
}

func (s session) wrap(m KeyWrap, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	wrapped, err := s.WrapKey(m.number(s), wrapping, key)
	if err != nil {
		return nil, err
	}
	if len(wrapped) == 0 {
		return nil, errors.New("wrapped key is empty")
	}
	return wrapped, nil
}

// Unwrap unwraps a private key (C_UnwrapKey) as a session object that is sensitive, not
// extractable, and able to derive and nothing else, calls f with a key exchanger over it, and
// destroys the object, also if f panics. public is the key's public half, which is not checked:
// see Fits.
//
// The exchanger derives by CKM_ECDH1_DERIVE, refuses peers on another curve, and works during the
// call of f; afterwards it returns errors. Its caller clears the secrets that it returns. Session
// objects end with their session, so one session is held throughout, and with it one of the
// operations that may run at once: if f asks the same Token for another operation, it may wait
// forever. f is called again if the token was gone and is found again.
//
// Unwrap fails with ErrDecrypt if the wrapped key is damaged or was wrapped under another key,
// with ErrUnsupported for a mechanism or curve that is not used here, with the error of f, and
// otherwise with the token's error, also if f ignored one of the exchanger.
func (k *KeyWrappingKey) Unwrap(ctx context.Context, m KeyWrap, public *ecdh.PublicKey, wrapped []byte, f func(ecdh.KeyExchanger) error) error {
	_, err := use(ctx, k, m, wrappedPair{public, wrapped}, false, func(s session, private pkcs11.ObjectHandle) (none, error) {
		x := &exchanger{public: public, session: s, private: private}
		defer x.release() // also if f panics
		if err := f(x); err != nil {
			return none{}, err
		}
		return none{}, x.release()
	})
	return err
}

// Fits unwraps a private key as Unwrap does and agrees on a secret with a temporary key in
// software. It fails with ErrKeyMismatch if public is not its public key, and otherwise as Unwrap
// does.
func (k *KeyWrappingKey) Fits(ctx context.Context, m KeyWrap, public *ecdh.PublicKey, wrapped []byte) error {
	_, err := use(ctx, k, m, wrappedPair{public, wrapped}, false, func(s session, private pkcs11.ObjectHandle) (none, error) {
		return none{}, s.fits(private, public)
	})
	return err
}

// Rewrap wraps a wrapped private key under another key of the same Token. The key does not leave
// the token: it is unwrapped as a session object that is sensitive but extractable, wrapped, and
// destroyed. wrapped stays good under k. Rewrap fails as Unwrap does.
func (k *KeyWrappingKey) Rewrap(ctx context.Context, m KeyWrap, public *ecdh.PublicKey, wrapped []byte, to *KeyWrappingKey, toM KeyWrap) ([]byte, error) {
	if to.token != k.token {
		return nil, fmt.Errorf("rewrap key under %x: %w: key of another token", to.id, ErrUnsupported)
	}
	if err := toM.check(); err != nil {
		return nil, fmt.Errorf("rewrap key under %x: %w", to.id, err)
	}
	return use(ctx, k, m, wrappedPair{public, wrapped}, true, func(s session, private pkcs11.ObjectHandle) ([]byte, error) {
		wrapping, err := to.in(s)
		if err != nil {
			return nil, err
		}
		return s.wrap(toM, wrapping, private)
	})
}

// use calls f with the unwrapped private key.
func use[T any](ctx context.Context, k *KeyWrappingKey, m KeyWrap, pair wrappedPair, extractable bool, f func(session, pkcs11.ObjectHandle) (T, error)) (T, error) {
	var v T
	_, err := curveOfECDH(pair.public)
	if err = errors.Join(m.check(), err); err == nil {
		v, err = do(ctx, k.token, func(s session) (v T, err error) {
			h, err := k.in(s)
			if err != nil {
				return v, err
			}
			err = s.withUnwrapped(m, h, pair.wrapped, s.unwrapTemplate(pair.public, extractable), func(private pkcs11.ObjectHandle) error {
				v, err = f(s, private)
				return err
			})
			return v, err
		})
	}
	if err != nil {
		var zero T
		return zero, fmt.Errorf("use key wrapped under %x: %w", k.id, err)
	}
	k.witness(m, pair)
	return v, nil
}

// number is the number of the mechanism in the session's module.
func (m KeyWrap) number(s session) uint {
	if own := s.Quirks().KWP; m == KeyWrapKWP && own != 0 {
		return own
	}
	return uint(m)
}

// unwrapTemplate is that of C_UnwrapKey. By the standard the curve comes out of the wrapped key,
// and there is no CKA_EC_PARAMS here (PKCS#11, EC private key objects). NSS wants the public
// point, which other tokens refuse.
func (s session) unwrapTemplate(public *ecdh.PublicKey, extractable bool) []*pkcs11.Attribute {
	template := agreementTemplate(extractable)
	if s.Quirks().UnwrapPoint {
		template = append(template, attr(ckaNSSDB, public.Bytes()))
	}
	return template
}

// withUnwrapped calls f with an unwrapped key, and destroys that, also if f panics.
func (s session) withUnwrapped(m KeyWrap, wrapping pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute, f func(pkcs11.ObjectHandle) error) (err error) {
	key, err := s.unwrap(m, wrapping, wrapped, template)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Destroy(key)) }()
	return f(key)
}

func (s session) unwrap(m KeyWrap, wrapping pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if len(wrapped) == 0 { // miekg/pkcs11 takes the address of the first byte
		return 0, fmt.Errorf("%w: wrapped key is empty", ErrDecrypt)
	}
	key, err := s.UnwrapKey(m.number(s), wrapping, wrapped, template)
	if engine.FailedWith(err, badWrappedKey...) {
		return 0, fmt.Errorf("%w: %w", ErrDecrypt, err)
	}
	return key, err
}

// badWrappedKey is what tokens return for a wrapped key that is damaged or was wrapped under
// another key.
var badWrappedKey = append([]RV{engine.CKR_WRAPPED_KEY_INVALID, engine.CKR_WRAPPED_KEY_LEN_RANGE}, badCiphertext...)

// ProbeKeyWrap finds the mechanism by which the token keeps private keys on c, the better one
// first. It generates, wraps, unwraps and uses a key with session objects: nothing is left in the
// token. The error says for each mechanism what failed, and wraps ErrUnsupported for a curve
// other than P-256, P-384 and P-521.
func (t *Token) ProbeKeyWrap(ctx context.Context, c Curve) (KeyWrap, error) {
	if err := requireAgreement(c); err != nil {
		return 0, fmt.Errorf("probe key wrap: %w", err)
	}
	var faults error
	for _, m := range keyWraps {
		_, err := t.probe(ctx, probe{try: func(s session) error { return s.probeWrap(c, m) }})
		if err == nil {
			return m, nil
		}
		if errors.Is(err, ErrClosed) || ctx.Err() != nil {
			return 0, fmt.Errorf("probe key wrap: %w", err)
		}
		if err = fmt.Errorf("%v: %w", m, err); faults != nil {
			err = fmt.Errorf("%w; %w", faults, err)
		}
		faults = err
	}
	return 0, fmt.Errorf("probe key wrap on %v: %w", c, faults)
}
