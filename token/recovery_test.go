package token_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/internal/engine"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
)

// goneCodes are what modules return when something of theirs is gone.
var goneCodes = []token.RV{
	token.CKR_SESSION_HANDLE_INVALID, token.CKR_SESSION_CLOSED, token.CKR_OBJECT_HANDLE_INVALID, engine.CKR_KEY_HANDLE_INVALID,
	token.CKR_USER_NOT_LOGGED_IN, token.CKR_DEVICE_REMOVED, token.CKR_DEVICE_ERROR, token.CKR_TOKEN_NOT_PRESENT,
	token.CKR_CRYPTOKI_NOT_INITIALIZED, token.CKR_OPERATION_ACTIVE, token.CKR_SESSION_COUNT,
	engine.CKR_WRAPPING_KEY_HANDLE_INVALID, engine.CKR_UNWRAPPING_KEY_HANDLE_INVALID,
}

// faulty is a token behind a module that fails on purpose, with a key of each kind.
type faulty struct {
	*tokentest.Module
	cfg     token.Config
	tok     *token.Token
	signing *token.SigningKey
	sealing *token.WrappingKey
	keeping *token.KeyWrappingKey

	mu    sync.Mutex
	steps []token.Step
}

// took reports whether a recovery has taken a step.
func (f *faulty) took(s token.Step) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.steps, s)
}

func openFaulty(t *testing.T, change func(*token.Config)) *faulty {
	t.Helper()
	f := &faulty{cfg: softhsmtest.Config(t)}
	f.Module = tokentest.New(t, f.cfg.Module)
	f.cfg.Sessions = 4
	f.cfg.Patience = 20 * time.Second
	f.cfg.Observe = func(r token.Recovery) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.steps = append(f.steps, r.Step)
	}
	if change != nil {
		change(&f.cfg)
	}
	f.tok = f.Open(t, f.cfg)
	f.signing = generate(t, f.tok, token.P256, "key")
	var err error
	if f.sealing, err = f.tok.GenerateWrappingKey(t.Context(), nil, "sealing"); err != nil {
		t.Fatal(err)
	}
	f.keeping = keyWrappingKey(t, f.tok)
	return f
}

// operation is one that recovery may repeat.
type operation struct {
	name string
	do   func(*testing.T, *faulty) error
}

var operations = []operation{
	{"sign", func(_ *testing.T, f *faulty) error {
		input, opts := toSign(token.P256, []byte("message"))
		sig, err := f.signing.Sign(nil, input, opts)
		if err == nil && !verifies(f.signing.Public(), []byte("message"), sig) {
			err = errors.New("the signature is wrong")
		}
		return err
	}},
	{"seal and open", func(t *testing.T, f *faulty) error {
		sealed, err := f.sealing.Seal(t.Context(), &[token.NonceSize]byte{1}, []byte("text"), []byte("data"))
		if err != nil {
			return err
		}
		text, err := f.sealing.Open(t.Context(), [token.NonceSize]byte{1}, sealed, []byte("data"))
		if err == nil && string(text) != "text" {
			err = fmt.Errorf("opens as %q", text)
		}
		return err
	}},
	{"keep and use", func(t *testing.T, f *faulty) error {
		public, wrapped, err := f.keeping.GenerateWrapped(t.Context(), token.KeyWrapPad, token.P256)
		if err != nil {
			return err
		}
		return f.keeping.Fits(t.Context(), token.KeyWrapPad, public, wrapped)
	}},
	{"find", func(t *testing.T, f *faulty) error {
		_, err := f.tok.FindKeyPair(t.Context(), token.KeyQuery{ID: f.signing.ID()})
		return err
	}},
	{"list", func(t *testing.T, f *faulty) error {
		pairs, err := f.tok.KeyPairs(t.Context())
		if err == nil && len(pairs) != 1 {
			err = fmt.Errorf("%d key pairs, want 1", len(pairs))
		}
		return err
	}},
	{"random", func(t *testing.T, f *faulty) error { return f.tok.Random(t.Context(), make([]byte, 8)) }},
}

