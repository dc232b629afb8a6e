package softhsm

import (
	"errors"
	"fmt"
	"os"
)

// ErrNotInstalled: SoftHSM's PKCS#11 library is not on this machine.
var ErrNotInstalled = errors.New("SoftHSM is not installed")

// moduleVariable is the environment variable with the path of the library.
const moduleVariable = "SOFTHSM2_MODULE"

// places are the paths of libsofthsm2.so on the systems that have it in a package.
var places = []string{
	"/usr/lib/softhsm/libsofthsm2.so",                   // Debian, Ubuntu, Alpine, SUSE
	"/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",  // Debian, Ubuntu
	"/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so", // Debian, Ubuntu
	"/usr/lib64/softhsm/libsofthsm2.so",                 // Fedora, RHEL, SUSE
	"/usr/lib64/pkcs11/libsofthsm2.so",                  // Fedora, RHEL
	"/usr/lib64/libsofthsm2.so",                         // RHEL
	"/usr/lib/pkcs11/libsofthsm2.so",                    // Arch
	"/usr/lib/libsofthsm2.so",                           // Arch
	"/usr/local/lib/softhsm/libsofthsm2.so",             // FreeBSD, built from source, Homebrew on Intel
	"/opt/homebrew/lib/softhsm/libsofthsm2.so",          // Homebrew
	"/home/linuxbrew/.linuxbrew/lib/softhsm/libsofthsm2.so",
	"/run/current-system/sw/lib/softhsm/libsofthsm2.so", // NixOS
}

// FindModule returns the path of SoftHSM's PKCS#11 library: the value of
// SOFTHSM2_MODULE, or the first of the usual places that exists. The error wraps
// ErrNotInstalled.
func FindModule() (string, error) {
	if path := os.Getenv(moduleVariable); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%w: %s: %w", ErrNotInstalled, moduleVariable, err)
		}
		return path, nil
	}
	for _, path := range places {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", ErrNotInstalled
}
