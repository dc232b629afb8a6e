package token

import (
	"context"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// Info describes a token and the module that reaches it (CK_INFO, CK_TOKEN_INFO).
// Padding is trimmed from all texts. It holds nothing secret.
type Info struct {
	Module              string `json:"module"` // absolute path, links resolved
	LibraryManufacturer string `json:"library_manufacturer"`
	LibraryDescription  string `json:"library_description"`
	LibraryVersion      string `json:"library_version"`
	CryptokiVersion     string `json:"cryptoki_version"`

	Slot            uint   `json:"slot"` // may change when the module is initialised again
	Label           string `json:"label"`
	Manufacturer    string `json:"manufacturer"`
	Model           string `json:"model"`
	Serial          string `json:"serial"`
	HardwareVersion string `json:"hardware_version"`
	FirmwareVersion string `json:"firmware_version"`

	Initialized        bool `json:"initialized"`
	LoginRequired      bool `json:"login_required"`
	RNG                bool `json:"rng"`
	WriteProtected     bool `json:"write_protected"`
	UserPINInitialized bool `json:"user_pin_initialized"`
	UserPINCountLow    bool `json:"user_pin_count_low"` // a wrong PIN was tried since the last right one
	UserPINFinalTry    bool `json:"user_pin_final_try"` // one more wrong PIN locks it
	UserPINLocked      bool `json:"user_pin_locked"`

	MaxSessions uint `json:"max_sessions"` // that the token allows; 0: no limit, or not told

	// rawSerial is the serial as crypto11 reads it, where it tells this token from
	// the module's others.
	rawSerial string
}

// identity is what must not change between choosing a token and logging in to it.
func (i Info) identity() [4]string {
	return [4]string{i.Label, i.Manufacturer, i.Model, i.Serial}
}

// String returns label, serial and slot, for messages.
func (i Info) String() string {
	return fmt.Sprintf("%q (serial %s, slot %d)", i.Label, i.Serial, i.Slot)
}

// List returns the tokens in the slots of a module, without a login. Tokens
// that were never initialised are among them.
func List(ctx context.Context, modulePath string, quirks Quirks) ([]Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m, err := loadModule(modulePath)
	if err != nil {
		return nil, err
	}
	infos, err := answer(defaultTimeout, nil, func() ([]Info, error) { return m.tokens(quirks) })
	if err != nil {
		return nil, fmt.Errorf("list tokens of %q: %w", m.path, err)
	}
	return infos, nil
}

func (m *module) tokens(q Quirks) (infos []Info, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.setArgs(q.InitArgs); err != nil {
		return nil, err
	}
	err = m.view(func(api cryptoki) error {
		infos, err = readTokens(m.path, api)
		return err
	})
	return infos, err
}

// readTokens reads the tokens in all slots. One that cannot be read, such as a
// foreign smart card beside the HSM, is left out rather than in the way.
func readTokens(path string, api cryptoki) ([]Info, error) {
	library, err := api.GetInfo()
	if err != nil {
		return nil, callError("C_GetInfo", err)
	}
	slots, err := api.GetSlotList(true)
	if err != nil {
		return nil, callError("C_GetSlotList", err)
	}
	infos := make([]Info, 0, len(slots))
	serials := make(map[string]int)
	for _, slot := range slots {
		t, err := api.GetTokenInfo(slot)
		err = callError("C_GetTokenInfo", err)
		if failedWith(err, CKR_TOKEN_NOT_PRESENT, CKR_TOKEN_NOT_RECOGNIZED) {
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

func newInfo(path string, library pkcs11.Info, slot uint, t pkcs11.TokenInfo) Info {
	has := func(flag uint) bool { return t.Flags&flag != 0 }
	return Info{
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
		rawSerial:           t.SerialNumber,
	}
}

// sessionLimit is how many sessions for reading and writing the token allows; 0
// is no limit, or none told.
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
