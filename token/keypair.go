package token

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// KeyPairSpec says what signature key pair to generate.
type KeyPairSpec struct {
	Curve Curve
	ID    []byte // CKA_ID; nil: 16 random bytes
	Label string // CKA_LABEL
	// Fresh says that the caller drew ID at random, 16 bytes or more, for this key only: the
	// token is not searched for a key that has it already.
	Fresh bool
}

// KeyQuery finds a key pair by CKA_ID, CKA_LABEL or both. An empty field fits any key, but not
// both may be empty.
type KeyQuery struct {
	ID    []byte
	Label string
}

// KeyPairInfo describes a private key in the token, whoever made it.
type KeyPairInfo struct {
	ID         []byte           // CKA_ID
	Label      string           // CKA_LABEL
	KeyType    uint             // CKA_KEY_TYPE
	Curve      Curve            // 0: none that this package signs with
	Public     crypto.PublicKey // nil: no public key object, or several, or one that does not parse
	Attributes KeyAttributes
}

// GenerateKeyPair generates a signature key pair in the token (C_GenerateKeyPair): both halves
// stay there; the private one is sensitive, not extractable, and able to sign and nothing else.
// It fails with ErrKeyExists if a pair has the ID, unless spec.Fresh says that none can.
func (t *Token) GenerateKeyPair(ctx context.Context, spec KeyPairSpec) (*SigningKey, error) {
	if spec.Curve.params() == nil {
		return nil, fmt.Errorf("generate key pair: %w: %v", ErrUnsupported, spec.Curve)
	}
	spec.Fresh = spec.Fresh || len(spec.ID) == 0
	spec.ID = idOrRandom(spec.ID)
	k, err := do(ctx, t, func(s session) (*SigningKey, error) { return t.generateKeyPair(s, spec) })
	if err != nil {
		return nil, fmt.Errorf("generate %v key pair: %w", spec.Curve, err)
	}
	return k, nil
}

func idOrRandom(id []byte) []byte {
	if len(id) > 0 {
		return bytes.Clone(id)
	}
	id = make([]byte, 16)
	rand.Read(id) // never fails
	return id
}

func (t *Token) generateKeyPair(s session, spec KeyPairSpec) (*SigningKey, error) {
	if err := s.requireRoom(spec); err != nil {
		return nil, err
	}
	verify, private, err := s.makeKeyPair(spec)
	if err != nil {
		return nil, engine.Once(err)
	}
	k, err := t.loadKeyPair(s, private, verify)
	if err == nil && !bytes.Equal(k.id, spec.ID) {
		err = fmt.Errorf("token gave it CKA_ID %x", k.id)
	}
	if err != nil {
		// A key whose id nobody knows must not stay behind.
		return nil, engine.Once(errors.Join(err, s.Destroy(private), s.Destroy(verify)))
	}
	return k, nil
}

// requireRoom makes the calls that may be repeated, before the one that may not: a session that
// was lost overnight is noticed here.
//
// For a search some tokens look at every object that they have. A search for 128 random bits
// finds nothing. If the randomness was at fault, two keys have one ID, and that is noticed where
// it matters: a search for it fails (ErrAmbiguousKey), and what either signs is verified by the
// public key that was recorded.
func (s session) requireRoom(spec KeyPairSpec) error {
	if spec.Fresh && len(spec.ID) >= 16 {
		return s.RequireAlive()
	}
	return s.requireNew(pkcs11.CKO_PRIVATE_KEY, spec.ID)
}

func (s session) makeKeyPair(spec KeyPairSpec) (verify, private pkcs11.ObjectHandle, err error) {
	defer s.Making()()
	return s.generateOn(spec.Curve, keyPairTemplates(spec))
}

// requireNew fails with ErrKeyExists if an object of that class has the ID.
func (s session) requireNew(class uint, id []byte) error {
	found, err := s.Find(attr(pkcs11.CKA_CLASS, class), attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_ID, id))
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("%w: CKA_ID %x", ErrKeyExists, id)
	}
	return err
}

