package token

import (
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// object is an object of the token and what was read of it.
type object struct {
	handle pkcs11.ObjectHandle // 0: there is none
	values engine.Values
}

// pair is a key pair in the token. The public half may be missing.
type pair struct{ private, public object }

// What is read of the halves of a key pair, and of an object that may be either.
var (
	privateAttributes = append([]uint{pkcs11.CKA_CLASS, pkcs11.CKA_ID, pkcs11.CKA_LABEL, pkcs11.CKA_KEY_TYPE, pkcs11.CKA_EC_PARAMS}, privateFlags...)
	publicAttributes  = []uint{pkcs11.CKA_CLASS, pkcs11.CKA_ID, pkcs11.CKA_EC_PARAMS, pkcs11.CKA_EC_POINT}
	halfAttributes    = append(privateAttributes[:len(privateAttributes):len(privateAttributes)], pkcs11.CKA_EC_POINT)
)

func (s session) readObject(handle pkcs11.ObjectHandle, types []uint) (object, error) {
	v, err := s.Read(handle, types...)
	return object{handle, v}, err
}

// readPair reads both halves of a key pair.
func (s session) readPair(private, public pkcs11.ObjectHandle) (p pair, err error) {
	if p.private, err = s.readObject(private, privateAttributes); err == nil {
		p.public, err = s.readObject(public, publicAttributes)
	}
	return p, err
}

// readHalf reads an object that is one half of a key pair or the other, in one call if the module
// reads several attributes at once. Of any other object it reads the class.
func (s session) readHalf(handle pkcs11.ObjectHandle) (object, error) {
	v := s.ReadAtOnce(handle, halfAttributes)
	if err := s.Complete(handle, v, pkcs11.CKA_CLASS); err != nil {
		return object{}, err
	}
	var err error
	switch classOf(v) {
	case ClassPrivateKey:
		err = s.Complete(handle, v, privateAttributes...)
	case ClassPublicKey:
		err = s.Complete(handle, v, publicAttributes...)
	}
	return object{handle, v}, err
}

// findPair finds the one key pair that fits. If the query has an ID, it finds both halves in one
// search: they have the ID in common, which is how PKCS#11 pairs them.
func (s session) findPair(q KeyQuery) (pair, error) {
	if len(q.ID) == 0 {
		private, err := s.FindOne(attr(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_LABEL, q.Label))
		if err != nil {
			return pair{}, err
		}
		if q.ID, err = s.Attribute(private, pkcs11.CKA_ID); err != nil {
			return pair{}, err
		}
		if len(q.ID) == 0 {
			return pair{}, fmt.Errorf("%w: private key without CKA_ID", ErrUnsupported)
		}
	}
	found, err := s.Search([]*pkcs11.Attribute{attr(pkcs11.CKA_TOKEN, true), attr(pkcs11.CKA_ID, q.ID)})
	if err != nil {
		return pair{}, err
	}
	return s.pairOf(q, found)
}

// pairOf reads the one key pair that fits among the objects of an ID.
func (s session) pairOf(q KeyQuery, found []pkcs11.ObjectHandle) (pair, error) {
	var private, public []object
	for _, handle := range found {
		o, err := s.readHalf(handle)
		if err != nil {
			return pair{}, err
		}
		switch {
		case classOf(o.values) == ClassPublicKey:
			public = append(public, o)
		case classOf(o.values) == ClassPrivateKey && (q.Label == "" || q.Label == string(o.values[pkcs11.CKA_LABEL])):
			private = append(private, o)
		}
	}
	switch {
	case len(private) == 0: // if the login is lost, the public half is found all the same
		if err := s.RequireAbsent(); err != nil {
			return pair{}, err
		}
		return pair{}, ErrNotFound
	case len(private) > 1:
		return pair{}, fmt.Errorf("%w: %d do", ErrAmbiguousKey, len(private))
	case len(public) == 0: // half a key must not look like none
		return pair{}, fmt.Errorf("%w: private key %x without a public one", ErrUnsupported, q.ID)
	case len(public) > 1:
		return pair{}, fmt.Errorf("public key of %x: %w: %d do", q.ID, ErrAmbiguousKey, len(public))
	}
	return pair{private[0], public[0]}, nil
}

// describe reads a private key and its public half.
func (s session) describe(private, public pkcs11.ObjectHandle) (KeyPairInfo, error) {
	p, err := s.readPair(private, public)
	if err != nil {
		return KeyPairInfo{}, err
	}
	return s.describePair(p)
}

// describePair describes a key pair by what was read of it.
func (s session) describePair(p pair) (info KeyPairInfo, err error) {
	private, public := p.private.values, p.public.values
	keyType, _ := private.Number(pkcs11.CKA_KEY_TYPE)
	ecParams := private[pkcs11.CKA_EC_PARAMS]
	if ecParams == nil { // some tokens have it only on the public half
		ecParams = public[pkcs11.CKA_EC_PARAMS]
	}
	info = KeyPairInfo{
		ID: private[pkcs11.CKA_ID], Label: string(private[pkcs11.CKA_LABEL]), KeyType: keyType, Curve: curveOf(keyType, ecParams),
		Attributes: s.keyAttributes(private),
	}
	if info.Curve == 0 || p.public.handle == 0 {
		return info, nil
	}
	info.Public, err = info.Curve.params().parsePoint(public[pkcs11.CKA_EC_POINT])
	return info, err
}
