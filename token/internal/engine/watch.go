package engine

import (
	"errors"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/onecall"
)

// Call is a call into the module that has returned. Package token documents the fields.
type Call struct {
	Func string
	RV   RV // what it returned; 0 is CKR_OK
	Took time.Duration
}

// watched reports the calls that sessions make. Calls before there is a session, to load the
// module and to choose the token, are not reported. Without a watcher it is not used.
type watched struct {
	Cryptoki
	tell func(Call)
}

// ended reports a call that began at begun and ended with *err. It is for defer.
func (w watched) ended(fn string, begun time.Time, err *error) {
	tellOf(w.tell, fn, begun, callError(fn, *err))
}

func tellOf(tell func(Call), fn string, begun time.Time, err error) {
	c := Call{Func: fn, Took: time.Since(begun)}
	if err != nil {
		c.RV = CKR_GENERAL_ERROR // the error of a library in between, without a number
	}
	if failed, ok := errors.AsType[*Error](err); ok {
		c.Func, c.RV = failed.Func, failed.RV
	}
	tell(c)
}

func (w watched) OpenSession(slot uint, flags uint) (h pkcs11.SessionHandle, err error) {
	defer w.ended("C_OpenSession", time.Now(), &err)
	return w.Cryptoki.OpenSession(slot, flags)
}

func (w watched) CloseSession(s pkcs11.SessionHandle) (err error) {
	defer w.ended("C_CloseSession", time.Now(), &err)
	return w.Cryptoki.CloseSession(s)
}

func (w watched) GetSessionInfo(s pkcs11.SessionHandle) (i pkcs11.SessionInfo, err error) {
	defer w.ended("C_GetSessionInfo", time.Now(), &err)
	return w.Cryptoki.GetSessionInfo(s)
}

func (w watched) Login(s pkcs11.SessionHandle, user uint, pin string) (err error) {
	defer w.ended("C_Login", time.Now(), &err)
	return w.Cryptoki.Login(s, user, pin)
}

func (w watched) Logout(s pkcs11.SessionHandle) (err error) {
	defer w.ended("C_Logout", time.Now(), &err)
	return w.Cryptoki.Logout(s)
}

func (w watched) CopyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, template []*pkcs11.Attribute) (c pkcs11.ObjectHandle, err error) {
	defer w.ended("C_CopyObject", time.Now(), &err)
	return w.Cryptoki.CopyObject(s, o, template)
}

func (w watched) DestroyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) (err error) {
	defer w.ended("C_DestroyObject", time.Now(), &err)
	return w.Cryptoki.DestroyObject(s, o)
}

func (w watched) GetAttributeValue(s pkcs11.SessionHandle, o pkcs11.ObjectHandle, a []*pkcs11.Attribute) (v []*pkcs11.Attribute, err error) {
	defer w.ended("C_GetAttributeValue", time.Now(), &err)
	return w.Cryptoki.GetAttributeValue(s, o, a)
}

func (w watched) FindObjectsInit(s pkcs11.SessionHandle, template []*pkcs11.Attribute) (err error) {
	defer w.ended("C_FindObjectsInit", time.Now(), &err)
	return w.Cryptoki.FindObjectsInit(s, template)
}

func (w watched) FindObjects(s pkcs11.SessionHandle, most int) (o []pkcs11.ObjectHandle, more bool, err error) {
	defer w.ended("C_FindObjects", time.Now(), &err)
	return w.Cryptoki.FindObjects(s, most)
}

func (w watched) FindObjectsFinal(s pkcs11.SessionHandle) (err error) {
	defer w.ended("C_FindObjectsFinal", time.Now(), &err)
	return w.Cryptoki.FindObjectsFinal(s)
}

func (w watched) EncryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) (err error) {
	defer w.ended("C_EncryptInit", time.Now(), &err)
	return w.Cryptoki.EncryptInit(s, m, key)
}

func (w watched) Encrypt(s pkcs11.SessionHandle, message []byte) (c []byte, err error) {
	defer w.ended("C_Encrypt", time.Now(), &err)
	return w.Cryptoki.Encrypt(s, message)
}

func (w watched) DecryptInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) (err error) {
	defer w.ended("C_DecryptInit", time.Now(), &err)
	return w.Cryptoki.DecryptInit(s, m, key)
}

