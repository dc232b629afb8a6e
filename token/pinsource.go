package token

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"

	"golang.org/x/term"
)

// PINSource is where a PIN comes from. Read returns a PIN that the caller owns and clears,
// without a newline at its end. Errors name the source and never the PIN.
type PINSource interface {
	Read(ctx context.Context) (PIN, error)
}

// maxPIN is longer than any PIN, and any bearer token, which comes from the same sources; a
// longer file is the wrong file.
const maxPIN = 16 << 10

// Env reads the PIN from an environment variable.
func Env(name string) PINSource { return envSource(name) }

type envSource string

func (e envSource) Read(context.Context) (PIN, error) {
	value, ok := os.LookupEnv(string(e))
	if !ok {
		return PIN{}, fmt.Errorf("environment variable %s is not set", string(e))
	}
	return trimmedPIN([]byte(value)), nil
}

// File reads the PIN from a file. It fails with a *FileModeError if others than its owner may use
// the file.
func File(path string) PINSource { return fileSource(path) }

type fileSource string

func (p fileSource) Read(context.Context) (PIN, error) {
	f, err := os.Open(string(p))
	if err != nil {
		return PIN{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return PIN{}, err
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return PIN{}, &FileModeError{Path: string(p), Mode: mode}
	}
	return readAll(f, string(p))
}

// FileModeError reports a PIN file that others than its owner may use.
type FileModeError struct {
	Path string
	Mode fs.FileMode
}

// Error names the file and its mode.
func (e *FileModeError) Error() string {
	return fmt.Sprintf("file %q is open to others than its owner: mode %#o, want 0600 or less", e.Path, e.Mode)
}

// FD reads the PIN from an open file descriptor, such as the end of a pipe, to its end, and
// closes it. It can be read once, and must have been handed to the process: what the process
// opened itself does not hold a PIN, and a wrong PIN counts.
func FD(n int) PINSource { return &fdSource{fd: n} }

type fdSource struct {
	fd   int
	read atomic.Bool
}

func (s *fdSource) Read(ctx context.Context) (PIN, error) {
	if s.fd < 0 || s.read.Swap(true) {
		return PIN{}, fmt.Errorf("file descriptor %d cannot be read or was read before", s.fd)
	}
	name := fmt.Sprintf("file descriptor %d", s.fd)
	if err := inherited(s.fd); err != nil {
		return PIN{}, fmt.Errorf("%s: %w", name, err)
	}
	f := os.NewFile(uintptr(s.fd), name)
	if f == nil {
		return PIN{}, fmt.Errorf("%s is not open", name)
	}
	return await(ctx, func() (PIN, error) {
		defer f.Close()
		return readAll(f, name)
	})
}

// Systemd reads the PIN from a credential of the service manager: the file name in
// $CREDENTIALS_DIRECTORY. That folder belongs to the unit, so modes are not checked.
func Systemd(name string) PINSource { return systemdSource(name) }

type systemdSource string

func (s systemdSource) Read(context.Context) (PIN, error) {
	name := string(s)
	if !filepath.IsLocal(name) || name != filepath.Base(name) {
		return PIN{}, fmt.Errorf("%q is not the name of a credential", name)
	}
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return PIN{}, fmt.Errorf("credential %q: CREDENTIALS_DIRECTORY is not set", name)
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return PIN{}, err
	}
	defer f.Close()
	return readAll(f, f.Name())
}

// Prompt asks for the PIN on the terminal, without echo. The question goes to the terminal, not
// to standard output; an empty one is "PIN: ".
func Prompt(question string) PINSource {
	if question == "" {
		question = "PIN: "
	}
	return promptSource(question)
}

type promptSource string

func (p promptSource) Read(ctx context.Context) (PIN, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return PIN{}, fmt.Errorf("ask for the PIN: no terminal: %w", err)
	}
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		tty.Close()
		return PIN{}, fmt.Errorf("ask for the PIN: %w", err)
	}
	fmt.Fprint(tty, string(p))
	pin, err := await(ctx, func() (PIN, error) {
		defer tty.Close()
		b, err := term.ReadPassword(fd)
		defer clear(b)
		fmt.Fprintln(tty)
		return NewPIN(b), err
	})
	if ctx.Err() != nil {
		_ = term.Restore(fd, before) // the read goes on until the process ends; echo must not stay off
	}
	return pin, err
}

// Static is a PIN that is known already, for tests and for tokens just made. The caller keeps p
// and clears it.
func Static(p PIN) PINSource { return staticSource{p} }

type staticSource struct{ pin PIN }

func (s staticSource) Read(context.Context) (PIN, error) { return NewPIN(s.pin.Reveal()), nil }

// await runs a read that cannot be interrupted and stops waiting for it when ctx is done.
func await(ctx context.Context, read func() (PIN, error)) (PIN, error) {
	type result struct {
		pin PIN
		err error
	}
	done := make(chan result, 1)
	go func() {
		pin, err := read()
		done <- result{pin, err}
	}()
	select {
	case r := <-done:
		return r.pin, r.err
	case <-ctx.Done():
		return PIN{}, ctx.Err()
	}
}

func readAll(r io.Reader, name string) (PIN, error) {
	// One buffer of full size: growing would leave copies of the PIN behind.
	b := make([]byte, maxPIN+1)
	defer clear(b)
	n, err := io.ReadFull(r, b)
	switch {
	case err == nil:
		return PIN{}, fmt.Errorf("%s: longer than %d bytes", name, maxPIN)
	case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return PIN{}, err
	}
	return trimmedPIN(b[:n]), nil
}

func trimmedPIN(b []byte) PIN {
	if line, ok := bytes.CutSuffix(b, []byte("\n")); ok {
		b, _ = bytes.CutSuffix(line, []byte("\r"))
	}
	return NewPIN(b)
}
