//go:build unix

package token_test

import (
	"os"
	"syscall"
	"testing"
)

// dup returns a descriptor for f that its reader may close.
func dup(t *testing.T, f *os.File) int {
	t.Helper()
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}
