package token

import (
	"context"

	"github.com/hsm-kp/hsm-kp/token/cryptoki"
	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// Info describes a token and the module that reaches it (CK_INFO, CK_TOKEN_INFO).
type Info = cryptoki.Info

// List returns the tokens in the slots of a module, without a login. Tokens
// that were never initialized are among them.
func List(ctx context.Context, modulePath string, quirks Quirks) ([]Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return engine.List(modulePath, quirks.InitArgs, defaultTimeout)
}

// InitToken initializes the first token of the module that never was
// (C_InitToken), gives it a label of at most 32 bytes and the security officer's
// PIN, and sets the user's PIN (C_InitPIN). It never touches an initialized
// token. If the module has no other, the error is ErrNoToken. The caller
// clears the PINs.
func InitToken(ctx context.Context, modulePath, label string, soPIN, userPIN PIN) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	return engine.InitToken(modulePath, label, soPIN.secret, userPIN.secret)
}