// verifies verifies a signature over the SHA-256 digest of message.
func verifies(public crypto.PublicKey, message, sig []byte) bool {
	input, _ := toSign(token.P256, message)
	return token.Verifies(public, input, sig)
}

// TestWhatIsGoneComesBack has each function fail with each code, the first time and the third
// time it is called, in every operation that may be repeated.
func TestWhatIsGoneComesBack(t *testing.T) {
	for _, copies := range []bool{false, true} {
		t.Run(fmt.Sprintf("copies=%t", copies), func(t *testing.T) {
			f := openFaulty(t, func(c *token.Config) { c.Quirks.TokenObjects = !copies })
			comesBack(t, f)
			if !copies {
				wantNoSessionObjects(t, f.tok)
			}
			if n := f.Sessions(); n > f.tok.Sessions()+2 {
				t.Errorf("%d sessions are open, want %d and those of crypto11", n, f.tok.Sessions())
			}
		})
	}
}

func comesBack(t *testing.T, f *faulty) {
	for range 40 { // copies are in use by then
		for _, op := range operations {
			if err := op.do(t, f); err != nil {
				t.Fatalf("%s err = %v, want nil", op.name, err)
			}
		}
	}
	functions := []string{
		"C_OpenSession", "C_CloseSession", "C_GetSessionInfo", "C_GetAttributeValue", "C_FindObjectsInit", "C_FindObjects",
		"C_FindObjectsFinal", "C_CopyObject", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_SignInit", "C_Sign", "C_GenerateKeyPair",
		"C_WrapKey", "C_UnwrapKey", "C_DeriveKey", "C_DestroyObject", "C_GenerateRandom",
	}
	for _, function := range functions {
		for _, code := range goneCodes {
			for _, k := range []int{1, 3} {
				for _, op := range operations {
					f.Reset()
					f.Fail(t, function, k, 1, code)
					if err := op.do(t, f); err != nil {
						t.Errorf("%s with call %d of %s failing with %v: err = %v, want nil", op.name, k, function, code.Name(), err)
					}
				}
			}
		}
	}
	f.Reset()
}

