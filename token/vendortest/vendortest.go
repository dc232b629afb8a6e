// Package vendortest gives tests tokens of other makes than SoftHSM, and SoftHSM's behind another
// module: NSS softoken, a TPM in software, and a p11-kit server.
//
// If something that makes a token is not installed, the test is skipped, and fails if CI=true:
// scripts/install-deps test installs all of it.
package vendortest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// missing skips a test that cannot run, or fails it if CI=true.
func missing(tb testing.TB, err error) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatal(err)
	}
	tb.Skip(err)
}

// requireProgram returns the path of a program, by the first of its names that is found.
func requireProgram(tb testing.TB, names ...string) string {
	tb.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(tb, fmt.Errorf("none of %v is installed", names))
	return ""
}

// requireModule returns the first file that matches one of the patterns.
func requireModule(tb testing.TB, patterns ...string) string {
	tb.Helper()
	for _, pattern := range patterns {
		if found, _ := filepath.Glob(pattern); len(found) > 0 { // the patterns are all well formed
			return found[0]
		}
	}
	missing(tb, fmt.Errorf("none of %v is installed", patterns))
	return ""
}

// setenv sets a variable until the test ends. Unlike tb.Setenv it may be used in parallel
// tests, whose modules do not share the variable.
func setenv(tb testing.TB, name, value string) {
	tb.Helper()
	before, was := os.LookupEnv(name)
	if err := os.Setenv(name, value); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if was {
			os.Setenv(name, before)
		} else {
			os.Unsetenv(name)
		}
	})
}
