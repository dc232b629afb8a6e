package token

import (
	"context"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/token/internal/engine"
)

// What a zero field of Config stands for.
const (
	defaultSessions = 8
	defaultTimeout  = 30 * time.Second
	defaultPatience = time.Minute
)

// Config says which token to open and how. Label, Serial, Slot, Manufacturer
// and Model narrow the choice; an empty one fits any token, and exactly one
// initialized token must fit them all.
type Config struct {
	Module       string // path of the PKCS#11 library
	Label        string // CK_TOKEN_INFO label, without padding
	Serial       string // CK_TOKEN_INFO serialNumber, without padding
	Slot         *uint  // slot ID; may change between runs, so label or serial are better
	Manufacturer string // CK_TOKEN_INFO manufacturerID, without padding
	Model        string // CK_TOKEN_INFO model, without padding

	// PIN is read once by Open, after the token is found. It may be nil for a token that
	// needs no login. The Token keeps what was read until Close, to log in again if the
	// login is lost.
	PIN PINSource

	// Refusals remember refused PINs across processes; nil: within this one only.
	Refusals Refusals
	// ForceLogin sends the PIN even if the token reports that a wrong one was sent since
	// the last right one, or that one more locks it.
	ForceLogin bool

	// Sessions is how many operations may run at once; 0 is 8. The token sees that many
	// sessions and one or two more, and with LibraryCalls up to twice as many. It is lowered
	// to what the token allows.
	Sessions int

	// Timeout is how long the module may take to answer; 0 is 30 s. What takes longer is
	// ErrStuck, and the Token is of no use afterwards.
	Timeout time.Duration
	// Patience is how long an operation is tried again when the session, the login, the
	// device or the module is gone; 0 is a minute, and a negative value gives up at once.
	Patience time.Duration
	// Observe, if not nil, is called with each step of a recovery and with its success. The
	// goroutine that met the fault calls it. It must not use the Token.
	Observe func(Recovery) `json:"-"`
	// Watch, if not nil, is called after each call that a session makes into the module. It
	// is called while the session is held: it must be quick, and must not use the Token.
	Watch func(Call) `json:"-"`

	Quirks Quirks
}

// Quirks are what some modules need and others do not.
type Quirks struct {
	// InitArgs is the parameter string of C_Initialize (pReserved), as NSS wants it.
	// crypto11 cannot pass it and is then not used.
	InitArgs string
	// LibraryCalls signs through crypto11 and seals through miekg/pkcs11, which ask for
	// lengths first, instead of calls with a buffer that is large enough.
	LibraryCalls bool
	// TokenObjects never uses session copies of keys, even if they would be faster.
	TokenObjects bool
	// KWP is the number that KeyWrapKWP has in the module; 0 is the standard's.
	KWP uint
	// UnwrapPoint gives C_UnwrapKey the public point too, as NSS wants it (CKA_NSS_DB).
	UnwrapPoint bool
	// LocalUntold ignores CKA_LOCAL: NSS reports of every key that it was not made there.
	LocalUntold bool
	// OneAtATime makes no call while another one runs: the client of p11-kit 0.24 answers one
	// at a time in any case, and never returns from some if its server goes meanwhile.
	OneAtATime bool
	// TokenNonce has the token make the nonces of AES-GCM, as AWS CloudHSM requires.
	TokenNonce bool
	// Gone are codes of the vendor's own (CKR_VENDOR_DEFINED and above) that mean that the
	// device or the way to it is gone. They are recovered from as CKR_DEVICE_ERROR is.
	Gone []RV
}

// Token is an open token with the user logged in. Its methods may be called by
// several goroutines at once, and return ErrClosed after Close.
//
// An operation that fails because the session, the login, the device or the module is
// gone is tried again for as long as Config.Patience: see Recovery. Keys are found
// again by their CKA_ID; one that is not the same key any more is ErrKeyChanged, and
// the Token does nothing more then. What makes an object that stays in the token, or
// destroys one, is never repeated.
type Token struct {
	engine  *engine.Engine
	index   index
	copying [Ed448 + 1]engine.Experience // with signature keys, by curve
}

