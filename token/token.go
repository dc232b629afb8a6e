package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// What a zero field of Config stands for.
const (
	defaultSessions = 8
	defaultTimeout  = 30 * time.Second
	defaultPatience = time.Minute
)

// Config says which token to open and how. Label, Serial, Slot, Manufacturer
// and Model narrow the choice; those left empty fit any token, and exactly one
// initialised token must fit them all.
type Config struct {
	Module       string // path of the PKCS#11 library
	Label        string // CK_TOKEN_INFO label, without padding
	Serial       string // CK_TOKEN_INFO serialNumber, without padding
	Slot         *uint  // slot ID; may change between runs, so label or serial are better
	Manufacturer string // CK_TOKEN_INFO manufacturerID, without padding
	Model        string // CK_TOKEN_INFO model, without padding

	// PIN is read once by Open, after the token is found, and may be nil for a
	// token that needs no login. The Token keeps what was read until Close, to log in
	// again where the login was lost.
	PIN PINSource

	// Refusals remember refused PINs across processes; nil: within this one only.
	Refusals Refusals
	// ForceLogin sends the PIN also where the token says that a wrong one was sent since
	// the last right one, or that one more locks it.
	ForceLogin bool

	// Sessions is how many operations may run at once; 0 is 8. The
	// token sees that many sessions and one or two more, and with LibraryCalls up to
	// twice as many. It is lowered to what the token allows.
	Sessions int

	// Timeout is how long the module may take to answer; 0 is 30 s. What takes
	// longer is ErrStuck, and the Token is of no use afterwards.
	Timeout time.Duration
	// Patience is how long an operation is tried again whose session, login, device or
	// module is gone; 0 is a minute, and less than nothing gives up at once.
	Patience time.Duration
	// Observe is told of each step of a recovery, and of its success, or nil. It is called
	// by whatever goroutine met the fault, and must not use the Token.
	Observe func(Recovery) `json:"-"`
	// Watch is told of each call that a session makes into the module, once it has returned,
	// or nil. It is called while the session is held: it must be quick, and must not use the
	// Token.
	Watch func(Call) `json:"-"`

	Quirks Quirks
}

// Quirks are what some modules need and others do not.
type Quirks struct {
	// InitArgs is the parameter string of C_Initialize (pReserved), as NSS wants it.
	// crypto11 cannot pass it, and so it is not used where there is one.
	InitArgs string
	// LibraryCalls signs through crypto11 and seals through miekg/pkcs11, which ask for
	// lengths first, in place of calls with a buffer that is big enough.
	LibraryCalls bool
	// TokenObjects never uses session copies of keys, also where they would be faster.
	TokenObjects bool
	// KWP is the number that KeyWrapKWP has in the module; 0 is the standard's.
	KWP uint
	// UnwrapPoint gives C_UnwrapKey the public point too, as NSS wants it (CKA_NSS_DB).
	UnwrapPoint bool
	// LocalUntold passes over CKA_LOCAL: NSS says of every key that it was not made there.
	LocalUntold bool
	// OneAtATime makes no call while another one runs: the client of p11-kit 0.24 answers one
	// at a time in any case, and never comes back from some where its server goes meanwhile.
	OneAtATime bool
	// TokenNonce has the token make the nonces of AES-GCM, as AWS CloudHSM does and nothing
	// else.
	TokenNonce bool
	// Gone are codes of the vendor's own (CKR_VENDOR_DEFINED and above) that say that the
	// device or the way to it is gone. They are recovered from as CKR_DEVICE_ERROR is.
	Gone []RV
}

// Token is an open token with the user logged in. Its methods may be called by
// several goroutines at once, and return ErrClosed once Close was called.
//
// An operation that fails because the session, the login, the device or the module is
// gone is tried again as long as Config.Patience lasts: see Recovery. Keys are found
// again by their CKA_ID; one that is not the same key any more is ErrKeyChanged, and
// then nothing is done with the Token any more. What makes an object that stays in the
// token, or destroys one, is never tried again by itself.
type Token struct {
	module *module
	cfg    Config // without the PIN
	creds  credentials

	// relinking is held by the one that makes or drops a link.
	relinking sync.Mutex
	link      atomic.Pointer[link]  // nil: there is none at the moment
	over      atomic.Pointer[error] // why nothing is done any more
	info      atomic.Pointer[Info]
	stuck     chan struct{} // closed once the module did not answer
	epochs    atomic.Uint64
	index     index
	copying   [Ed448 + 1]experience // with signature keys, by curve
}

