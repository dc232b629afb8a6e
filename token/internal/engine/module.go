package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/ThalesGroup/crypto11"
	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/token/internal/onecall"
)

// module is one PKCS#11 library in this process.
type module struct {
	path string // absolute, links resolved: crypto11 and the raw side must agree on it
	api  Cryptoki
	one  oneCalls // nil where there is no such way into it
	// several: whoever loads the library has another one, so that crypto11 does not share
	// what the raw side initialised, and is not used.
	several bool

	// calls is held for reading by what runs in the library, and for writing while it is
	// finalised under those who have it open. It is taken after mu.
	calls sync.RWMutex

	// turns keeps searches away while a key of the token or a copy of one is made. In SoftHSM an
	// unfinished copy looks like a second key of the token, and a search while it makes a key
	// fails with CKR_GENERAL_ERROR. Keys may be made at the same time.
	turns turnstile

	// logging counts the beginnings and the ends of logins: it is odd while one is made.
	logging atomic.Uint64

	mu sync.Mutex
	// links are what Tokens have of their tokens. While there is one, the library is
	// initialised; otherwise it is not.
	links    map[*link]struct{}
	held     *crypto11.Context // see hold
	initArgs string            // of C_Initialize
	pinner   runtime.Pinner    // holds them
	logins   map[uint]*login   // by slot, while there are links to it
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
	m := &module{
		path: canonical, api: ctx,
		links: make(map[*link]struct{}), logins: make(map[uint]*login), refused: make(map[string]pinDigest),
	}
	if one, err := onecall.Open(canonical); err == nil {
		if m.several = one.Several(); !m.several {
			m.one = one
		}
	}
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
func (m *module) view(f func(Cryptoki) error) error {
	if len(m.links) > 0 || m.held != nil {
		return f(m.api)
	}
	if err := m.begin(); err != nil {
		return err
	}
	err := f(m.api)
	return errors.Join(err, m.finalize())
}

// hold keeps the module initialised until there is a link, or letGo is called: Open looks at all
// tokens and reads the PIN before it makes one, and C_Initialize costs some modules a look at every
// object that they have. Only crypto11 can do so, which has to be the one to initialise the module,
// and where it is told of a token: else the module is initialised twice, as it is without.
func (m *module) hold(cfg Config) (held bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.links) > 0 || m.held != nil || m.several || cfg.Quirks.InitArgs != "" || m.initArgs != "" {
		return false
	}
	c := &crypto11.Config{Path: m.path, MaxSessions: 2, LoginNotSupported: true}
	switch {
	case cfg.Want.Serial != "":
		c.TokenSerial = cfg.Want.Serial
	case cfg.Want.Label != "":
		c.TokenLabel = cfg.Want.Label
	case cfg.Want.Slot != nil:
		slot := int(*cfg.Want.Slot)
		c.SlotNumber = &slot
	default:
		return false
	}
	m.held, _ = crypto11.Configure(c) // what is wrong is told by whoever looks next
	return m.held != nil
}

// letGo ends what hold began. The caller holds m.mu.
func (m *module) letGo() {
	if m.held != nil {
		_ = m.held.Close() // it always returns nil
		m.held = nil
	}
}

// finalize finalises the module, and tries again where that fails: as long as it is
// initialised, nobody in this process can open a token of it.
func (m *module) finalize() error {
	for range 3 {
		err := callError("C_Finalize", m.api.Finalize())
		if err == nil || FailedWith(err, CKR_CRYPTOKI_NOT_INITIALIZED) {
			return nil
		}
	}
	return callError("C_Finalize", m.api.Finalize())
}

// errOtherArgs reports a module that is open with other arguments: it can have one set of
// them at a time.
var errOtherArgs = errors.New("the module is in use with other arguments of C_Initialize")

// setArgs sets the arguments of C_Initialize.
func (m *module) setArgs(args string) error {
	if len(m.links) > 0 && args != m.initArgs {
		return errOtherArgs
	}
	m.initArgs = args
	return nil
}

// begin initialises the module, with its arguments where it has some.
func (m *module) begin() error {
	if m.initArgs == "" {
		return callError("C_Initialize", m.api.Initialize())
	}
	// The module may look at it until it is finalised, and some after that: it stays.
	args := append([]byte(m.initArgs), 0)
	m.pinner.Pin(unsafe.SliceData(args))
	return callError("C_Initialize", m.api.Initialize(pkcs11.InitializeWithReserved(unsafe.Pointer(unsafe.SliceData(args)))))
}
