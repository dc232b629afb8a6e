package cryptoki

import "fmt"

// Info describes a token and the module that reaches it (CK_INFO, CK_TOKEN_INFO).
// Padding is trimmed from all texts. It holds nothing secret.
type Info struct {
	Module              string `json:"module"` // absolute path, links resolved
	LibraryManufacturer string `json:"library_manufacturer"`
	LibraryDescription  string `json:"library_description"`
	LibraryVersion      string `json:"library_version"`
	CryptokiVersion     string `json:"cryptoki_version"`

	Slot            uint   `json:"slot"` // may change when the module is initialized again
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
	UserPINCountLow    bool `json:"user_pin_count_low"` // a wrong PIN was sent since the last right one
	UserPINFinalTry    bool `json:"user_pin_final_try"` // one more wrong PIN locks it
	UserPINLocked      bool `json:"user_pin_locked"`

	MaxSessions uint `json:"max_sessions"` // that the token allows; 0: no limit, or none reported
}

// String returns label, serial and slot, for messages.
func (i Info) String() string {
	return fmt.Sprintf("%q (serial %s, slot %d)", i.Label, i.Serial, i.Slot)
}
