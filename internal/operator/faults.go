package operator

import (
	"errors"

	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// TokenFault reports whether an error means that the token, or a key in it, cannot be used. An
// error that the token returned because the data is at fault is not one.
func TokenFault(err error) bool {
	var call *token.Error
	var weak *signer.WeakKeyError
	switch {
	case isAny(err, vault.ErrSealed, vault.ErrStamp, vault.ErrMixedUp):
		return false
	case errors.As(err, &call), errors.As(err, &weak):
		return true
	}
	return isAny(err, token.ErrModule, token.ErrNoToken, token.ErrAmbiguousToken, token.ErrUninitialized, token.ErrPIN, token.ErrPINAtRisk,
		token.ErrPINSource, token.ErrNotFound, token.ErrAmbiguousKey, token.ErrKeyExists, token.ErrUnsupported, token.ErrClosed, token.ErrStuck,
		token.ErrKeyChanged, vault.ErrWeakKey, vault.ErrCustody, signer.ErrScheme, keypackage.ErrSignerFault, identity.ErrKeyMismatch)
}

// endsAll reports whether an error of one identity would occur for all others too.
func endsAll(err error) bool {
	var request *act.RequestError
	return TokenFault(err) || errors.As(err, &request)
}

func isAny(err error, targets ...error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}
