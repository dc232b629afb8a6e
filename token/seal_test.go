package token_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
)

func wrappingKey(t testing.TB, tok *token.Token) *token.WrappingKey {
	t.Helper()
	k, err := tok.GenerateWrappingKey(t.Context(), nil, "wrapping key")
	if err != nil {
		t.Fatalf("GenerateWrappingKey() err = %v, want nil", err)
	}
	return k
}

func TestSealedOpensAgain(t *testing.T) {
	tok := softhsmtest.Open(t)
	made := wrappingKey(t, tok)
	found, err := tok.FindWrappingKey(t.Context(), made.ID())
	if err != nil {
		t.Fatalf("FindWrappingKey() err = %v, want nil", err)
	}
	if found.Label() != "wrapping key" || !bytes.Equal(found.ID(), made.ID()) {
		t.Errorf("FindWrappingKey() = %x labelled %q, want %x", found.ID(), found.Label(), made.ID())
	}
	nonce := [token.NonceSize]byte{1, 2, 3}
	for _, size := range []int{0, 1, 16, 66, 4096} {
		for _, aad := range [][]byte{nil, []byte("aad")} {
			plaintext := bytes.Repeat([]byte{7}, size)
			sealed, err := made.Seal(t.Context(), &nonce, plaintext, aad)
			if err != nil {
				t.Fatalf("Seal() of %d bytes err = %v, want nil", size, err)
			}
			if len(sealed) != size+token.TagSize {
				t.Errorf("Seal() of %d bytes = %d bytes, want %d", size, len(sealed), size+token.TagSize)
			}
			opened, err := found.Open(t.Context(), nonce, sealed, aad)
			if err != nil || !bytes.Equal(opened, plaintext) {
				t.Errorf("Open() of %d bytes = %x, %v, want the plaintext", size, opened, err)
			}
		}
	}
}

func TestWhatWasNotSealedSoDoesNotOpen(t *testing.T) {
	tok := softhsmtest.Open(t)
	k, other := wrappingKey(t, tok), wrappingKey(t, tok)
	nonce, aad := [token.NonceSize]byte{1}, []byte("aad")
	sealed, err := k.Seal(t.Context(), &nonce, []byte("plaintext"), aad)
	if err != nil {
		t.Fatalf("Seal() err = %v, want nil", err)
	}
	open := func(name string, k *token.WrappingKey, nonce [token.NonceSize]byte, sealed, aad []byte) {
		t.Helper()
		if opened, err := k.Open(t.Context(), nonce, sealed, aad); !errors.Is(err, token.ErrDecrypt) {
			t.Errorf("Open() with %s = %q, %v, want ErrDecrypt", name, opened, err)
		}
	}
	open("another key", other, nonce, sealed, aad)
	open("another nonce", k, [token.NonceSize]byte{2}, sealed, aad)
	open("other data", k, nonce, sealed, []byte("AAD"))
	open("no data", k, nonce, sealed, nil)
	for i := range sealed {
		open(fmt.Sprintf("%d bytes", i), k, nonce, sealed[:i], aad)
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		open(fmt.Sprintf("byte %d damaged", i), k, nonce, damaged, aad)
	}
	if _, err := k.Open(t.Context(), nonce, sealed, aad); err != nil {
		t.Errorf("Open() err = %v, want nil", err)
	}
}

func TestWrappingKeyMayOnlyEncryptAndDecrypt(t *testing.T) {
	tok := softhsmtest.Open(t)
	a, err := wrappingKey(t, tok).Attributes(t.Context())
	if err != nil {
		t.Fatalf("Attributes() err = %v, want nil", err)
	}
	for name, got := range map[string]struct {
		value *bool
		want  bool
	}{
		"Token": {a.Token, true}, "Private": {a.Private, true}, "Sensitive": {a.Sensitive, true},
		"AlwaysSensitive": {a.AlwaysSensitive, true}, "Extractable": {a.Extractable, false},
		"NeverExtractable": {a.NeverExtractable, true}, "Local": {a.Local, true},
		"Encrypt": {a.Encrypt, true}, "Decrypt": {a.Decrypt, true}, "Wrap": {a.Wrap, false},
		"Unwrap": {a.Unwrap, false}, "Sign": {a.Sign, false}, "Derive": {a.Derive, false},
	} {
		if got.value == nil || *got.value != got.want {
			t.Errorf("attribute %s is not %v", name, got.want)
		}
	}
}

