package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hsm-kp/hsm-kp/config"
	"github.com/hsm-kp/hsm-kp/softhsm"
	"github.com/hsm-kp/hsm-kp/tests/program"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
)

// onAnyToken are the scripts of SoftHSM that need no more of a token than suite 2.
var onAnyToken = []string{
	"audit", "claim", "decrypt", "identity_existing_key", "identity_rotate", "identity_rotate_x509", "interrupt", "last_resort",
	"lifetime", "records", "sweep", "sweep_repairs", "tampered", "unwrap", "welcome_states",
	"wrap_key", "wrap_key_damaged", "wrap_key_schedule", "wrap_key_wrap",
}

// The scripts of SoftHSM run on NSS: the test makes what `init --softhsm kp` makes with SoftHSM.
func TestScriptsOnNSS(t *testing.T) {
	files := []string{filepath.Join("testdata", "vendors", "nss.txtar")}
	for _, name := range onAnyToken {
		files = append(files, filepath.Join("testdata", "script", name+".txtar"))
	}
	bin := besides(t, program.Build(t))
	p := params(t, bin)
	p.Files = files
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		if err := setup(e); err != nil {
			return err
		}
		d := vendortest.NewDatabase(t)
		e.Setenv("PIN_FILE", d.PINPath)
		return writeNSS(e, d)
	}
	testscript.Run(t, p)
}

func TestScriptsBehindP11Kit(t *testing.T) {
	program.RequireSoftHSM(t)
	real, err := softhsm.Create(t.Context(), t.TempDir(), softhsm.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range real.Environ() {
		t.Setenv(name, value) // for the server
	}
	server := vendortest.P11Kit(t, real.Config())
	p := params(t, program.Build(t))
	p.Files = []string{filepath.Join("testdata", "vendors", "p11kit.txtar")}
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		if err := setup(e); err != nil {
			return err
		}
		return writeConfig(e, map[string]string{
			`(?m)^  module: .*$`:         "  module: " + server.Module,
			`(?m)^  label: .*$`:          "  label: " + real.Label,
			`(?m)^    file: .*$`:         "    file: " + real.PINPath,
			`(?m)^  # vendor: .*$`:       "  vendor: p11-kit",
			`(?m)^  environment: \{\}\n`: "  environment:\n    P11_KIT_SERVER_ADDRESS: " + server.Address + "\n",
		})
	}
	testscript.Run(t, p)
}

// besides puts a program in front of hsm-kp that, for `init --softhsm DIR`, runs `init` with the
// config in DIR if there is one.
func besides(t *testing.T, bin string) string {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf(`#!/bin/sh
[ "$1 $2" = "init --softhsm" ] && [ -e "$3/hsm-kp.yaml" ] && { dir=$3; shift 3; set -- --config "$dir/hsm-kp.yaml" init "$@"; }
exec %s/hsm-kp "$@"
`, bin)
	if err := os.WriteFile(filepath.Join(dir, "hsm-kp"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// writeNSS writes the config of a database.
func writeNSS(e *testscript.Env, d *vendortest.Database) error {
	return writeConfig(e, map[string]string{
		`(?m)^  module: .*$`:        "  module: " + d.Module,
		`(?m)^  label: .*$`:         "  label: " + d.Label,
		`(?m)^    file: .*$`:        "    file: " + d.PINPath,
		`(?m)^  # vendor: .*$`:      "  vendor: nss",
		`(?m)^    # init_args: .*$`: "    init_args: " + strconv.Quote(d.InitArgs),
	})
}

// writeConfig writes the sample config to kp, with some lines replaced.
func writeConfig(e *testscript.Env, lines map[string]string) error {
	dir := filepath.Join(e.WorkDir, "kp")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	text := string(config.Sample())
	for pattern, line := range lines {
		text = regexp.MustCompile(pattern).ReplaceAllLiteralString(text, line)
	}
	return os.WriteFile(filepath.Join(dir, "hsm-kp.yaml"), []byte(text), 0o644)
}
