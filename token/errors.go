package token

import (
	"errors"

	"github.com/hsm-kp/hsm-kp/token/cryptoki"
	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// Errors that a caller branches on. They are found with errors.Is; if a PKCS#11 call was the
// cause, its *Error is in the same chain.
var (
	// ErrModule: the PKCS#11 library does not exist or does not load.
	ErrModule = engine.ErrModule
	// ErrNoToken: no token of the module fits the given label, serial or slot.
	ErrNoToken = engine.ErrNoToken
	// ErrAmbiguousToken: more than one token fits.
	ErrAmbiguousToken = engine.ErrAmbiguousToken
	// ErrUninitialized: the token that fits was never initialized (C_InitToken).
	ErrUninitialized = engine.ErrUninitialized
	// ErrPIN: the token refused the PIN, or has refused it before.
	ErrPIN = engine.ErrPIN
	// ErrPINAtRisk: the PIN was not sent, because the token reports that a wrong one was sent
	// to it before.
	ErrPINAtRisk = engine.ErrPINAtRisk
	// ErrPINSource: the source of the PIN gave none.
	ErrPINSource = errors.New("no PIN")
	// ErrNotFound: the token has no such key. It is returned only from a session that is
	// known to be logged in: others do not see private objects.
	ErrNotFound = engine.ErrNotFound
	// ErrAmbiguousKey: more than one key fits, and none is taken.
	ErrAmbiguousKey = engine.ErrAmbiguousKey
	// ErrKeyExists: the token already has a key of that CKA_ID.
	ErrKeyExists = errors.New("key exists")
	// ErrKeyChanged: the token has another key under the CKA_ID of one that was in use. The
	// Token does nothing more.
	ErrKeyChanged = engine.ErrKeyChanged
	// ErrStuck: the module does not answer. The Token does nothing more; the call ends with
	// the process.
	ErrStuck = engine.ErrStuck
	// ErrClosed: the Token is closed.
	ErrClosed = engine.ErrClosed
	// ErrDecrypt: the ciphertext, its additional data or the key is not the right one. The
	// data is at fault, not the device.
	ErrDecrypt = engine.ErrDecrypt
	// ErrKeyMismatch: a private key does not belong to the public key beside it.
	ErrKeyMismatch = engine.ErrKeyMismatch
	// ErrUnsupported: the key is of a kind that this package does not use.
	ErrUnsupported = errors.New("unsupported key")
)

// Error is a failed PKCS#11 call: the name of the function and what it returned.
// errors.Is(err, CKR_PIN_LOCKED) finds it too.
type Error = cryptoki.Error

// RV is the return value of a PKCS#11 call (CK_RV). It is an error.
type RV = cryptoki.RV

// Return values that callers branch on.
const (
	CKR_ATTRIBUTE_SENSITIVE      RV = engine.CKR_ATTRIBUTE_SENSITIVE
	CKR_ATTRIBUTE_TYPE_INVALID   RV = engine.CKR_ATTRIBUTE_TYPE_INVALID
	CKR_BUFFER_TOO_SMALL         RV = engine.CKR_BUFFER_TOO_SMALL
	CKR_CRYPTOKI_NOT_INITIALIZED RV = engine.CKR_CRYPTOKI_NOT_INITIALIZED
	CKR_DEVICE_ERROR             RV = engine.CKR_DEVICE_ERROR
	CKR_DEVICE_REMOVED           RV = engine.CKR_DEVICE_REMOVED
	CKR_FUNCTION_NOT_SUPPORTED   RV = engine.CKR_FUNCTION_NOT_SUPPORTED
	CKR_GENERAL_ERROR            RV = engine.CKR_GENERAL_ERROR
	CKR_MECHANISM_INVALID        RV = engine.CKR_MECHANISM_INVALID
	CKR_OBJECT_HANDLE_INVALID    RV = engine.CKR_OBJECT_HANDLE_INVALID
	CKR_OPERATION_ACTIVE         RV = engine.CKR_OPERATION_ACTIVE
	CKR_PIN_EXPIRED              RV = engine.CKR_PIN_EXPIRED
	CKR_PIN_INCORRECT            RV = engine.CKR_PIN_INCORRECT
	CKR_PIN_LOCKED               RV = engine.CKR_PIN_LOCKED
	CKR_SESSION_CLOSED           RV = engine.CKR_SESSION_CLOSED
	CKR_SESSION_COUNT            RV = engine.CKR_SESSION_COUNT
	CKR_SESSION_HANDLE_INVALID   RV = engine.CKR_SESSION_HANDLE_INVALID
	CKR_TOKEN_NOT_PRESENT        RV = engine.CKR_TOKEN_NOT_PRESENT
	CKR_USER_ALREADY_LOGGED_IN   RV = engine.CKR_USER_ALREADY_LOGGED_IN
	CKR_USER_NOT_LOGGED_IN       RV = engine.CKR_USER_NOT_LOGGED_IN
)
