package token

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// maxLabel is the length of a token's label in bytes (C_InitToken).
const maxLabel = 32

// InitToken initialises the first token of the module that never was
// (C_InitToken), gives it a label of at most 32 bytes and the security officer's
// PIN, and sets the user's PIN (C_InitPIN). It never touches an initialised
// token. Where the module has no other, the error is ErrNoToken. The caller
// clears the PINs.
func InitToken(ctx context.Context, modulePath, label string, soPIN, userPIN PIN) (Info, error) {
	if err := ctx.Err(); err != nil {
		return Info{}, err
	}
	if label == "" || len(label) > maxLabel {
		return Info{}, fmt.Errorf("initialize token: label of %d bytes, want 1 to %d", len(label), maxLabel)
	}
	m, err := loadModule(modulePath)
	if err != nil {
		return Info{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	info, err := m.initToken(label, soPIN, userPIN)
	if err != nil {
		return Info{}, fmt.Errorf("initialize token %q: %w", label, err)
	}
	return info, nil
}

// initToken reads the token back after the module was initialised anew: SoftHSM
// gives it another slot then.
func (m *module) initToken(label string, soPIN, userPIN PIN) (Info, error) {
	var made [4]string
	err := m.view(func(api cryptoki) error {
		slot, err := m.freeSlot(api)
		if err != nil {
			return err
		}
		if err := api.InitToken(slot, soPIN.text(), label); err != nil {
			return callError("C_InitToken", err)
		}
		if err := initUserPIN(api, slot, soPIN, userPIN); err != nil {
			return err
		}
		made, err = m.identityOf(api, slot)
		return err
	})
	if err != nil {
		return Info{}, err
	}
	var infos []Info
	err = m.view(func(api cryptoki) error {
		infos, err = readTokens(m.path, api)
		return err
	})
	if err != nil {
		return Info{}, err
	}
	i := slices.IndexFunc(infos, func(i Info) bool { return i.identity() == made })
	if i < 0 {
		return Info{}, errors.New("it is not among the module's tokens afterwards")
	}
	return infos[i], nil
}

func (m *module) freeSlot(api cryptoki) (uint, error) {
	infos, err := readTokens(m.path, api)
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(infos, func(i Info) bool { return !i.Initialized })
	if i < 0 {
		return 0, fmt.Errorf("%w: every one is initialized already", ErrNoToken)
	}
	return infos[i].Slot, nil
}

func (m *module) identityOf(api cryptoki, slot uint) ([4]string, error) {
	t, err := api.GetTokenInfo(slot)
	if err != nil {
		return [4]string{}, callError("C_GetTokenInfo", err)
	}
	return newInfo(m.path, pkcs11.Info{}, slot, t).identity(), nil
}

// initUserPIN sets the user's PIN as the security officer.
func initUserPIN(api cryptoki, slot uint, soPIN, userPIN PIN) (err error) {
	s, err := openSession(api, slot, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }() // which logs out, as the last session
	if err := api.Login(s.handle, pkcs11.CKU_SO, soPIN.text()); err != nil {
		return refuse(callError("C_Login", err))
	}
	return refuse(callError("C_InitPIN", api.InitPIN(s.handle, userPIN.text())))
}
