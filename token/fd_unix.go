//go:build unix

package token

import (
	"errors"

	"golang.org/x/sys/unix"
)

// inherited fails unless fd was handed to this process when it was started. What the process or
// the Go runtime opened is closed on exec; what the process was handed is not, or it would not be
// here.
func inherited(fd int) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil {
		return err
	}
	if flags&unix.FD_CLOEXEC != 0 {
		return errors.New("it was not handed to this process")
	}
	return nil
}
