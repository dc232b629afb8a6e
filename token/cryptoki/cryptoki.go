// Package cryptoki has the words of PKCS#11 (Cryptoki) that package token shows: what
// calls return, and the description of a token. Package token has them under names of its
// own; they are here because its engine uses them too.
package cryptoki

import (
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// Error is a failed PKCS#11 call.
type Error struct {
	Func string // the function of the standard, such as "C_Sign"
	RV   RV     // what it returned
}

// Error returns the function and the name of what it returned.
func (e *Error) Error() string { return e.Func + ": " + e.RV.Name() }

// Unwrap returns the RV, so that errors.Is(err, token.CKR_PIN_LOCKED) works.
func (e *Error) Unwrap() error { return e.RV }

// RV is the return value of a PKCS#11 call (CK_RV).
type RV uint

// Error returns the name.
func (rv RV) Error() string { return rv.Name() }

// aeadDecryptFailed is CKR_AEAD_DECRYPT_FAILED of PKCS#11 3.0, which miekg/pkcs11 lacks.
const aeadDecryptFailed = 0x42

// Name returns the name that PKCS#11 gives the value, such as "CKR_PIN_INCORRECT", or its
// number if the standard has no name for it.
func (rv RV) Name() string {
	if rv == aeadDecryptFailed {
		return "CKR_AEAD_DECRYPT_FAILED"
	}
	// The table of names is miekg/pkcs11's; it prints "pkcs11: 0xA0: CKR_PIN_INCORRECT".
	text := pkcs11.Error(rv).Error()
	if i := strings.LastIndex(text, "CKR_"); i >= 0 {
		return text[i:]
	}
	if rv >= pkcs11.CKR_VENDOR_DEFINED {
		return fmt.Sprintf("CKR_VENDOR_DEFINED+0x%X", uint(rv-pkcs11.CKR_VENDOR_DEFINED))
	}
	return fmt.Sprintf("CKR_0x%08X", uint(rv))
}
