package engine

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"
)

// login is the login of this process to the token in one slot.
type login struct {
	users int // links that rely on it
	pin   pinDigest
}

// pinDigest tells whether two PINs are the same without keeping them: an HMAC under a key that
// this process drew.
type pinDigest [sha256.Size]byte

var pinDigestKey = sync.OnceValue(func() []byte {
	key := make([]byte, sha256.Size)
	rand.Read(key) // never fails
	return key
})

func digestPIN(p PIN) (d pinDigest) {
	h := hmac.New(sha256.New, pinDigestKey())
	h.Write(p.Reveal())
	h.Sum(d[:0])
	return d
}

// Credentials are what a login is made with.
type Credentials struct {
	PIN      PIN      // empty: the token needs no login
	Refusals Refusals // or nil
	Force    bool     // sends the PIN even if the token is at risk of locking
}

// Refusals remember the PINs that tokens have refused: see Refusals of package token.
type Refusals interface {
	Refused(serial string, pin PIN) (bool, error)
	Remember(serial string, pin PIN) error
	Forget(serial string) error
}

// atRisk fails if sending the PIN might lock the token.
func (c Credentials) atRisk(info slotInfo) error {
	switch {
	case c.Force:
		return nil
	case info.UserPINFinalTry:
		return fmt.Errorf("%w: one more wrong PIN locks it", ErrPINAtRisk)
	case info.UserPINCountLow:
		return fmt.Errorf("%w: a wrong PIN was sent to it since the last right one", ErrPINAtRisk)
	}
	return nil
}

// refusedBefore reports whether the token is known to refuse the PIN.
func (c Credentials) refusedBefore(info slotInfo) (bool, error) {
	if c.Refusals == nil || c.Force {
		return false, nil
	}
	return c.Refusals.Refused(info.Serial, c.PIN)
}

// remember records whether the token took the PIN. If that fails, the login stays good, and the
// error of a refusal says so.
func (c Credentials) remember(info slotInfo, refused bool) error {
	switch {
	case c.Refusals == nil:
		return nil
	case refused:
		return c.Refusals.Remember(info.Serial, c.PIN)
	}
	return c.Refusals.Forget(info.Serial)
}

// login logs the user in through s, with one C_Login at most. The caller holds m.mu.
func (m *module) login(s *Session, info slotInfo, c Credentials) error {
	pin := c.PIN
	if len(pin.Reveal()) == 0 {
		return nil
	}
	digest := digestPIN(pin)
	if l := m.logins[info.Slot]; l != nil {
		// The token would accept any PIN now.
		if l.pin != digest {
			return &refusal{cause: &Error{Func: "C_Login", RV: CKR_PIN_INCORRECT}}
		}
		err := s.RequireLogin()
		if err == nil {
			l.users++
			return nil
		}
		if !FailedWith(err, CKR_USER_NOT_LOGGED_IN) {
			return err
		}
	}
	before, err := c.refusedBefore(info)
	if err != nil {
		return err
	}
	refused, ok := m.refused[info.Serial]
	if before || ok && refused == digest && !c.Force {
		return &refusal{cause: &Error{Func: "C_Login", RV: CKR_PIN_INCORRECT}, before: true}
	}
	if err := c.atRisk(info); err != nil {
		return err
	}
	m.logging.Add(1)
	err = s.login(pin)
	m.logging.Add(1)
	if FailedWith(err, CKR_PIN_INCORRECT) {
		m.refused[info.Serial] = digest
		return errors.Join(refuse(err), c.remember(info, true))
	}
	if err != nil {
		return refuse(err)
	}
	delete(m.refused, info.Serial)
	if m.logins[info.Slot] == nil {
		m.logins[info.Slot] = &login{pin: digest}
	}
	m.logins[info.Slot].users++
	_ = c.remember(info, false) // a record that stays refuses a PIN that was refused before, and is reported then
	return nil
}

// login sends the PIN. If the user is logged in already, though not by this package, the token
// would take any PIN: that login is ended first.
func (s *Session) login(pin PIN) error {
	err := callError("C_Login", s.api.Login(s.handle, pkcs11.CKU_USER, pin.text()))
	if !FailedWith(err, CKR_USER_ALREADY_LOGGED_IN) {
		return err
	}
	if err := s.api.Logout(s.handle); err != nil {
		return callError("C_Logout", err)
	}
	return callError("C_Login", s.api.Login(s.handle, pkcs11.CKU_USER, pin.text()))
}

// logout drops one use of the login. The token ends the login when the last session of the
// process closes; C_Logout would end it for other Engines.
func (m *module) logout(slot uint) {
	l := m.logins[slot]
	if l == nil {
		return
	}
	if l.users--; l.users == 0 {
		delete(m.logins, slot)
	}
}

// refusal is a login that the token refused because of the PIN.
type refusal struct {
	cause  *Error
	before bool // not tried: the token refused the same PIN before
}

// refusals are the return values that refuse a PIN, in words.
var refusals = map[RV]string{
	CKR_PIN_INCORRECT:            "PIN is incorrect",
	CKR_PIN_INVALID:              "PIN has characters that the token does not take",
	CKR_PIN_LEN_RANGE:            "PIN is too short or too long",
	CKR_PIN_EXPIRED:              "PIN has expired",
	CKR_PIN_LOCKED:               "PIN is locked",
	CKR_USER_PIN_NOT_INITIALIZED: "user PIN was never set",
}

// refuse makes a refusal of err if err refuses a PIN.
func refuse(err error) error {
	if call, ok := errors.AsType[*Error](err); ok && refusals[call.RV] != "" {
		return &refusal{cause: call}
	}
	return err
}

func (r *refusal) Error() string {
	if r.before {
		return fmt.Sprintf("%s (%s before; not tried again)", refusals[r.cause.RV], r.cause.RV.Name())
	}
	return fmt.Sprintf("%s (%s)", refusals[r.cause.RV], r.cause.RV.Name())
}

func (r *refusal) Is(target error) bool { return target == ErrPIN }
func (r *refusal) Unwrap() error        { return r.cause }
