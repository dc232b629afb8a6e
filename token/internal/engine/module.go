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
	path string // absolute, links resolved: crypto11 must get the same one
	api  Cryptoki
	one  oneCalls // nil if onecall cannot be used
	// several: the library gives each caller a state of its own, so that crypto11 would not share
	// what this package initialized. It is not used.
	several bool

	// calls is held for reading by what runs in the library, and for writing while it is
	// finalized beneath links that are in use. It is taken after mu.
	calls sync.RWMutex

	// turns keeps searches away while a key of the token or a copy of one is made. In SoftHSM an
	// unfinished copy looks like a second key of the token, and a search while it makes a key
	// fails with CKR_GENERAL_ERROR. Keys may be made at the same time.
	turns turnstile

	// logging counts the beginnings and ends of logins: it is odd during one.
	logging atomic.Uint64

	mu sync.Mutex
	// links are those of all Engines. The library is initialized while there is one.
	links    map[*link]struct{}
	held     *crypto11.Context // see hold
	initArgs string            // of C_Initialize
	pinner   runtime.Pinner    // holds initArgs
	logins   map[uint]*login   // by slot, while it has links
	// refused has, by serial, the PIN that a token refused last.
	refused map[string]pinDigest
}

// modules is the registry. C_Initialize and the login belong to the process, and so does the
// record of them.
//
// A library is never unloaded: vendors' libraries leave behind destructors for the threads that
// used them, and an unloaded destructor crashes a thread that ends later. Finalizing releases the
// rest.
var modules = struct {
	sync.Mutex
	byPath map[string]*module
}{byPath: make(map[string]*module)}

// loadModule returns the module at path, and loads it if needed.
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

// canonicalPath makes path absolute and resolves its links: to crypto11 the same file under two
// names would be two modules, and initialized twice.
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

// view runs f with the module initialized. If no link keeps it so, view finalizes it again before
// it returns, because crypto11 must be the one to initialize it. The caller holds m.mu.
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

// hold keeps the module initialized until there is a link, or letGo is called: Open looks at all
// tokens and reads the PIN before it makes one, and with C_Initialize some modules look at every
// object that they have. Only crypto11 can hold it, because crypto11 has to be the one to
// initialize the module, and only if the config names a token. Otherwise the module is
// initialized twice.
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
	m.held, _ = crypto11.Configure(c) // whoever looks next reports what is wrong
	return m.held != nil
}

// letGo ends what hold began. The caller holds m.mu.
func (m *module) letGo() {
	if m.held != nil {
		_ = m.held.Close() // it always returns nil
		m.held = nil
	}
}

// finalize finalizes the module, and tries again if that fails: as long as it is initialized,
// nobody in this process can open a token of it.
func (m *module) finalize() error {
	for range 3 {
		err := callError("C_Finalize", m.api.Finalize())
		if err == nil || FailedWith(err, CKR_CRYPTOKI_NOT_INITIALIZED) {
			return nil
		}
	}
	return callError("C_Finalize", m.api.Finalize())
}

// errOtherArgs reports a module that is open with other arguments: it can have one set of them at
// a time.
var errOtherArgs = errors.New("the module is in use with other arguments of C_Initialize")

// setArgs sets the arguments of C_Initialize.
func (m *module) setArgs(args string) error {
	if len(m.links) > 0 && args != m.initArgs {
		return errOtherArgs
	}
	m.initArgs = args
	return nil
}

// begin initializes the module, with its arguments if it has any.
func (m *module) begin() error {
	if m.initArgs == "" {
		return callError("C_Initialize", m.api.Initialize())
	}
	// The module may look at it until it is finalized, and some look even later: it stays.
	args := append([]byte(m.initArgs), 0)
	m.pinner.Pin(unsafe.SliceData(args))
	return callError("C_Initialize", m.api.Initialize(pkcs11.InitializeWithReserved(unsafe.Pointer(unsafe.SliceData(args)))))
}
