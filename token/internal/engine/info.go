package engine

import (
	"fmt"
	"strings"
	"time"

	"github.com/miekg/pkcs11"
)

// slotInfo is the Info of a token, and its serial as crypto11 reads it, or nothing if that
// does not distinguish it from the module's other tokens.
type slotInfo struct {
	Info
	rawSerial string
}

// identity is what must not change between choosing a token and logging in to it.
func (i slotInfo) identity() [4]string {
	return [4]string{i.Label, i.Manufacturer, i.Model, i.Serial}
}

// List returns the tokens in the slots of a module, without a login. initArgs is
// Quirks.InitArgs.
func List(path, initArgs string, timeout time.Duration) ([]Info, error) {
	m, err := loadModule(path)
	if err != nil {
		return nil, err
	}
	found, err := answer(timeout, nil, func() ([]slotInfo, error) { return m.tokens(initArgs) })
	if err != nil {
		return nil, fmt.Errorf("list tokens of %q: %w", m.path, err)
	}
	infos := make([]Info, len(found))
	for n, i := range found {
		infos[n] = i.Info
	}
	return infos, nil
}

func (m *module) tokens(initArgs string) (infos []slotInfo, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.setArgs(initArgs); err != nil {
		return nil, err
	}
	err = m.view(func(api Cryptoki) error {
		infos, err = readTokens(m.path, api)
		return err
	})
	return infos, err
}

// readTokens reads the tokens in all slots. It leaves out a token that cannot be read, such as
// a foreign smart card beside the HSM.
func readTokens(path string, api Cryptoki) ([]slotInfo, error) {
	library, err := api.GetInfo()
	if err != nil {
		return nil, callError("C_GetInfo", err)
	}
	slots, err := api.GetSlotList(true)
	if err != nil {
		return nil, callError("C_GetSlotList", err)
	}
	infos := make([]slotInfo, 0, len(slots))
	serials := make(map[string]int)
	for _, slot := range slots {
		t, err := api.GetTokenInfo(slot)
		err = callError("C_GetTokenInfo", err)
		if FailedWith(err, CKR_TOKEN_NOT_PRESENT, CKR_TOKEN_NOT_RECOGNIZED) {
			continue
		}
		if err != nil {
			return nil, err
		}
		serials[t.SerialNumber]++
		infos = append(infos, newInfo(path, library, slot, t))
	}
	for n := range infos {
		if serials[infos[n].rawSerial] > 1 {
			infos[n].rawSerial = ""
		}
	}
	return infos, nil
}

func newInfo(path string, library pkcs11.Info, slot uint, t pkcs11.TokenInfo) slotInfo {
	has := func(flag uint) bool { return t.Flags&flag != 0 }
	return slotInfo{rawSerial: t.SerialNumber, Info: Info{
		Module:              path,
		LibraryManufacturer: trimPadding(library.ManufacturerID),
		LibraryDescription:  trimPadding(library.LibraryDescription),
		LibraryVersion:      version(library.LibraryVersion),
		CryptokiVersion:     version(library.CryptokiVersion),
		Slot:                slot,
		Label:               trimPadding(t.Label),
		Manufacturer:        trimPadding(t.ManufacturerID),
		Model:               trimPadding(t.Model),
		Serial:              trimPadding(t.SerialNumber),
		HardwareVersion:     version(t.HardwareVersion),
		FirmwareVersion:     version(t.FirmwareVersion),
		Initialized:         has(pkcs11.CKF_TOKEN_INITIALIZED),
		LoginRequired:       has(pkcs11.CKF_LOGIN_REQUIRED),
		RNG:                 has(pkcs11.CKF_RNG),
		WriteProtected:      has(pkcs11.CKF_WRITE_PROTECTED),
		UserPINInitialized:  has(pkcs11.CKF_USER_PIN_INITIALIZED),
		UserPINCountLow:     has(pkcs11.CKF_USER_PIN_COUNT_LOW),
		UserPINFinalTry:     has(pkcs11.CKF_USER_PIN_FINAL_TRY),
		UserPINLocked:       has(pkcs11.CKF_USER_PIN_LOCKED),
		MaxSessions:         sessionLimit(t),
	}}
}

// sessionLimit is how many sessions for reading and writing the token allows; 0 if it has no
// limit or reports none.
func sessionLimit(t pkcs11.TokenInfo) uint {
	var limit uint
	for _, n := range []uint{t.MaxSessionCount, t.MaxRwSessionCount} {
		known := n != pkcs11.CK_EFFECTIVELY_INFINITE && n != pkcs11.CK_UNAVAILABLE_INFORMATION
		if known && (limit == 0 || n < limit) {
			limit = n
		}
	}
	return limit
}

// trimPadding removes the blanks of the standard and the zero bytes of some vendors.
func trimPadding(s string) string { return strings.TrimRight(s, " \x00") }

func version(v pkcs11.Version) string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }
