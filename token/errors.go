package token

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// Sentinels for what a caller branches on. They are found with errors.Is; where
// a PKCS#11 call was the cause, the *Error is in the same chain.
var (
	// ErrModule: the PKCS#11 library is not there or does not load.
	ErrModule = errors.New("PKCS#11 module does not load")
	// ErrNoToken: no token of the module fits the given label, serial or slot.
	ErrNoToken = errors.New("no such token")
	// ErrAmbiguousToken: more than one token fits.
	ErrAmbiguousToken = errors.New("more than one token fits")
	// ErrUninitialized: the token that fits was never initialised (C_InitToken).
	ErrUninitialized = errors.New("token is not initialized")
	// ErrPIN: the token refused the PIN, or it is known beforehand that it would.
	ErrPIN = errors.New("PIN refused")
	// ErrPINAtRisk: the PIN was not sent, because the token says that a wrong one was sent
	// to it before.
	ErrPINAtRisk = errors.New("the PIN was not sent, so that the token does not lock")
	// ErrPINSource: no PIN came from where it was to be read.
	ErrPINSource = errors.New("no PIN")
	// ErrNotFound: the token has no such key. It is returned only from a session
	// that is known to be logged in: others see no private objects.
	ErrNotFound = errors.New("no such key in the token")
	// ErrAmbiguousKey: more than one key fits, so none is taken.
	ErrAmbiguousKey = errors.New("more than one key fits")
	// ErrKeyExists: the token already has a key of that CKA_ID.
	ErrKeyExists = errors.New("key exists")
	// ErrKeyChanged: another key stands in the token under the CKA_ID of one that was in
	// use. Nothing is done with the Token any more.
	ErrKeyChanged = errors.New("another key stands in the token in the place of one that was in use")
	// ErrStuck: the module does not answer. Nothing is done with the Token any more; only
	// the end of the process ends the call.
	ErrStuck = errors.New("the PKCS#11 module does not answer")
	// ErrClosed: the Token is closed.
	ErrClosed = errors.New("token is closed")
	// ErrDecrypt: the ciphertext, its additional data or the key is not the right
	// one. It is a fault of the data, not of the device.
	ErrDecrypt = errors.New("ciphertext does not open")
	// ErrKeyMismatch: a private key is not the one of the public key beside it.
	ErrKeyMismatch = errors.New("private key does not fit the public key")
	// ErrUnsupported: the key is of a kind that this package does not use.
	ErrUnsupported = errors.New("unsupported key")
)

// Error is a failed PKCS#11 call.
type Error struct {
	Func string // the function of the standard, such as "C_Sign"
	RV   RV     // what it returned
}

// Error returns the function and the name of what it returned.
func (e *Error) Error() string { return e.Func + ": " + e.RV.Name() }

// Unwrap returns the RV, so that errors.Is(err, CKR_PIN_INCORRECT) works.
func (e *Error) Unwrap() error { return e.RV }

// RV is the return value of a PKCS#11 call (CK_RV).
type RV uint

// Error returns the name.
func (rv RV) Error() string { return rv.Name() }

