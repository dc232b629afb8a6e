package engine

import (
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/pkcs11"
)

// maxLabel is the length of a token's label in bytes (C_InitToken).
const maxLabel = 32

// InitToken initializes a token: see InitToken of package token.
func InitToken(path, label string, soPIN, userPIN PIN) (Info, error) {
	if label == "" || len(label) > maxLabel {
		return Info{}, fmt.Errorf("initialize token: label of %d bytes, want 1 to %d", len(label), maxLabel)
	}
	m, err := loadModule(path)
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

// initToken reads the token back after the module was initialized again: SoftHSM gives it another
// slot then.
func (m *module) initToken(label string, soPIN, userPIN PIN) (Info, error) {
	var made [4]string
	err := m.view(func(api Cryptoki) error {
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
	var infos []slotInfo
	err = m.view(func(api Cryptoki) error {
		infos, err = readTokens(m.path, api)
		return err
	})
	if err != nil {
		return Info{}, err
	}
	i := slices.IndexFunc(infos, func(i slotInfo) bool { return i.identity() == made })
	if i < 0 {
		return Info{}, errors.New("it is not among the module's tokens afterwards")
	}
	return infos[i].Info, nil
}

func (m *module) freeSlot(api Cryptoki) (uint, error) {
	infos, err := readTokens(m.path, api)
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(infos, func(i slotInfo) bool { return !i.Initialized })
	if i < 0 {
		return 0, fmt.Errorf("%w: every one is initialized already", ErrNoToken)
	}
	return infos[i].Slot, nil
}

func (m *module) identityOf(api Cryptoki, slot uint) ([4]string, error) {
	t, err := api.GetTokenInfo(slot)
	if err != nil {
		return [4]string{}, callError("C_GetTokenInfo", err)
	}
	return newInfo(m.path, pkcs11.Info{}, slot, t).identity(), nil
}

// initUserPIN sets the user's PIN as the security officer.
func initUserPIN(api Cryptoki, slot uint, soPIN, userPIN PIN) (err error) {
	s, err := openSession(api, slot, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }() // which logs out, as it closes the last session
	if err := api.Login(s.handle, pkcs11.CKU_SO, soPIN.text()); err != nil {
		return refuse(callError("C_Login", err))
	}
	return refuse(callError("C_InitPIN", api.InitPIN(s.handle, userPIN.text())))
}