// templates are those of C_GenerateKeyPair, without CKA_EC_PARAMS.
type templates struct{ public, private []*pkcs11.Attribute }

// keyPairTemplates sets every attribute of the private half that matters, because defaults are
// the vendor's. It does not set what the public half may do: anybody may use it, and tpm2-pkcs11
// fails if it differs from what it has.
func keyPairTemplates(spec KeyPairSpec) templates {
	p := spec.Curve.params()
	return templates{
		public: []*pkcs11.Attribute{
			attr(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY),
			attr(pkcs11.CKA_KEY_TYPE, p.keyType),
			attr(pkcs11.CKA_TOKEN, true),
			attr(pkcs11.CKA_PRIVATE, false),
			attr(pkcs11.CKA_ID, spec.ID),
			attr(pkcs11.CKA_LABEL, spec.Label),
		},
		private: []*pkcs11.Attribute{
			attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY),
			attr(pkcs11.CKA_KEY_TYPE, p.keyType),
			attr(pkcs11.CKA_TOKEN, true),
			attr(pkcs11.CKA_PRIVATE, true),
			attr(pkcs11.CKA_SENSITIVE, true),
			attr(pkcs11.CKA_EXTRACTABLE, false),
			attr(pkcs11.CKA_SIGN, true),
			attr(pkcs11.CKA_DECRYPT, false),
			attr(pkcs11.CKA_UNWRAP, false),
			attr(pkcs11.CKA_DERIVE, false),
			attr(pkcs11.CKA_ID, spec.ID),
			attr(pkcs11.CKA_LABEL, spec.Label),
		},
	}
}

// generateOn generates a key pair on a curve. The curve has several names, and a token that knows
// only another one refuses the first. After any other error it does not try again: the key may
// have been made all the same.
func (s session) generateOn(c Curve, t templates) (public, private pkcs11.ObjectHandle, err error) {
	p := c.params()
	for _, name := range p.ecParams {
		withCurve := append(t.public[:len(t.public):len(t.public)], attr(pkcs11.CKA_EC_PARAMS, []byte(name)))
		public, private, err = s.GenerateKeyPair(p.generate, withCurve, t.private)
		if !engine.FailedWith(err, engine.CKR_ATTRIBUTE_VALUE_INVALID, engine.CKR_CURVE_NOT_SUPPORTED, engine.CKR_DOMAIN_PARAMS_INVALID) {
			break
		}
	}
	return public, private, err
}

// FindKeyPair finds the one signature key pair that fits. It fails with ErrNotFound if there is
// none, ErrAmbiguousKey if there are several, and ErrUnsupported for another kind of key.
func (t *Token) FindKeyPair(ctx context.Context, q KeyQuery) (*SigningKey, error) {
	k, err := do(ctx, t, func(s session) (*SigningKey, error) { return t.findKeyPair(s, q) })
	if err != nil {
		return nil, fmt.Errorf("find key pair %v: %w", q, err)
	}
	return k, nil
}

// String returns what is looked for, for messages.
func (q KeyQuery) String() string {
	switch {
	case len(q.ID) == 0:
		return fmt.Sprintf("labelled %q", q.Label)
	case q.Label == "":
		return fmt.Sprintf("%x", q.ID)
	}
	return fmt.Sprintf("%x labelled %q", q.ID, q.Label)
}

func (t *Token) findKeyPair(s session, q KeyQuery) (*SigningKey, error) {
	if len(q.ID) == 0 && q.Label == "" {
		return nil, errors.New("neither id nor label given")
	}
	p, err := t.index.find(s, q)
	if err != nil {
		return nil, err
	}
	return t.makeSigningKey(s, p)
}

// loadKeyPair makes a SigningKey of two objects.
func (t *Token) loadKeyPair(s session, private, verify pkcs11.ObjectHandle) (*SigningKey, error) {
	p, err := s.readPair(private, verify)
	if err != nil {
		return nil, err
	}
	return t.makeSigningKey(s, p)
}

