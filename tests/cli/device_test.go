package cli

import (
	"encoding/base64"
	"os"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hsm-kp/hsm-kp/tests/program"
)

// deviceKey SUITE NAME makes the key pair of a device with Go's HPKE: NAME.key, and NAME.pub in
// base64.
func deviceKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: devicekey SUITE NAME")
	}
	suite, err := strconv.Atoi(args[0])
	ts.Check(err)
	d, err := program.NewDevice(suite)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]+".key"), d.PrivateKey(), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]+".pub"), []byte(base64.StdEncoding.EncodeToString(d.PublicKey())), 0o600))
}

// deviceOpens N KEY RESULTS opens what was released to the device with the key, checks that the
// private keys are those of the key packages, and asserts how many there are. Negated, it asserts
// that none of them opens.
func deviceOpens(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: deviceopens N KEY RESULTS")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	results, err := program.ParseProvisioned(strings.NewReader(ts.ReadFile(args[2])))
	ts.Check(err)
	opened := 0
	for _, device := range results {
		for _, k := range device.KeyPackages {
			if k.Released == nil {
				continue
			}
			if _, _, err := program.Open([]byte(ts.ReadFile(args[1])), &k); (err != nil) != neg {
				ts.Fatalf("device %s, key package %s: err = %v", device.Name, k.Ref, err)
			}
			opened++
		}
	}
	if opened != want {
		ts.Fatalf("%d were released, want %d", opened, want)
	}
}
