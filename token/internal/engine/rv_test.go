package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"
)

func TestRVNames(t *testing.T) {
	for rv, want := range map[RV]string{
		0:                            "CKR_OK",
		CKR_PIN_INCORRECT:            "CKR_PIN_INCORRECT",
		CKR_SESSION_HANDLE_INVALID:   "CKR_SESSION_HANDLE_INVALID",
		CKR_USER_PIN_NOT_INITIALIZED: "CKR_USER_PIN_NOT_INITIALIZED",
		CKR_AEAD_DECRYPT_FAILED:      "CKR_AEAD_DECRYPT_FAILED",
		0x7FFF:                       "CKR_0x00007FFF",
		0x80000000:                   "CKR_VENDOR_DEFINED",
		0x80000102:                   "CKR_VENDOR_DEFINED+0x102",
	} {
		if got := rv.Name(); got != want {
			t.Errorf("RV(0x%X).Name() = %q, want %q", uint(rv), got, want)
		}
	}
}

func TestCallErrorKeepsWhatItWraps(t *testing.T) {
	wrapped := fmt.Errorf("of crypto11: %w", pkcs11.Error(pkcs11.CKR_DEVICE_ERROR))
	err := fmt.Errorf("sign: %w", callError("C_Sign", wrapped))
	call, ok := errors.AsType[*Error](err)
	if !ok || call.Func != "C_Sign" || call.RV != CKR_DEVICE_ERROR || !errors.Is(err, CKR_DEVICE_ERROR) {
		t.Errorf("callError() = %#v, want C_Sign with CKR_DEVICE_ERROR", err)
	}
	if errors.Is(err, CKR_GENERAL_ERROR) {
		t.Error("error is CKR_GENERAL_ERROR too, want CKR_DEVICE_ERROR only")
	}
	other := errors.New("another")
	if err := callError("C_Sign", other); !errors.Is(err, other) || !strings.Contains(err.Error(), "C_Sign") {
		t.Errorf("callError() = %v, want one that wraps %v", err, other)
	}
	if err := callError("C_Sign", nil); err != nil {
		t.Errorf("callError(nil) = %v, want nil", err)
	}
}