// Name returns the name that PKCS#11 gives the value, such as
// "CKR_PIN_INCORRECT", or its number where the standard has none for it.
func (rv RV) Name() string {
	if rv == CKR_AEAD_DECRYPT_FAILED {
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

// Return values that this package or its callers branch on.
const (
	CKR_HOST_MEMORY                   RV = pkcs11.CKR_HOST_MEMORY
	CKR_GENERAL_ERROR                 RV = pkcs11.CKR_GENERAL_ERROR
	CKR_FUNCTION_FAILED               RV = pkcs11.CKR_FUNCTION_FAILED
	CKR_BUFFER_TOO_SMALL              RV = pkcs11.CKR_BUFFER_TOO_SMALL
	CKR_ARGUMENTS_BAD                 RV = pkcs11.CKR_ARGUMENTS_BAD
	CKR_ATTRIBUTE_SENSITIVE           RV = pkcs11.CKR_ATTRIBUTE_SENSITIVE
	CKR_ATTRIBUTE_TYPE_INVALID        RV = pkcs11.CKR_ATTRIBUTE_TYPE_INVALID
	CKR_ATTRIBUTE_VALUE_INVALID       RV = pkcs11.CKR_ATTRIBUTE_VALUE_INVALID
	CKR_DATA_INVALID                  RV = pkcs11.CKR_DATA_INVALID
	CKR_DATA_LEN_RANGE                RV = pkcs11.CKR_DATA_LEN_RANGE
	CKR_DEVICE_ERROR                  RV = pkcs11.CKR_DEVICE_ERROR
	CKR_DEVICE_MEMORY                 RV = pkcs11.CKR_DEVICE_MEMORY
	CKR_DEVICE_REMOVED                RV = pkcs11.CKR_DEVICE_REMOVED
	CKR_ENCRYPTED_DATA_INVALID        RV = pkcs11.CKR_ENCRYPTED_DATA_INVALID
	CKR_ENCRYPTED_DATA_LEN_RANGE      RV = pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE
	CKR_FUNCTION_NOT_SUPPORTED        RV = pkcs11.CKR_FUNCTION_NOT_SUPPORTED
	CKR_KEY_HANDLE_INVALID            RV = pkcs11.CKR_KEY_HANDLE_INVALID
	CKR_KEY_TYPE_INCONSISTENT         RV = pkcs11.CKR_KEY_TYPE_INCONSISTENT
	CKR_MECHANISM_INVALID             RV = pkcs11.CKR_MECHANISM_INVALID
	CKR_MECHANISM_PARAM_INVALID       RV = pkcs11.CKR_MECHANISM_PARAM_INVALID
	CKR_OBJECT_HANDLE_INVALID         RV = pkcs11.CKR_OBJECT_HANDLE_INVALID
	CKR_OPERATION_ACTIVE              RV = pkcs11.CKR_OPERATION_ACTIVE
	CKR_OPERATION_NOT_INITIALIZED     RV = pkcs11.CKR_OPERATION_NOT_INITIALIZED
	CKR_PIN_INCORRECT                 RV = pkcs11.CKR_PIN_INCORRECT
	CKR_PIN_INVALID                   RV = pkcs11.CKR_PIN_INVALID
	CKR_PIN_LEN_RANGE                 RV = pkcs11.CKR_PIN_LEN_RANGE
	CKR_PIN_EXPIRED                   RV = pkcs11.CKR_PIN_EXPIRED
	CKR_PIN_LOCKED                    RV = pkcs11.CKR_PIN_LOCKED
	CKR_SESSION_CLOSED                RV = pkcs11.CKR_SESSION_CLOSED
	CKR_SESSION_COUNT                 RV = pkcs11.CKR_SESSION_COUNT
	CKR_SESSION_HANDLE_INVALID        RV = pkcs11.CKR_SESSION_HANDLE_INVALID
	CKR_UNWRAPPING_KEY_HANDLE_INVALID RV = pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID
	CKR_WRAPPING_KEY_HANDLE_INVALID   RV = pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID
	CKR_WRAPPED_KEY_INVALID           RV = pkcs11.CKR_WRAPPED_KEY_INVALID
	CKR_WRAPPED_KEY_LEN_RANGE         RV = pkcs11.CKR_WRAPPED_KEY_LEN_RANGE
	CKR_TEMPLATE_INCONSISTENT         RV = pkcs11.CKR_TEMPLATE_INCONSISTENT
	CKR_TOKEN_NOT_PRESENT             RV = pkcs11.CKR_TOKEN_NOT_PRESENT
	CKR_TOKEN_NOT_RECOGNIZED          RV = pkcs11.CKR_TOKEN_NOT_RECOGNIZED
	CKR_USER_ALREADY_LOGGED_IN        RV = pkcs11.CKR_USER_ALREADY_LOGGED_IN
	CKR_USER_NOT_LOGGED_IN            RV = pkcs11.CKR_USER_NOT_LOGGED_IN
	CKR_USER_PIN_NOT_INITIALIZED      RV = pkcs11.CKR_USER_PIN_NOT_INITIALIZED
	CKR_CURVE_NOT_SUPPORTED           RV = pkcs11.CKR_CURVE_NOT_SUPPORTED
	CKR_DOMAIN_PARAMS_INVALID         RV = pkcs11.CKR_DOMAIN_PARAMS_INVALID
	CKR_CRYPTOKI_NOT_INITIALIZED      RV = pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED
	CKR_CRYPTOKI_ALREADY_INITIALIZED  RV = pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED
	// CKR_AEAD_DECRYPT_FAILED is of PKCS#11 3.0, which miekg/pkcs11 does not know.
	CKR_AEAD_DECRYPT_FAILED RV = 0x42
)

// callError types the error of a call. Errors of crypto11 come here too: it
// wraps those of miekg/pkcs11, and adds some of its own, which keep their text.
func callError(fn string, err error) error {
	if err == nil {
		return nil
	}
	if rv, ok := errors.AsType[pkcs11.Error](err); ok {
		return &Error{Func: fn, RV: RV(rv)}
	}
	return fmt.Errorf("%s: %w", fn, err)
}

// failedWith says whether err is a call that returned one of rvs.
func failedWith(err error, rvs ...RV) bool {
	for _, rv := range rvs {
		if errors.Is(err, rv) {
			return true
		}
	}
	return false
}
