package engine

import "github.com/miekg/pkcs11"

// These are calls of miekg/pkcs11 in the session, whose errors are *Error.

// Random is C_GenerateRandom.
func (s *Session) Random(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	r, err := s.api.GenerateRandom(s.handle, n)
	return r, callError("C_GenerateRandom", err)
}

// MechanismInfo is C_GetMechanismInfo of the token's slot.
func (s *Session) MechanismInfo(mech uint) (pkcs11.MechanismInfo, error) {
	info, err := s.api.GetMechanismInfo(s.link.info.Slot, mechanism(mech, nil))
	return info, callError("C_GetMechanismInfo", err)
}

// GenerateKey is C_GenerateKey by a mechanism without parameter.
func (s *Session) GenerateKey(mech uint, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	h, err := s.api.GenerateKey(s.handle, mechanism(mech, nil), template)
	return h, callError("C_GenerateKey", err)
}

// GenerateKeyPair is C_GenerateKeyPair by a mechanism without parameter.
func (s *Session) GenerateKeyPair(mech uint, publicTemplate, privateTemplate []*pkcs11.Attribute) (public, private pkcs11.ObjectHandle, err error) {
	public, private, err = s.api.GenerateKeyPair(s.handle, mechanism(mech, nil), publicTemplate, privateTemplate)
	return public, private, callError("C_GenerateKeyPair", err)
}

// UnwrapKey is C_UnwrapKey by a mechanism without parameter. wrapped is not empty.
func (s *Session) UnwrapKey(mech uint, wrapping pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	h, err := s.api.UnwrapKey(s.handle, mechanism(mech, nil), wrapping, wrapped, template)
	return h, callError("C_UnwrapKey", err)
}

// DeriveECDH is C_DeriveKey by CKM_ECDH1_DERIVE with CKD_NULL, with the peer's point,
// uncompressed.
func (s *Session) DeriveECDH(base pkcs11.ObjectHandle, point []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	params := pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, point)
	h, err := s.api.DeriveKey(s.handle, mechanism(pkcs11.CKM_ECDH1_DERIVE, params), base, template)
	return h, callError("C_DeriveKey", err)
}

// Destroy is C_DestroyObject.
func (s *Session) Destroy(o pkcs11.ObjectHandle) error {
	return callError("C_DestroyObject", s.api.DestroyObject(s.handle, o))
}
