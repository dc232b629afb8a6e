package main

import (
	"fmt"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Callers of the service are told REASON_TOKEN where this says so. token.ErrDecrypt and
// token.ErrKeyMismatch are not among them: vault turns them into what they say of a record.
func TestErrorsOfTheTokenAreTold(t *testing.T) {
	for _, err := range []error{
		token.ErrModule, token.ErrNoToken, token.ErrAmbiguousToken, token.ErrUninitialized, token.ErrPIN, token.ErrPINAtRisk,
		token.ErrPINSource, token.ErrNotFound, token.ErrAmbiguousKey, token.ErrKeyExists, token.ErrKeyChanged, token.ErrStuck,
		token.ErrClosed, token.ErrUnsupported, &token.Error{Func: "C_Sign", RV: token.CKR_DEVICE_ERROR},
	} {
		if !tokenGone(fmt.Errorf("sign: %w", err)) {
			t.Errorf("%v is not told as an error of the token", err)
		}
	}
	for _, err := range []error{nil, store.ErrAway, store.ErrNotFound, vault.ErrSealed, vault.ErrStamp, token.ErrDecrypt} {
		if tokenGone(err) {
			t.Errorf("%v is told as an error of the token", err)
		}
	}
}
