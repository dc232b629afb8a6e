package engine

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/cryptoki"
)

// The words of PKCS#11 that package token shows.
type (
	RV    = cryptoki.RV
	Error = cryptoki.Error
	Info  = cryptoki.Info
)

// What an operation fails with, as package token documents it.
var (
	ErrModule         = errors.New("PKCS#11 module does not load")
	ErrNoToken        = errors.New("no such token")
	ErrAmbiguousToken = errors.New("more than one token fits")
	ErrUninitialized  = errors.New("token is not initialized")
	ErrPIN            = errors.New("PIN refused")
	ErrPINAtRisk      = errors.New("the PIN was not sent, so that the token does not lock")
	ErrNotFound       = errors.New("no such key in the token")
	ErrAmbiguousKey   = errors.New("more than one key fits")
	ErrKeyChanged     = errors.New("another key stands in the token in the place of one that was in use")
	ErrStuck          = errors.New("the PKCS#11 module does not answer")
	ErrClosed         = errors.New("token is closed")
	ErrDecrypt        = errors.New("ciphertext does not open")
	ErrKeyMismatch    = errors.New("private key does not fit the public key")
)

// Return values that this package, package token or its callers branch on.
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

// callError makes an *Error of what a call returned. Errors of crypto11 come here too: it
// wraps those of miekg/pkcs11, and has some of its own, which keep their text.
func callError(fn string, err error) error {
	if err == nil {
		return nil
	}
	if rv, ok := errors.AsType[pkcs11.Error](err); ok {
		return &Error{Func: fn, RV: RV(rv)}
	}
	return fmt.Errorf("%s: %w", fn, err)
}

// FailedWith reports whether err is a call that returned one of rvs.
func FailedWith(err error, rvs ...RV) bool {
	for _, rv := range rvs {
		if errors.Is(err, rv) {
			return true
		}
	}
	return false
}