// Open finds the token, reads the PIN and logs in. The PIN is tried once: after
// a refusal (ErrPIN) the same PIN is not sent to that token again by this
// process, nor by any other that shares cfg.Refusals, because tokens lock. A token
// that reports that a wrong PIN was sent to it is ErrPINAtRisk, unless cfg.ForceLogin is
// set. Another Token on the same token shares its login; its PIN must be the same.
// Open itself is not tried again: its caller can do so.
//
// Errors: ErrModule, ErrNoToken, ErrAmbiguousToken, ErrUninitialized,
// ErrPINSource, ErrPIN, ErrPINAtRisk, ErrStuck, *Error.
func Open(ctx context.Context, cfg Config) (*Token, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	e, err := engine.Open(ctx, cfg.engine())
	if err != nil {
		return nil, err
	}
	return &Token{engine: e}, nil
}

// engine is the Config of the engine.
func (cfg Config) engine() engine.Config {
	c := engine.Config{
		Module:      cfg.Module,
		Want:        engine.Criteria{Label: cfg.Label, Serial: cfg.Serial, Slot: cfg.Slot, Manufacturer: cfg.Manufacturer, Model: cfg.Model},
		Credentials: cfg.credentials,
		Sessions:    orDefault(cfg.Sessions, defaultSessions),
		Timeout:     orDefault(cfg.Timeout, defaultTimeout),
		Patience:    orDefault(cfg.Patience, defaultPatience),
		Quirks:      engine.Quirks(cfg.Quirks),
	}
	if observe := cfg.Observe; observe != nil {
		c.Observe = func(r engine.Recovery) { observe(recoveryOf(r)) }
	}
	if watch := cfg.Watch; watch != nil {
		c.Watch = func(call engine.Call) { watch(Call(call)) }
	}
	return c
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v == 0 {
		return otherwise
	}
	return v
}

// credentials reads the PIN, unless the token needs none.
func (cfg Config) credentials(ctx context.Context, info Info) (engine.Credentials, error) {
	c := engine.Credentials{Force: cfg.ForceLogin}
	if cfg.Refusals != nil {
		c.Refusals = engineRefusals{cfg.Refusals}
	}
	if cfg.PIN == nil {
		if info.LoginRequired {
			return c, fmt.Errorf("%w: no source given", ErrPINSource)
		}
		return c, nil
	}
	pin, err := cfg.PIN.Read(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return c, ctx.Err()
		}
		return c, fmt.Errorf("%w: %w", ErrPINSource, err)
	}
	if len(pin.Reveal()) == 0 {
		return c, fmt.Errorf("%w: it is empty", ErrPINSource)
	}
	c.PIN = pin.secret
	return c, nil
}

// Beside opens another Token on the same token, with the same PIN, and with the quirks that
// it has except for LibraryCalls and TokenObjects.
func (t *Token) Beside(quirks Quirks) (*Token, error) {
	other, err := t.engine.Beside(quirks.LibraryCalls, quirks.TokenObjects)
	if err != nil {
		return nil, err
	}
	return &Token{engine: other}, nil
}

// Close waits for the running operations, closes the sessions, and finalizes the
// module if this was its last Token. SoftHSM has to be finalized before the
// process exits. Closing again does nothing. A module that does not answer is
// ErrStuck, and stays as it is.
func (t *Token) Close() error { return t.engine.Close() }

// Info describes the token as it was when it was opened, or found again.
func (t *Token) Info() Info { return t.engine.Info() }

// Sessions returns how many operations run at once.
func (t *Token) Sessions() int { return t.engine.Sessions() }

// Usage is how a Token is used at a moment.
type Usage struct {
	Open    bool // there are sessions, and a login if the token wants one
	Limit   int  // of operations at once; less than Sessions if the token gave fewer
	InUse   int  // sessions that an operation has
	Idle    int  // sessions that wait for one
	Waiting int  // operations that wait for a session
	Over    bool // the Token does nothing more
}

// Usage returns how the Token is used at the moment. It makes no call and waits for none.
func (t *Token) Usage() Usage { return Usage(t.engine.Usage()) }

// Random fills b from the token's random number generator (C_GenerateRandom).
func (t *Token) Random(ctx context.Context, b []byte) error {
	r, err := do(ctx, t, func(s session) ([]byte, error) { return s.Random(len(b)) })
	if err != nil {
		return fmt.Errorf("generate random bytes: %w", err)
	}
	copy(b, r)
	clear(r)
	return nil
}
