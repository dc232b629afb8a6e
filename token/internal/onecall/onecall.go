//go:build unix

// Package onecall does what a key package needs of a token in as few calls as PKCS#11 allows: it
// begins an operation and does all of it in one crossing of cgo, into a buffer that is large
// enough, and so never asks for a length first. Behind a network HSM each call is a round trip,
// and miekg/pkcs11 makes three where two suffice.
//
// It is a second way into a library that is already loaded and initialized. It keeps no state:
// sessions, handles and mechanisms are the caller's.
package onecall

/*
#cgo linux LDFLAGS: -ldl
#include <stdlib.h>
#include "onecall.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// Library is a loaded PKCS#11 library. It may be used by several goroutines at once,
// each with a session of its own.
type Library struct {
	list    *C.struct_ck_list
	several bool
}

// Open loads the library at path, which must be the file that miekg/pkcs11 loaded: the loader
// then returns the same library, unless Several is true. It stays loaded.
func Open(path string) (*Library, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var fault *C.char
	var several C.int
	list := C.onecall_open(name, &fault, &several)
	if list == nil {
		if fault == nil {
			return nil, errors.New("load library")
		}
		return nil, fmt.Errorf("load library: %s", C.GoString(fault))
	}
	return &Library{list, several != 0}, nil
}

// Several reports whether the library gives each caller a state of its own, with its own sessions
// and login. Then this is no second way to what another caller initialized.
func (l *Library) Several() bool { return l.several }

// Failed is a call that failed.
type Failed struct {
	Func string // such as "C_SignInit"
	RV   uint   // CK_RV
}

// Error names the function and gives the return value as a number.
func (e *Failed) Error() string { return fmt.Sprintf("%s: CK_RV 0x%X", e.Func, e.RV) }

var names = map[C.int]string{
	C.FN_ENCRYPT_INIT: "C_EncryptInit", C.FN_ENCRYPT: "C_Encrypt",
	C.FN_DECRYPT_INIT: "C_DecryptInit", C.FN_DECRYPT: "C_Decrypt",
	C.FN_SIGN_INIT: "C_SignInit", C.FN_SIGN: "C_Sign", C.FN_WRAP_KEY: "C_WrapKey",
	C.FN_GET_ATTRIBUTE_VALUE: "C_GetAttributeValue",
}

// output returns what a call wrote into out, or its error.
func output(r C.struct_result, out []byte) ([]byte, error) {
	if r.rv != 0 {
		return nil, &Failed{Func: names[r.fn], RV: uint(r.rv)}
	}
	if uint64(r.n) > uint64(len(out)) {
		return nil, fmt.Errorf("%s: it says that it wrote %d bytes into %d", names[r.fn], uint64(r.n), len(out))
	}
	return out[:r.n], nil
}

// nothing stands for empty inputs: some tokens refuse a null pointer.
var nothing [1]byte

func bytesOf(b []byte) (*C.ck_byte, C.ck_ulong) {
	if len(b) == 0 {
		b = nothing[:0:1]
	}
	return (*C.ck_byte)(unsafe.Pointer(unsafe.SliceData(b))), C.ck_ulong(len(b))
}

// Sign is C_SignInit and C_Sign. It returns the part of out that holds the signature.
func (l *Library) Sign(session, mechanism uint, parameter []byte, key uint, in, out []byte) ([]byte, error) {
	p, pn := bytesOf(parameter)
	text, textLen := bytesOf(in)
	o, on := bytesOf(out)
	return output(C.onecall_sign(l.list, C.ck_ulong(session), C.ck_ulong(mechanism), p, pn, C.ck_ulong(key), text, textLen, o, on), out)
}

// GCM is what AES-GCM (CKM_AES_GCM) takes beside key and text. A token that makes its own nonce
// writes it into IV.
type GCM struct {
	Mechanism uint
	IV, AAD   []byte
	TagBits   uint
}

// EncryptGCM is C_EncryptInit and C_Encrypt. It returns the part of out that holds the
// ciphertext and the tag.
func (l *Library) EncryptGCM(session, key uint, g GCM, in, out []byte) ([]byte, error) {
	return l.gcm(0, session, key, g, in, out)
}

// DecryptGCM is C_DecryptInit and C_Decrypt. It returns the part of out that holds the plaintext.
// out must be as long as in: some tokens want room for the tag.
func (l *Library) DecryptGCM(session, key uint, g GCM, in, out []byte) ([]byte, error) {
	return l.gcm(1, session, key, g, in, out)
}

func (l *Library) gcm(decrypt C.int, session, key uint, g GCM, in, out []byte) ([]byte, error) {
	v, vn := bytesOf(g.IV)
	a, an := bytesOf(g.AAD)
	text, textLen := bytesOf(in)
	o, on := bytesOf(out)
	return output(C.onecall_gcm(l.list, decrypt, C.ck_ulong(session), C.ck_ulong(g.Mechanism), C.ck_ulong(key),
		v, vn, a, an, C.ck_ulong(g.TagBits), text, textLen, o, on), out)
}

// OAEP is what RSA-OAEP (CKM_RSA_PKCS_OAEP) takes beside key and text.
type OAEP struct {
	Mechanism, Hash, MGF, Source uint
	Label                        []byte
}

// DecryptOAEP is C_DecryptInit and C_Decrypt. It returns the part of out that holds the
// plaintext. out must be as long as in.
func (l *Library) DecryptOAEP(session, key uint, o OAEP, in, out []byte) ([]byte, error) {
	label, labelLen := bytesOf(o.Label)
	text, textLen := bytesOf(in)
	p, pn := bytesOf(out)
	return output(C.onecall_oaep(l.list, C.ck_ulong(session), C.ck_ulong(o.Mechanism), C.ck_ulong(key), C.ck_ulong(o.Hash), C.ck_ulong(o.MGF),
		C.ck_ulong(o.Source), label, labelLen, text, textLen, p, pn), out)
}

// Wrap is C_WrapKey by a mechanism without parameter. It returns the part of out that
// holds the wrapped key.
func (l *Library) Wrap(session, mechanism, wrapping, key uint, out []byte) ([]byte, error) {
	o, on := bytesOf(out)
	return output(C.onecall_wrap(l.list, C.ck_ulong(session), C.ck_ulong(mechanism), C.ck_ulong(wrapping), C.ck_ulong(key), o, on), out)
}

// Attribute is C_GetAttributeValue of one attribute. It returns the part of out that holds
// its value.
func (l *Library) Attribute(session, object, attribute uint, out []byte) ([]byte, error) {
	o, on := bytesOf(out)
	return output(C.onecall_attribute(l.list, C.ck_ulong(session), C.ck_ulong(object), C.ck_ulong(attribute), o, on), out)
}

// MaxAttributes is the largest number of attributes that Attributes takes.
const MaxAttributes = C.MAX_ATTRIBUTES

// Unavailable is the length of a value that the token does not show (CK_UNAVAILABLE_INFORMATION).
const Unavailable = ^uint(0)

// Attributes is C_GetAttributeValue of several attributes at once. Each has its own part of out,
// of the length in lens, which Attributes replaces by the length of the value. If the call fails,
// lens has what the token left there: by PKCS#11 the token looks at all attributes, and sets
// those that it does not show to Unavailable. But a length that is still that of the part may
// belong to an attribute that the token did not reach.
func (l *Library) Attributes(session, object uint, types, lens []uint) (out []byte, err error) {
	if len(types) != len(lens) || len(types) > MaxAttributes {
		return nil, fmt.Errorf("%d attributes into %d parts: %d is the most", len(types), len(lens), MaxAttributes)
	}
	var t, n [MaxAttributes]C.ck_ulong
	room := uint(0)
	for i := range types {
		t[i], n[i] = C.ck_ulong(types[i]), C.ck_ulong(lens[i])
		room += lens[i]
	}
	out = make([]byte, room)
	o, _ := bytesOf(out)
	r := C.onecall_attributes(l.list, C.ck_ulong(session), C.ck_ulong(object), &t[0], &n[0], C.ck_ulong(len(types)), o)
	for i := range lens {
		lens[i] = uint(n[i])
	}
	if r.rv != 0 {
		err = &Failed{Func: names[r.fn], RV: uint(r.rv)}
	}
	return out, err
}
