package token

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/miekg/pkcs11"
)

// module is one PKCS#11 library in this process.
type module struct {
	path string // absolute, links resolved: crypto11 and the raw side must agree on it
	api  cryptoki

	mu sync.Mutex
	// users counts the Tokens open. While there is one, crypto11 keeps the
	// library initialised; otherwise it is not.
	users  int
	logins map[uint]*login // by slot, while Tokens are open on it
	// refused remembers, by serial, the PIN that a token refused last.
	refused map[string]pinDigest
}

// modules is the registry. C_Initialize and the login are the process's, so
// what keeps account of them has to be, too.
//
// A library once loaded is never unloaded: vendors' libraries leave behind
// destructors for the threads that used them, and an unloaded destructor is a
// crash in a thread that ends later. It is finalised, which releases the rest.
var modules = struct {
	sync.Mutex
	byPath map[string]*module
}{byPath: make(map[string]*module)}

// loadModule returns the module at path, loading it where it is not yet.
func loadModule(path string) (*module, error) {
	canonical, err := canonicalPath(path)
	if err != nil {
		return nil, fmt.Errorf("load module %q: %w: %w", path, ErrModule, err)
	}
	modules.Lock()
	defer modules.Unlock()
	if m, ok := modules.byPath[canonical]; ok {
		return m, nil
	}
	ctx := pkcs11.New(canonical)
	if ctx == nil {
		return nil, fmt.Errorf("load module %q: %w: %s", path, ErrModule, whyNotLoaded(canonical))
	}
	m := &module{path: canonical, api: ctx, logins: make(map[uint]*login), refused: make(map[string]pinDigest)}
	modules.byPath[canonical] = m
	return m, nil
}

// canonicalPath makes path absolute and resolves its links: the same file under
// two names would be two modules to crypto11, and initialised twice.
func canonicalPath(path string) (string, error) {
	if path == "" {
		return "", errors.New("no path given")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
			return "", pathErr.Err
		}
		return "", err
	}
	info, err := os.Stat(real)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", errors.New("not a file")
	}
	return real, nil
}

// view runs f with the module initialised. Where no Token keeps it so, it is
// finalised again before view returns, because crypto11 must be the one to
// initialise it. The caller holds m.mu.
func (m *module) view(f func(cryptoki) error) error {
	if m.users > 0 {
		return f(m.api)
	}
	if err := m.api.Initialize(); err != nil {
		return callError("C_Initialize", err)
	}
	err := f(m.api)
	return errors.Join(err, callError("C_Finalize", m.api.Finalize()))
}