func TestDestroyedWrappingKeyIsNotFound(t *testing.T) {
	tok := softhsmtest.Open(t)
	k := wrappingKey(t, tok)
	if _, err := tok.GenerateWrappingKey(t.Context(), k.ID(), "again"); !errors.Is(err, token.ErrKeyExists) {
		t.Errorf("GenerateWrappingKey() of a taken ID err = %v, want ErrKeyExists", err)
	}
	if err := tok.DestroyWrappingKey(t.Context(), k); err != nil {
		t.Fatalf("DestroyWrappingKey() err = %v, want nil", err)
	}
	if _, err := tok.FindWrappingKey(t.Context(), k.ID()); !errors.Is(err, token.ErrNotFound) {
		t.Errorf("FindWrappingKey() err = %v, want ErrNotFound", err)
	}
	_, err := k.Open(t.Context(), [token.NonceSize]byte{}, make([]byte, 32), nil)
	if err == nil || errors.Is(err, token.ErrDecrypt) {
		t.Errorf("Open() with a destroyed key err = %v, want another error than ErrDecrypt", err)
	}
}

// sessionCounter counts the sessions that are opened and closed.
type sessionCounter struct {
	token.Cryptoki
	opened, closed atomic.Int32
}

func (c *sessionCounter) OpenSession(slot, flags uint) (pkcs11.SessionHandle, error) {
	c.opened.Add(1)
	return c.Cryptoki.OpenSession(slot, flags)
}

func (c *sessionCounter) CloseSession(s pkcs11.SessionHandle) error {
	c.closed.Add(1)
	return c.Cryptoki.CloseSession(s)
}

func TestSessionsAreKeptAndDiscardedAfterAnError(t *testing.T) {
	cfg := softhsmtest.Config(t)
	c := &sessionCounter{}
	token.Intercept(t, cfg.Module, func(real token.Cryptoki) token.Cryptoki { c.Cryptoki = real; return c })
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	k := wrappingKey(t, tok)
	nonce := [token.NonceSize]byte{}
	for range 10 {
		if _, err := k.Seal(t.Context(), &nonce, []byte("plaintext"), nil); err != nil {
			t.Fatalf("Seal() err = %v, want nil", err)
		}
	}
	if n := c.opened.Load(); n != 1 {
		t.Errorf("%d sessions opened by operations one after the other, want 1", n)
	}
	for range 3 {
		if _, err := k.Open(t.Context(), nonce, make([]byte, 32), nil); err == nil {
			t.Fatal("Open() err = nil, want an error")
		}
	}
	if n := c.closed.Load(); n != 3 {
		t.Errorf("%d sessions closed after 3 errors, want 3", n)
	}
	if _, err := k.Seal(t.Context(), &nonce, []byte("plaintext"), nil); err != nil {
		t.Errorf("Seal() after the errors err = %v, want nil", err)
	}
	tok.Close()
	if opened, closed := c.opened.Load(), c.closed.Load(); opened != closed {
		t.Errorf("%d sessions opened and %d closed after Close(), want the same", opened, closed)
	}
}

// panicking panics in the middle of an operation.
type panicking struct{ token.Cryptoki }

func (panicking) Encrypt(pkcs11.SessionHandle, []byte) ([]byte, error) { panic("vendor") }

func TestPanicTakesNoSessionWithIt(t *testing.T) {
	cfg := softhsmtest.Config(t)
	cfg.Sessions = 1
	token.Intercept(t, cfg.Module, func(real token.Cryptoki) token.Cryptoki { return panicking{real} })
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	k := wrappingKey(t, tok)
	func() {
		defer func() { _ = recover() }()
		_, _ = k.Seal(t.Context(), &[token.NonceSize]byte{}, nil, nil)
	}()
	if n := tok.Idle(); n != 0 {
		t.Errorf("%d sessions kept after a panic, want none", n)
	}
	if err := tok.Random(t.Context(), make([]byte, 8)); err != nil {
		t.Errorf("Random() after a panic err = %v, want nil", err)
	}
}

// ownNonce is a token that makes its own nonce and returns it.
type ownNonce struct{ token.Cryptoki }

func (o ownNonce) EncryptInit(s pkcs11.SessionHandle, _ []*pkcs11.Mechanism, key pkcs11.ObjectHandle) error {
	params := pkcs11.NewGCMParams([]byte("its own iv.."), nil, 128)
	defer params.Free()
	return o.Cryptoki.EncryptInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key)
}

func TestTokenThatTakesANonceOfItsOwnIsRefused(t *testing.T) {
	cfg := softhsmtest.Config(t)
	token.Intercept(t, cfg.Module, func(real token.Cryptoki) token.Cryptoki { return ownNonce{real} })
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	if sealed, err := wrappingKey(t, tok).Seal(t.Context(), &[token.NonceSize]byte{1}, []byte("plaintext"), nil); err == nil {
		t.Errorf("Seal() = %x, want an error", sealed)
	}
	r, err := tok.Probe(t.Context())
	if err != nil || r.SealFault() == "" {
		t.Errorf("Probe() can seal = %v, %v, want false", r.SealFault() == "", err)
	}
}

