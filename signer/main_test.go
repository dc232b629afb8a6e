package signer_test

import (
	"flag"
	"os"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm"
)

// TestMain skips the Example without SoftHSM, as softhsmtest skips tests, because an Example
// cannot skip itself.
func TestMain(m *testing.M) {
	flag.Parse()
	if _, err := softhsm.FindModule(); err != nil && os.Getenv("CI") != "true" {
		flag.Set("test.skip", "^Example")
	}
	m.Run()
}
