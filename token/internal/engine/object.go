package engine

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// attr is short for an attribute of a template.
func attr(t uint, value any) *pkcs11.Attribute { return pkcs11.NewAttribute(t, value) }

// Find returns the objects that match. If it finds none, there is none.
func (s *Session) Find(template ...*pkcs11.Attribute) ([]pkcs11.ObjectHandle, error) {
	found, err := s.Search(template)
	if err == nil && len(found) == 0 {
		err = s.RequireAbsent()
	}
	return found, err
}

// RequireAbsent fails if a search may have missed something. A session without the login does not
// see private objects, so the session must have the login now, and no login may have been made
// since the operation began.
func (s *Session) RequireAbsent() error {
	if err := s.RequireLogin(); err != nil {
		return err
	}
	if s.user && s.link != nil {
		if n := s.link.engine.module.logging.Load(); n != s.logins || n%2 != 0 { // it was lost, and made again
			return errLoginMoved
		}
	}
	return nil
}

// Making keeps searches of this process away until end is called.
func (s *Session) Making() (end func()) {
	m := s.link.engine.module
	m.turns.enter(making)
	return func() { m.turns.leave(making) }
}

// Search returns the objects that match. Without the login it misses private objects: see Find.
func (s *Session) Search(template []*pkcs11.Attribute) (found []pkcs11.ObjectHandle, err error) {
	if s.link != nil {
		s.link.engine.module.turns.enter(searching)
		defer s.link.engine.module.turns.leave(searching)
	}
	if err := s.api.FindObjectsInit(s.handle, template); err != nil {
		return nil, callError("C_FindObjectsInit", err)
	}
	defer func() {
		err = errors.Join(err, callError("C_FindObjectsFinal", s.api.FindObjectsFinal(s.handle)))
	}()
	for {
		s.beat()
		more, _, err := s.api.FindObjects(s.handle, 64)
		if err != nil {
			return nil, callError("C_FindObjects", err)
		}
		if len(more) == 0 {
			return found, nil
		}
		found = append(found, more...)
	}
}

// FindOne returns the only object that matches. It fails with ErrNotFound or ErrAmbiguousKey if
// there is none or more than one.
func (s *Session) FindOne(template ...*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	found, err := s.Find(template...)
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, ErrNotFound
	case len(found) > 1:
		return 0, fmt.Errorf("%w: %d do", ErrAmbiguousKey, len(found))
	}
	return found[0], nil
}

// Attribute reads one attribute. It returns nil if the object does not have it or does not show
// it. SoftHSM returns CKR_ATTRIBUTE_VALUE_INVALID for any attribute of an object that it was
// killed in the making of.
func (s *Session) Attribute(o pkcs11.ObjectHandle, t uint) ([]byte, error) {
	s.beat()
	value, err := s.readAttribute(o, t)
	if FailedWith(err, CKR_ATTRIBUTE_TYPE_INVALID, CKR_ATTRIBUTE_SENSITIVE, CKR_ATTRIBUTE_VALUE_INVALID) {
		return nil, nil
	}
	return value, err
}

// Flag reads a CK_BBOOL attribute. It returns nil if the object does not have it, or the token's
// answer means nothing.
func (s *Session) Flag(o pkcs11.ObjectHandle, t uint) (*bool, error) {
	v, err := s.Attribute(o, t)
	if err != nil {
		return nil, err
	}
	return s.FlagOf(Values{t: v}, t), nil
}

// FlagOf is Flag of what was read already.
func (s *Session) FlagOf(v Values, t uint) *bool {
	if len(v[t]) != 1 || t == pkcs11.CKA_LOCAL && s.Quirks().LocalUntold {
		return nil
	}
	set := v[t][0] != 0
	return &set
}

// Number reads a CK_ULONG attribute; false means that the object does not have it.
func (s *Session) Number(o pkcs11.ObjectHandle, t uint) (uint, bool, error) {
	v, err := s.Attribute(o, t)
	if err != nil {
		return 0, false, err
	}
	n, ok := nativeUint(v)
	return n, ok, nil
}