// TestTheWholeSessionTableIsLost drops the sessions, and with them the login, beneath many
// goroutines.
func TestTheWholeSessionTableIsLost(t *testing.T) {
	for _, library := range []bool{false, true} {
		t.Run(fmt.Sprintf("library=%t", library), func(t *testing.T) {
			f := openFaulty(t, func(c *token.Config) { c.Quirks.LibraryCalls = library })
			var wg sync.WaitGroup
			for worker := range 8 {
				wg.Go(func() {
					for i := range 40 {
						op := operations[(worker+i)%len(operations)]
						if err := op.do(t, f); err != nil {
							t.Errorf("%s err = %v, want nil", op.name, err)
						}
						if worker == 0 && i%10 == 5 {
							f.DropSessions()
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestADeviceThatIsAwayIsWaitedFor(t *testing.T) {
	f := openFaulty(t, nil)
	f.SetDown(true)
	var wg sync.WaitGroup
	var back atomic.Bool
	wg.Go(func() { // once the last step was taken, and tried again
		for deadline := time.Now().Add(f.cfg.Patience / 2); !f.took(token.StepModule) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(300 * time.Millisecond)
		back.Store(true)
		f.SetDown(false)
	})
	for _, op := range operations {
		wg.Go(func() {
			if err := op.do(t, f); err != nil || !back.Load() {
				t.Errorf("%s err = %v, the device was back: %v; want nil, and after it", op.name, err, back.Load())
			}
		})
	}
	wg.Wait()
	if !f.took(token.StepLogin) || !f.took(token.StepModule) {
		t.Errorf("steps = %v, want a new login and then the module initialized again", f.steps)
	}
}

func TestPatienceEnds(t *testing.T) {
	f := openFaulty(t, func(c *token.Config) { c.Patience = 300 * time.Millisecond })
	f.SetDown(true)
	start := time.Now()
	err := operations[0].do(t, f)
	if !errors.Is(err, token.CKR_DEVICE_ERROR) || !strings.Contains(err.Error(), "tried ") {
		t.Errorf("Sign() err = %v, want CKR_DEVICE_ERROR and how often it was tried", err)
	}
	if d := time.Since(start); d > 15*time.Second { // openFaulty's patience is 20 s
		t.Errorf("Sign() took %v, want some 300 ms", d)
	}
	f.SetDown(false)
	if err := operations[0].do(t, f); err != nil { // a later run goes on
		t.Errorf("Sign() once the device is back err = %v, want nil", err)
	}
}

func TestACancelledOperationIsNotTriedAgain(t *testing.T) {
	f := openFaulty(t, nil)
	f.SetDown(true)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := f.tok.Random(ctx, make([]byte, 8)); err == nil {
		t.Error("Random() err = nil, want one")
	}
	if d := time.Since(start); d > 15*time.Second {
		t.Errorf("Random() took %v after its context ended", d)
	}
}

// What makes or destroys an object that stays is tried once.
func TestGenerationIsNotTriedAgain(t *testing.T) {
	f := openFaulty(t, nil)
	before := countObjects(t, f.tok)
	for function, try := range map[string]func() error{
		"C_GenerateKeyPair": func() error {
			_, err := f.tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256})
			return err
		},
		"C_GenerateKey": func() error {
			_, err := f.tok.GenerateWrappingKey(t.Context(), nil, "once")
			return err
		},
		"C_DestroyObject": func() error { return f.tok.DestroyWrappingKey(t.Context(), f.sealing) },
	} {
		for _, code := range goneCodes {
			f.Reset()
			f.Fail(t, function, 1, 1, code)
			if err := try(); !errors.Is(err, code) {
				t.Errorf("%s failing with %v: err = %v, want it", function, code.Name(), err)
			}
			if n := f.Calls(function); n != 1 {
				t.Errorf("%s was called %d times after %v, want once", function, n, code.Name())
			}
		}
	}
	f.Reset()
	if after := countObjects(t, f.tok); after != before {
		t.Errorf("%d objects on the token, want %d", after, before)
	}
}

// A fault before the generation is recovered from, and one key is made.
func TestAGenerationBeginsInASoundSession(t *testing.T) {
	f := openFaulty(t, nil)
	for range 3 {
		f.DropSessions()
		if _, err := f.tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256}); err != nil {
			t.Fatalf("GenerateKeyPair() err = %v, want nil", err)
		}
	}
	if pairs, err := f.tok.KeyPairs(t.Context()); err != nil || len(pairs) != 4 {
		t.Errorf("KeyPairs() = %d pairs, %v, want 4", len(pairs), err)
	}
}

func TestBadDataStartsNoRecovery(t *testing.T) {
	f := openFaulty(t, nil)
	sealed, err := f.sealing.Seal(t.Context(), &[token.NonceSize]byte{1}, []byte("text"), nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed[0] ^= 1
	if _, err := f.sealing.Open(t.Context(), [token.NonceSize]byte{1}, sealed, nil); !errors.Is(err, token.ErrDecrypt) {
		t.Errorf("Open() err = %v, want %v", err, token.ErrDecrypt)
	}
	public, wrapped, err := f.keeping.GenerateWrapped(t.Context(), token.KeyWrapPad, token.P256)
	if err != nil {
		t.Fatal(err)
	}
	wrapped[20] ^= 1
	if err := f.keeping.Fits(t.Context(), token.KeyWrapPad, public, wrapped); !errors.Is(err, token.ErrDecrypt) {
		t.Errorf("Fits() err = %v, want %v", err, token.ErrDecrypt)
	}
	if len(f.steps) != 0 {
		t.Errorf("steps = %v, want none", f.steps)
	}
}

func TestAVendorsOwnCodeIsRecoveredFromWhereItIsNamed(t *testing.T) {
	const own = token.RV(0x80000381)
	for name, gone := range map[string][]token.RV{"named": {0x80000002, own}, "not named": nil} {
		t.Run(name, func(t *testing.T) {
			f := openFaulty(t, func(cfg *token.Config) { cfg.Quirks.Gone = gone })
			f.Fail(t, "C_Sign", 1, 2, own)
			input, opts := toSign(token.P256, []byte("message"))
			sig, err := f.signing.Sign(nil, input, opts)
			if gone != nil && (err != nil || !verifies(f.signing.Public(), []byte("message"), sig)) {
				t.Errorf("Sign() = %x, %v, want a signature", sig, err)
			}
			if gone == nil && !errors.Is(err, own) {
				t.Errorf("Sign() err = %v, want %v", err, own)
			}
			if recovered := slices.Contains(f.steps, token.StepLogin); recovered != (gone != nil) {
				t.Errorf("steps = %v", f.steps)
			}
		})
	}
}

// replace puts another key under the ID of one in use, and drops the sessions, so that the key is
// found again.
func TestAnotherKeyUnderTheSameIDStopsEverything(t *testing.T) {
	t.Run("signature key", func(t *testing.T) {
		f := openFaulty(t, nil)
		id := f.signing.ID()
		other := f.Open(t, f.cfg)
		if _, err := other.DestroyByID(t.Context(), id, token.ClassPrivateKey, token.ClassPublicKey); err != nil {
			t.Fatal(err)
		}
		if _, err := other.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256, ID: id}); err != nil {
			t.Fatal(err)
		}
		wantChanged(t, f, operations[0])
	})
	t.Run("wrapping key", func(t *testing.T) {
		f := openFaulty(t, nil)
		if err := operations[1].do(t, f); err != nil {
			t.Fatal(err)
		}
		id := f.sealing.ID()
		other := f.Open(t, f.cfg)
		if _, err := other.DestroyByID(t.Context(), id, token.ClassSecretKey); err != nil {
			t.Fatal(err)
		}
		if _, err := other.GenerateWrappingKey(t.Context(), id, "other"); err != nil {
			t.Fatal(err)
		}
		wantChanged(t, f, operations[1])
	})
	t.Run("key-wrapping key", func(t *testing.T) {
		f := openFaulty(t, nil)
		if err := operations[2].do(t, f); err != nil {
			t.Fatal(err)
		}
		id := f.keeping.ID()
		other := f.Open(t, f.cfg)
		if _, err := other.DestroyByID(t.Context(), id, token.ClassSecretKey); err != nil {
			t.Fatal(err)
		}
		if _, err := other.GenerateKeyWrappingKey(t.Context(), id, "other"); err != nil {
			t.Fatal(err)
		}
		wantChanged(t, f, operations[2])
	})
}

func wantChanged(t *testing.T, f *faulty, op operation) {
	t.Helper()
	f.DropSessions()
	if err := op.do(t, f); !errors.Is(err, token.ErrKeyChanged) {
		t.Errorf("%s err = %v, want %v", op.name, err, token.ErrKeyChanged)
	}
	if err := f.tok.Random(t.Context(), make([]byte, 8)); !errors.Is(err, token.ErrKeyChanged) {
		t.Errorf("Random() afterwards err = %v, want %v", err, token.ErrKeyChanged)
	}
}

// It runs in a process of its own: a module that does not answer cannot be finalized.
func TestAStuckModuleEndsWithASentence(t *testing.T) {
	if os.Getenv("HSM_KP_TEST_STUCK") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestAStuckModuleEndsWithASentence$", "-test.v")
		cmd.Env = append(os.Environ(), "HSM_KP_TEST_STUCK=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("in a process of its own: %v\n%s", err, out)
		}
		return
	}
	f := openFaulty(t, func(c *token.Config) { c.Timeout = time.Second })
	f.SetLatency(10 * time.Minute)
	start := time.Now()
	for range 2 { // the second fails at once
		if err := operations[0].do(t, f); !errors.Is(err, token.ErrStuck) {
			t.Errorf("Sign() err = %v, want %v", err, token.ErrStuck)
		}
	}
	if err := f.tok.Close(); err != nil && !errors.Is(err, token.ErrStuck) {
		t.Errorf("Close() err = %v, want nil or %v", err, token.ErrStuck)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v, want some 1 s", d)
	}
}

// Many calls may take longer than one.
func TestASlowListIsNotStuck(t *testing.T) {
	f := openFaulty(t, func(c *token.Config) { c.Timeout = time.Second })
	f.SetLatency(25 * time.Millisecond)
	defer f.SetLatency(0)
	start := time.Now()
	if _, err := f.tok.KeyPairs(t.Context()); err != nil {
		t.Errorf("KeyPairs() err = %v, want nil", err)
	}
	if _, err := f.tok.Objects(t.Context()); err != nil {
		t.Errorf("Objects() err = %v, want nil", err)
	}
	if d := time.Since(start); d < time.Second {
		t.Skipf("it took %v only", d)
	}
}

func TestFewerSessionsThanThought(t *testing.T) {
	f := openFaulty(t, nil)
	f.SetSessions(2)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if err := operations[0].do(t, f); err != nil {
					t.Errorf("Sign() err = %v, want nil", err)
				}
			}
		})
	}
	wg.Wait()
}

