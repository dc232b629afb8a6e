package operator

import (
	"fmt"
	"testing"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// Callers of the service get REASON_TOKEN for these. token.ErrDecrypt and
// token.ErrKeyMismatch are not among them: vault turns them into errors about a record.
func TestFaultsOfTheToken(t *testing.T) {
	for _, err := range []error{
		token.ErrModule, token.ErrNoToken, token.ErrAmbiguousToken, token.ErrUninitialized, token.ErrPIN, token.ErrPINAtRisk,
		token.ErrPINSource, token.ErrNotFound, token.ErrAmbiguousKey, token.ErrKeyExists, token.ErrKeyChanged, token.ErrStuck,
		token.ErrClosed, token.ErrUnsupported, &token.Error{Func: "C_Sign", RV: token.CKR_DEVICE_ERROR},
	} {
		if !TokenFault(fmt.Errorf("sign: %w", err)) {
			t.Errorf("%v is no error of the token", err)
		}
	}
	for _, err := range []error{nil, store.ErrAway, store.ErrNotFound, vault.ErrSealed, vault.ErrStamp, token.ErrDecrypt} {
		if TokenFault(err) {
			t.Errorf("%v is an error of the token", err)
		}
	}
}