func (w watched) Decrypt(s pkcs11.SessionHandle, ciphertext []byte) (p []byte, err error) {
	defer w.ended("C_Decrypt", time.Now(), &err)
	return w.Cryptoki.Decrypt(s, ciphertext)
}

func (w watched) SignInit(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, key pkcs11.ObjectHandle) (err error) {
	defer w.ended("C_SignInit", time.Now(), &err)
	return w.Cryptoki.SignInit(s, m, key)
}

func (w watched) Sign(s pkcs11.SessionHandle, message []byte) (sig []byte, err error) {
	defer w.ended("C_Sign", time.Now(), &err)
	return w.Cryptoki.Sign(s, message)
}

func (w watched) GenerateKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, template []*pkcs11.Attribute) (k pkcs11.ObjectHandle, err error) {
	defer w.ended("C_GenerateKey", time.Now(), &err)
	return w.Cryptoki.GenerateKey(s, m, template)
}

func (w watched) GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (verify, sign pkcs11.ObjectHandle, err error) {
	defer w.ended("C_GenerateKeyPair", time.Now(), &err)
	return w.Cryptoki.GenerateKeyPair(s, m, public, private)
}

func (w watched) WrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) (b []byte, err error) {
	defer w.ended("C_WrapKey", time.Now(), &err)
	return w.Cryptoki.WrapKey(s, m, wrapping, key)
}

func (w watched) UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping pkcs11.ObjectHandle, wrapped []byte, template []*pkcs11.Attribute) (k pkcs11.ObjectHandle, err error) {
	defer w.ended("C_UnwrapKey", time.Now(), &err)
	return w.Cryptoki.UnwrapKey(s, m, wrapping, wrapped, template)
}

func (w watched) DeriveKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, base pkcs11.ObjectHandle, template []*pkcs11.Attribute) (k pkcs11.ObjectHandle, err error) {
	defer w.ended("C_DeriveKey", time.Now(), &err)
	return w.Cryptoki.DeriveKey(s, m, base, template)
}

func (w watched) GenerateRandom(s pkcs11.SessionHandle, length int) (b []byte, err error) {
	defer w.ended("C_GenerateRandom", time.Now(), &err)
	return w.Cryptoki.GenerateRandom(s, length)
}

// watchedOne is watched for whole operations.
type watchedOne struct {
	oneCalls
	tell func(Call)
}

func (w watchedOne) ended(fn string, begun time.Time, err *error) {
	tellOf(w.tell, fn, begun, oneError(*err))
}

func (w watchedOne) Sign(session, mechanism uint, parameter []byte, key uint, in, out []byte) (sig []byte, err error) {
	defer w.ended("C_Sign", time.Now(), &err)
	return w.oneCalls.Sign(session, mechanism, parameter, key, in, out)
}

func (w watchedOne) EncryptGCM(session, key uint, g onecall.GCM, in, out []byte) (c []byte, err error) {
	defer w.ended("C_Encrypt", time.Now(), &err)
	return w.oneCalls.EncryptGCM(session, key, g, in, out)
}

func (w watchedOne) DecryptGCM(session, key uint, g onecall.GCM, in, out []byte) (p []byte, err error) {
	defer w.ended("C_Decrypt", time.Now(), &err)
	return w.oneCalls.DecryptGCM(session, key, g, in, out)
}

func (w watchedOne) DecryptOAEP(session, key uint, o onecall.OAEP, in, out []byte) (p []byte, err error) {
	defer w.ended("C_Decrypt", time.Now(), &err)
	return w.oneCalls.DecryptOAEP(session, key, o, in, out)
}

func (w watchedOne) Wrap(session, mechanism, wrapping, key uint, out []byte) (b []byte, err error) {
	defer w.ended("C_WrapKey", time.Now(), &err)
	return w.oneCalls.Wrap(session, mechanism, wrapping, key, out)
}

func (w watchedOne) Attribute(session, object, attribute uint, out []byte) (b []byte, err error) {
	defer w.ended("C_GetAttributeValue", time.Now(), &err)
	return w.oneCalls.Attribute(session, object, attribute, out)
}

func (w watchedOne) Attributes(session, object uint, types, lens []uint) (b []byte, err error) {
	defer w.ended("C_GetAttributeValue", time.Now(), &err)
	return w.oneCalls.Attributes(session, object, types, lens)
}
