package engine

import (
	"sync/atomic"

	"github.com/miekg/pkcs11"
)

// Cryptoki lists the calls of the module that are used here. *pkcs11.Ctx is the real one; tests
// count calls and break them.
type Cryptoki interface {
	Initialize(...pkcs11.InitializeOption) error
	Finalize() error
	GetInfo() (pkcs11.Info, error)
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	GetMechanismInfo(slot uint, m []*pkcs11.Mechanism) (pkcs11.MechanismInfo, error)
	InitToken(slot uint, pin, label string) error
	InitPIN(s pkcs11.SessionHandle, pin string) error
	OpenSession(slot uint, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(s pkcs11.SessionHandle) error
	GetSessionInfo(s pkcs11.SessionHandle) (pkcs11.SessionInfo, error)
	Login(s pkcs11.SessionHandle, user uint, pin string) error
	Logout(s pkcs11.SessionHandle) error
	CopyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	DestroyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error
	GetAttributeValue(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, a []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	FindObjectsInit(s pkcs11.SessionHandle, template []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, max int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(s pkcs11.SessionHandle) error
	EncryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) error
	Encrypt(s pkcs11.SessionHandle, message []byte) ([]byte, error)
	DecryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) error
	Decrypt(s pkcs11.SessionHandle, ciphertext []byte) ([]byte, error)
	SignInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) error
	Sign(s pkcs11.SessionHandle, message []byte) ([]byte, error)
	GenerateKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error)
	WrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error)
	UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	DeriveKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, base pkcs11.ObjectHandle, template []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	GenerateRandom(s pkcs11.SessionHandle, length int) ([]byte, error)
}

var _ Cryptoki = (*pkcs11.Ctx)(nil)

// Session is one open session. Two goroutines must not use it at once: modules keep the state of
// an operation in it, and SoftHSM crashes.
type Session struct {
	api    Cryptoki
	one    oneCalls // nil: operations go through api
	link   *link    // nil: the security officer's
	handle pkcs11.SessionHandle
	user   bool           // the user should be logged in
	epoch  uint64         // of the handles that it may use
	pulse  *atomic.Uint64 // beats during what takes many calls
	logins uint64         // module.logging at the beginning of the operation
	copies copies
}

// openSession opens a session for reading and writing: some tokens know no other.
func openSession(api Cryptoki, slot uint, user bool) (*Session, error) {
	h, err := api.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return nil, callError("C_OpenSession", err)
	}
	return &Session{api: api, handle: h, user: user}, nil
}

// Close closes the session (C_CloseSession).
func (s *Session) Close() error {
	return callError("C_CloseSession", s.api.CloseSession(s.handle))
}

// Quirks are those of the session's module.
func (s *Session) Quirks() Quirks {
	if s.link == nil {
		return Quirks{}
	}
	return s.link.engine.cfg.Quirks
}

// Epoch is the epoch of the handles that the session may use.
func (s *Session) Epoch() uint64 { return s.epoch }

// Another opens a session beside s, on the same link and as part of the same operation. The
// caller closes it.
func (s *Session) Another() (*Session, error) {
	own, err := s.link.openSession()
	if err != nil {
		return nil, err
	}
	own.pulse, own.logins = s.pulse, s.logins
	return own, nil
}

// beat reports that the module answered: reading thousands of objects may take long.
func (s *Session) beat() {
	if s.pulse != nil {
		s.pulse.Add(1)
	}
}

// RequireLogin fails with CKR_USER_NOT_LOGGED_IN if the user's login is gone.
func (s *Session) RequireLogin() error {
	if !s.user {
		return nil // the token needs no login
	}
	return s.RequireAlive()
}

// RequireAlive fails if the session is gone, or its login if it needs one.
func (s *Session) RequireAlive() error {
	info, err := s.api.GetSessionInfo(s.handle)
	if err != nil {
		return callError("C_GetSessionInfo", err)
	}
	if s.user && info.State != pkcs11.CKS_RW_USER_FUNCTIONS && info.State != pkcs11.CKS_RO_USER_FUNCTIONS {
		return &Error{Func: "C_GetSessionInfo", RV: CKR_USER_NOT_LOGGED_IN}
	}
	return nil
}
