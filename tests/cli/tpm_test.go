package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
)

// TestScriptsOnATPM runs sessions of a device with a TPM and no other token. The config of each is
// tpm.yaml.
func TestScriptsOnATPM(t *testing.T) {
	device, bin := vendortest.NewDevice(t), program.Build(t)
	var environment strings.Builder
	for name, value := range device.Environ {
		fmt.Fprintf(&environment, "    %s: %q\n", name, value)
	}
	config := fmt.Sprintf(`token:
  module: %q
  label: %q
  pin:
    file: %q
  environment:
%sstore:
  url: sqlite:tpm.db
`, device.Module, device.Label, device.PINPath, environment.String())
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "tpm"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("HSM_KP_CONFIG", "tpm.yaml")
			return os.WriteFile(filepath.Join(e.WorkDir, "tpm.yaml"), []byte(config), 0o600)
		},
		Cmds:               commands(t),
		RequireUniqueNames: true,
	})
}