func (t *Token) makeSigningKey(s session, p pair) (*SigningKey, error) {
	info, err := s.describePair(p)
	if err != nil {
		return nil, err
	}
	if info.Curve == 0 || info.Public == nil {
		return nil, fmt.Errorf("%w: key type 0x%X", ErrUnsupported, info.KeyType)
	}
	k := &SigningKey{token: t, curve: info.Curve, id: info.ID, label: info.Label, public: info.Public, found: info.Attributes}
	k.signing.Others = &t.copying[k.curve]
	_, err = k.place.In(s.Session, func() (engine.Handles, error) { return s.handlesOf(info, p.private.handle, p.public.handle) })
	if err != nil {
		return nil, err
	}
	return k, nil
}

// handlesOf returns the handles of a key pair.
func (s session) handlesOf(info KeyPairInfo, private, verify pkcs11.ObjectHandle) (h engine.Handles, err error) {
	h = engine.Handles{Key: private, Verify: verify}
	if s.UsesCrypto11() && !info.Curve.params().edwards() {
		h.EC, err = s.Crypto11Key(info.KeyType, info.ID)
	}
	return h, err
}

// in returns the handles of the key pair for a session.
func (k *SigningKey) in(s session) (engine.Handles, error) {
	return k.place.In(s.Session, func() (engine.Handles, error) {
		again, err := k.token.findKeyPair(s, KeyQuery{ID: k.id})
		switch {
		case err != nil:
			return engine.Handles{}, err
		case !again.public.(interface{ Equal(crypto.PublicKey) bool }).Equal(k.public):
			return engine.Handles{}, changed(k.id, errOtherPublic)
		}
		return again.in(s)
	})
}

// changed reports that another key has the ID, which ends the Token.
func changed(id []byte, why error) error {
	return fmt.Errorf("%w: CKA_ID %x: %w", ErrKeyChanged, id, why)
}

var errOtherPublic = errors.New("its public key is another one")

// KeyPairs describes every private key on the token, also those that this package does not sign
// with. It may take long if there are many.
func (t *Token) KeyPairs(ctx context.Context) ([]KeyPairInfo, error) {
	infos, err := do(ctx, t, session.keyPairs)
	if err != nil {
		return nil, fmt.Errorf("list key pairs: %w", err)
	}
	return infos, nil
}

// keyPairs searches twice, however many keys there are. A key that is half, double or of a
// foreign kind does not fail the list.
func (s session) keyPairs() ([]KeyPairInfo, error) {
	private, err := s.Find(attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), attr(pkcs11.CKA_TOKEN, true))
	if err != nil {
		return nil, err
	}
	public, err := s.Find(attr(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), attr(pkcs11.CKA_TOKEN, true))
	if err != nil {
		return nil, err
	}
	halves := make(map[string][]object)
	for _, handle := range public {
		o, err := s.readObject(handle, publicAttributes)
		if err != nil {
			return nil, err
		}
		id := string(o.values[pkcs11.CKA_ID])
		halves[id] = append(halves[id], o)
	}
	infos := make([]KeyPairInfo, 0, len(private))
	for _, handle := range private {
		o, err := s.readObject(handle, privateAttributes)
		if err != nil {
			return nil, err
		}
		p := pair{private: o}
		if of := halves[string(o.values[pkcs11.CKA_ID])]; len(of) == 1 && len(o.values[pkcs11.CKA_ID]) > 0 {
			p.public = of[0]
		}
		info, err := s.describePair(p)
		if _, failed := errors.AsType[*Error](err); failed {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// DestroyKeyPair destroys both halves in the token (C_DestroyObject), the private one first:
// without the public one it could not be found again. It cannot be undone; k is of no use
// afterwards.
func (t *Token) DestroyKeyPair(ctx context.Context, k *SigningKey) error {
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
	if err == nil {
		err = t.engine.RenewSessions()
	}
	if err != nil {
		return fmt.Errorf("destroy key pair %x: %w", k.id, err)
	}
	return nil
}