// Two Tokens on a module: one has it initialized again beneath the other.
func TestTheOtherTokenOfTheModuleRecoversToo(t *testing.T) {
	f := openFaulty(t, nil)
	other := f.Open(t, f.cfg)
	for range 5 {
		f.Fail(t, tokentest.Any, 1, 3, token.CKR_CRYPTOKI_NOT_INITIALIZED)
		if err := operations[0].do(t, f); err != nil {
			t.Errorf("Sign() err = %v, want nil", err)
		}
		f.Reset()
		if err := other.Random(t.Context(), make([]byte, 8)); err != nil {
			t.Errorf("Random() of the other err = %v, want nil", err)
		}
		if err := operations[1].do(t, f); err != nil {
			t.Errorf("Seal() err = %v, want nil", err)
		}
	}
}

// Nothing is left over: no goroutine, no session, no file descriptor.
func TestRecoveriesLeaveNothingBehind(t *testing.T) {
	f := openFaulty(t, nil)
	disturb := func() {
		for i := range 30 {
			f.Reset()
			f.Fail(t, tokentest.Any, 1+i%4, 1, goneCodes[i%len(goneCodes)])
			for _, op := range operations {
				if err := op.do(t, f); err != nil {
					t.Fatalf("%s err = %v, want nil", op.name, err)
				}
			}
		}
		f.Reset()
	}
	disturb()
	goroutines, files, sessions := settled(t), openFiles(t), f.Sessions()
	disturb()
	n := settled(t)
	for deadline := time.Now().Add(time.Minute); n > goroutines+2 && time.Now().Before(deadline); {
		n = settled(t)
	}
	if n > goroutines+2 {
		t.Errorf("%d goroutines, want %d as before", n, goroutines)
	}
	if n := openFiles(t); n > files+4 {
		t.Errorf("%d files are open, want %d as before", n, files)
	}
	if n := f.Sessions(); n > max(sessions, f.tok.Sessions()+2) {
		t.Errorf("%d sessions are open, want %d as before", n, sessions)
	}
	if err := f.tok.Close(); err != nil {
		t.Errorf("Close() err = %v, want nil", err)
	}
	if n := f.Sessions(); n != 0 {
		t.Errorf("%d sessions are open after Close, want none", n)
	}
}

// settled returns the number of goroutines once those that end have ended.
func settled(t *testing.T) int {
	t.Helper()
	time.Sleep(200 * time.Millisecond)
	return runtime.NumGoroutine()
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(entries)
}

func countObjects(t *testing.T, tok *token.Token) int {
	t.Helper()
	all, err := tok.Objects(t.Context())
	if err != nil {
		t.Fatalf("Objects() err = %v, want nil", err)
	}
	return len(all)
}