func TestManyGoroutinesSignAndSealAtOnce(t *testing.T) {
	cfg := softhsmtest.Config(t)
	cfg.Sessions = 4
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	p256, ed := generate(t, tok, token.P256, "p256"), generate(t, tok, token.Ed25519, "ed25519")
	wrapping := wrappingKey(t, tok)
	var wg sync.WaitGroup
	for n := range 12 {
		wg.Go(func() {
			for i := range 25 {
				message := fmt.Appendf(nil, "message %d of %d", i, n)
				for _, k := range []*token.SigningKey{p256, ed} {
					input, opts := toSign(k.Curve(), message)
					sig, err := k.Sign(nil, input, opts)
					if err != nil {
						t.Errorf("Sign() err = %v, want nil", err)
						return
					}
					verify(t, k.Public(), input, sig)
				}
				sealAndOpen(t, wrapping, [token.NonceSize]byte{byte(n), byte(i)}, message)
			}
		})
	}
	wg.Wait()
	if n := tok.Idle(); n > cfg.Sessions {
		t.Errorf("%d sessions kept, want %d at most", n, cfg.Sessions)
	}
}

func sealAndOpen(t *testing.T, k *token.WrappingKey, nonce [token.NonceSize]byte, message []byte) {
	t.Helper()
	sealed, err := k.Seal(t.Context(), &nonce, message, message)
	if err != nil {
		t.Errorf("Seal() err = %v, want nil", err)
		return
	}
	if opened, err := k.Open(t.Context(), nonce, sealed, message); err != nil || !bytes.Equal(opened, message) {
		t.Errorf("Open() = %q, %v, want %q", opened, err, message)
	}
	if _, err := k.Open(t.Context(), nonce, sealed, nil); !errors.Is(err, token.ErrDecrypt) {
		t.Errorf("Open() with other data err = %v, want ErrDecrypt", err)
	}
}

func TestCloseWhileManySign(t *testing.T) {
	cfg := softhsmtest.Config(t)
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	p256, ed := generate(t, tok, token.P256, "p256"), generate(t, tok, token.Ed25519, "ed25519")
	var wg sync.WaitGroup
	started := make(chan struct{}, 8)
	for n := range 8 {
		k, opts := p256, crypto.SignerOpts(crypto.SHA256)
		if n%2 == 1 {
			k, opts = ed, crypto.Hash(0)
		}
		wg.Go(func() {
			started <- struct{}{}
			for {
				if _, err := k.Sign(nil, make([]byte, 32), opts); err != nil {
					if !errors.Is(err, token.ErrClosed) {
						t.Errorf("Sign() while closing err = %v, want ErrClosed", err)
					}
					return
				}
			}
		})
	}
	for range 8 {
		<-started
	}
	tok.Close()
	wg.Wait()
}

// The parameters of AES-GCM are allocated outside of Go: 256 MiB would leak here.
func TestSealFreesTheMechanismParameters(t *testing.T) {
	if residentMiB(t) == 0 {
		t.Skip("no /proc/self/status here")
	}
	tok := softhsmtest.Open(t)
	k := wrappingKey(t, tok)
	aad := make([]byte, 128<<10)
	round := func() {
		sealed, err := k.Seal(t.Context(), &[token.NonceSize]byte{}, nil, aad)
		if err != nil {
			t.Fatalf("Seal() err = %v, want nil", err)
		}
		if _, err := k.Open(t.Context(), [token.NonceSize]byte{}, sealed, aad); err != nil {
			t.Fatalf("Open() err = %v, want nil", err)
		}
	}
	for range 100 {
		round()
	}
	before := residentMiB(t)
	for range 1000 {
		round()
	}
	if grown := residentMiB(t) - before; grown > 64 {
		t.Errorf("memory grew by %d MiB, want less than 64", grown)
	}
}

func residentMiB(t *testing.T) (mib int) {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var kib int
			fmt.Sscan(rest, &kib)
			return kib >> 10
		}
	}
	return 0
}

func TestRandomFillsTheSlice(t *testing.T) {
	tok := softhsmtest.Open(t)
	a, b := make([]byte, 32), make([]byte, 32)
	if err := errors.Join(tok.Random(t.Context(), a), tok.Random(t.Context(), b), tok.Random(t.Context(), nil)); err != nil {
		t.Fatalf("Random() err = %v, want nil", err)
	}
	if bytes.Equal(a, b) || bytes.Equal(a, make([]byte, 32)) {
		t.Errorf("Random() = %x and %x, want two different ones", a, b)
	}
}

func TestDoneContextReachesNoToken(t *testing.T) {
	tok := softhsmtest.Open(t)
	k := wrappingKey(t, tok)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, errSeal := k.Seal(ctx, &[token.NonceSize]byte{}, nil, nil)
	_, errProbe := tok.Probe(ctx)
	_, errOpen := token.Open(ctx, token.Config{})
	_, errList := token.List(ctx, "", token.Quirks{})
	for name, err := range map[string]error{"Seal": errSeal, "Probe": errProbe, "Open": errOpen, "List": errList} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s() err = %v, want context.Canceled", name, err)
		}
	}
}
