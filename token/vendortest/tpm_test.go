package vendortest_test

import (
	"testing"

	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
)

// A process has one TPM after the other, and the first is not in the way of the second.
func TestATPMIsThereForATest(t *testing.T) {
	for _, name := range []string{"first", "second"} {
		t.Run(name, func(t *testing.T) {
			cfg := vendortest.TPM(t)
			tok, err := token.Open(t.Context(), cfg)
			if err != nil {
				t.Fatalf("Open() err = %v, want nil", err)
			}
			defer tok.Close()
			var b [16]byte
			if err := tok.Random(t.Context(), b[:]); err != nil {
				t.Errorf("Random() err = %v, want nil", err)
			}
			k, err := tok.GenerateDecryptionKey(t.Context(), nil, "test")
			if err != nil {
				t.Fatalf("GenerateDecryptionKey() err = %v, want nil", err)
			}
			if err := tok.DestroyDecryptionKey(t.Context(), k); err != nil {
				t.Errorf("DestroyDecryptionKey() err = %v, want nil", err)
			}
		})
	}
}