// Open finds the token, reads the PIN and logs in. The PIN is tried once: after
// a refusal (ErrPIN) the same PIN is not sent to that token again by this
// process, nor by any other that shares cfg.Refusals, because tokens lock. A token
// that says that a wrong PIN was sent to it is ErrPINAtRisk, unless cfg.ForceLogin is
// set. Another Token on the same token shares its login; its PIN must be the same.
// Opening is not tried again: whoever asks for it is there to do so.
//
// Errors: ErrModule, ErrNoToken, ErrAmbiguousToken, ErrUninitialized,
// ErrPINSource, ErrPIN, ErrPINAtRisk, ErrStuck, *Error.
func Open(ctx context.Context, cfg Config) (t *Token, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cfg.Timeout = orDefault(cfg.Timeout, defaultTimeout)
	cfg.Patience = orDefault(cfg.Patience, defaultPatience)
	m, info, held, err := find(cfg)
	if held {
		defer func() { m.endHold(cfg.Timeout, err) }()
	}
	if err != nil {
		return nil, err
	}
	if cfg.Sessions, err = cfg.sessions(info); err != nil {
		return nil, fmt.Errorf("open token %q: %w", info.Label, err)
	}
	pin, err := readPIN(ctx, cfg.PIN, info)
	if err != nil {
		return nil, fmt.Errorf("log in to token %q: %w", info.Label, err)
	}
	if err := ctx.Err(); err != nil {
		pin.Clear()
		return nil, err
	}
	t = &Token{module: m, cfg: cfg, creds: credentials{pin, cfg.Refusals, cfg.ForceLogin}, stuck: make(chan struct{})}
	t.cfg.PIN = nil
	t.info.Store(&info)
	if _, err := t.connect(); err != nil {
		pin.Clear()
		return nil, err
	}
	return t, nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// Beside opens another Token on the same token, with the same PIN, and with the quirks that
// it has except for LibraryCalls and TokenObjects.
func (t *Token) Beside(quirks Quirks) (*Token, error) {
	if why := t.over.Load(); why != nil {
		return nil, *why
	}
	other := &Token{module: t.module, cfg: t.cfg, stuck: make(chan struct{})}
	other.cfg.Quirks.LibraryCalls, other.cfg.Quirks.TokenObjects = quirks.LibraryCalls, quirks.TokenObjects
	other.creds = t.creds
	other.creds.pin = NewPIN(t.creds.pin.Reveal())
	info := t.Info()
	other.info.Store(&info)
	if _, err := other.connect(); err != nil {
		other.creds.pin.Clear()
		return nil, err
	}
	return other, nil
}

// find loads the module and chooses the token. held says that the module stays initialised.
func find(cfg Config) (m *module, chosen Info, held bool, err error) {
	type found struct {
		module *module
		info   Info
		held   bool
	}
	f, err := answer(cfg.Timeout, nil, func() (f found, err error) {
		if f.module, err = loadModule(cfg.Module); err == nil {
			f.held = f.module.hold(cfg)
			f.info, err = f.module.choose(cfg)
		}
		return f, err
	})
	if errors.Is(err, ErrStuck) {
		err = fmt.Errorf("find token in %q: %w", cfg.Module, err)
	}
	return f.module, f.info, f.held, err
}

// endHold ends what hold began, where no link came of it.
func (m *module) endHold(timeout time.Duration, why error) {
	if errors.Is(why, ErrStuck) {
		return // and whoever waits for an answer has the lock
	}
	_, _ = answer(timeout, nil, func() (none, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.letGo()
		return none{}, nil
	})
}

// sessions is how many operations may run at once on the token: a session each, beside
// one that crypto11 keeps, and one while a link replaces another. With LibraryCalls
// crypto11 opens one for each operation too.
func (cfg Config) sessions(info Info) (int, error) {
	n := cfg.Sessions
	if n == 0 {
		n = defaultSessions
	}
	if n < 0 {
		return 0, fmt.Errorf("%d sessions asked for", n)
	}
	if cfg.Quirks.OneAtATime {
		n = 1
	}
	if info.MaxSessions == 0 {
		return n, nil
	}
	if info.MaxSessions < 3 {
		return 0, fmt.Errorf("it allows %d sessions, 3 are needed", info.MaxSessions)
	}
	most := info.MaxSessions - 2
	if cfg.Quirks.LibraryCalls {
		most = (info.MaxSessions - 1) / 2
	}
	return int(min(uint(n), most)), nil
}

// Close waits for the operations that run, closes the sessions, and finalises
// the module where this was its last Token. SoftHSM has to be finalised before
// the process exits. Closing again does nothing. A module that does not answer is
// ErrStuck, and stays as it is.
func (t *Token) Close() error {
	t.end(ErrClosed)
	select {
	case <-t.stuck: // and whoever waits for it has the locks
		return ErrStuck
	default:
	}
	t.relinking.Lock()
	defer t.relinking.Unlock()
	defer t.creds.pin.Clear()
	l := t.link.Swap(nil)
	if l == nil {
		return nil
	}
	if err := l.pool.drain(); err != nil {
		return err
	}
	_, err := answer(t.cfg.Timeout, nil, func() (none, error) {
		t.module.mu.Lock()
		defer t.module.mu.Unlock()
		defer t.exclusive()()
		t.module.disconnect(l)
		return none{}, nil
	})
	return err
}

// end says why nothing is done any more; the first reason stays. It reports whether
// there was none.
func (t *Token) end(why error) bool { return t.over.CompareAndSwap(nil, &why) }

// Info describes the token as it was when it was opened, or found again.
func (t *Token) Info() Info { return *t.info.Load() }

// Sessions returns how many operations run at once.
func (t *Token) Sessions() int { return t.cfg.Sessions }

// Usage is how a Token is used at a moment.
type Usage struct {
	Open    bool // there are sessions, and a login where the token wants one
	Limit   int  // of operations at once; less than Sessions where the token gave fewer
	InUse   int  // sessions that an operation has
	Idle    int  // sessions that wait for one
	Waiting int  // operations that wait for a session
	Over    bool // nothing is done with the Token any more
}

// Usage returns how the Token is used at the moment. It makes no call and waits for none.
func (t *Token) Usage() Usage {
	u := Usage{Over: t.over.Load() != nil}
	if l := t.link.Load(); l != nil {
		l.pool.usage(&u)
		u.Open = !u.Over && !l.pool.closed()
	}
	return u
}

// Random fills b from the token's random number generator (C_GenerateRandom).
func (t *Token) Random(ctx context.Context, b []byte) error {
	r, err := do(ctx, t, func(s *session) ([]byte, error) { return s.random(len(b)) })
	if err != nil {
		return fmt.Errorf("generate random bytes: %w", err)
	}
	copy(b, r)
	clear(r)
	return nil
}

func (s *session) random(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	r, err := s.api.GenerateRandom(s.handle, n)
	return r, callError("C_GenerateRandom", err)
}
