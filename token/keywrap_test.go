package token_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
)

// agreementCurves are the curves of ECDH, with the suite that has it in its KEM.
var agreementCurves = map[token.Curve]ciphersuite.ID{
	token.P256: ciphersuite.MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
	token.P384: ciphersuite.MLS_256_DHKEMP384_AES256GCM_SHA384_P384,
	token.P521: ciphersuite.MLS_256_DHKEMP521_AES256GCM_SHA512_P521,
}

func suiteOf(tb testing.TB, c token.Curve) *ciphersuite.Suite {
	tb.Helper()
	s, ok := ciphersuite.Lookup(agreementCurves[c])
	if !ok {
		tb.Fatalf("Lookup(%v) found nothing", agreementCurves[c])
	}
	return s
}

func keyWrappingKey(tb testing.TB, tok *token.Token) *token.KeyWrappingKey {
	tb.Helper()
	k, err := tok.GenerateKeyWrappingKey(tb.Context(), nil, "key-wrapping key")
	if err != nil {
		tb.Fatalf("GenerateKeyWrappingKey() err = %v, want nil", err)
	}
	return k
}

// wrappedKey is a wrapped private key with what is needed to unwrap it.
type wrappedKey struct {
	m       token.KeyWrap
	public  *ecdh.PublicKey
	wrapped []byte
}

func generateWrapped(tb testing.TB, k *token.KeyWrappingKey, m token.KeyWrap, c token.Curve) wrappedKey {
	tb.Helper()
	public, wrapped, err := k.GenerateWrapped(tb.Context(), m, c)
	if err != nil {
		tb.Fatalf("GenerateWrapped(%v) err = %v, want nil", c, err)
	}
	return wrappedKey{m, public, wrapped}
}

// changed returns the key with other bytes in its wrapped half.
func (w wrappedKey) changed(wrapped []byte) wrappedKey { return wrappedKey{w.m, w.public, wrapped} }

func (w wrappedKey) unwrap(ctx context.Context, k *token.KeyWrappingKey, f func(ecdh.KeyExchanger) error) error {
	return k.Unwrap(ctx, w.m, w.public, w.wrapped, f)
}

// agrees agrees on a secret with a key in software, and compares.
func (w wrappedKey) agrees(ctx context.Context, k *token.KeyWrappingKey) error {
	return w.unwrap(ctx, k, func(x ecdh.KeyExchanger) error {
		peer, err := w.public.Curve().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		want, err := peer.ECDH(w.public)
		if err != nil {
			return err
		}
		got, err := x.ECDH(peer.PublicKey())
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("another secret of %d bytes", len(got))
		}
		return err
	})
}

func nothing(ecdh.KeyExchanger) error { return nil }

// eachKeyWrap runs f with each mechanism that the token has, and each curve.
func eachKeyWrap(t *testing.T, tok *token.Token, f func(t *testing.T, m token.KeyWrap, c token.Curve)) {
	k := keyWrappingKey(t, tok)
	tried := 0
	for _, m := range []token.KeyWrap{token.KeyWrapKWP, token.KeyWrapPad} {
		if _, _, err := k.GenerateWrapped(t.Context(), m, token.P256); errors.Is(err, token.CKR_MECHANISM_INVALID) {
			continue
		}
		tried++
		for c := range agreementCurves {
			t.Run(fmt.Sprintf("%v/%v", m, c), func(t *testing.T) { f(t, m, c) })
		}
	}
	if tried == 0 {
		t.Error("the token has no mechanism to wrap keys")
	}
}

// sessionObjects returns the objects beside those of the token.
func sessionObjects(t *testing.T, tok *token.Token) (infos []token.ObjectInfo) {
	t.Helper()
	all, err := tok.Objects(t.Context())
	if err != nil {
		t.Errorf("Objects() err = %v, want nil", err)
	}
	for _, info := range all {
		if info.Attributes.Token == nil || !*info.Attributes.Token {
			infos = append(infos, info)
		}
	}
	return infos
}

func wantNoSessionObjects(t *testing.T, tok *token.Token) {
	t.Helper()
	for _, info := range sessionObjects(t, tok) {
		t.Errorf("%v labelled %q is left, want no session object", info.Class, info.Label)
	}
}

func TestWhatIsEncryptedOpensThroughTheToken(t *testing.T) {
	tok := softhsmtest.Open(t)
	made := keyWrappingKey(t, tok)
	k, err := tok.FindKeyWrappingKey(t.Context(), made.ID())
	if err != nil {
		t.Fatalf("FindKeyWrappingKey() err = %v, want nil", err)
	}
	eachKeyWrap(t, tok, func(t *testing.T, m token.KeyWrap, c token.Curve) {
		s := suiteOf(t, c)
		for i := range 20 { // a secret of P-521 has a leading zero byte every other time, of others rarely
			w := generateWrapped(t, made, m, c)
			want := fmt.Appendf(nil, "group secrets %d", i)
			kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, w.public.Bytes(), "Welcome", []byte("context"), want)
			if err != nil {
				t.Fatalf("EncryptWithLabel() err = %v, want nil", err)
			}
			err = w.unwrap(t.Context(), k, func(x ecdh.KeyExchanger) error {
				private, err := hpke.NewExchangeKey(s, x)
				if err != nil {
					return err
				}
				got, err := hpke.DecryptWithLabel(private, "Welcome", []byte("context"), kemOutput, ciphertext)
				if !bytes.Equal(got, want) {
					t.Errorf("DecryptWithLabel() = %q, want %q", got, want)
				}
				return err
			})
			if err != nil {
				t.Fatalf("Unwrap() err = %v, want nil", err)
			}
		}
		wantNoSessionObjects(t, tok)
	})
}

func TestKeyWrappingKeyMayOnlyWrapAndUnwrap(t *testing.T) {
	tok := softhsmtest.Open(t)
	a, err := keyWrappingKey(t, tok).Attributes(t.Context())
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
		"Encrypt": {a.Encrypt, false}, "Decrypt": {a.Decrypt, false}, "Wrap": {a.Wrap, true},
		"Unwrap": {a.Unwrap, true}, "Sign": {a.Sign, false}, "Derive": {a.Derive, false},
	} {
		if got.value == nil || *got.value != got.want {
			t.Errorf("attribute %s is not %v", name, got.want)
		}
	}
	if faults := token.Broken(a.Custody()...); len(faults) > 0 {
		t.Errorf("Broken() = %q, want none", faults)
	}
}

func TestKeysThatWrapAndKeysThatSealAreNotMixed(t *testing.T) {
	tok := softhsmtest.Open(t)
	sealing, wrapping := wrappingKey(t, tok), keyWrappingKey(t, tok)
	if _, err := tok.FindKeyWrappingKey(t.Context(), sealing.ID()); !errors.Is(err, token.ErrUnsupported) {
		t.Errorf("FindKeyWrappingKey() of a key that seals err = %v, want ErrUnsupported", err)
	}
	w := generateWrapped(t, wrapping, token.KeyWrapPad, token.P256)
	found, err := tok.FindWrappingKey(t.Context(), wrapping.ID())
	if err != nil {
		t.Fatalf("FindWrappingKey() err = %v, want nil", err)
	}
	if opened, err := found.Open(t.Context(), [token.NonceSize]byte{}, w.wrapped, nil); err == nil {
		t.Errorf("Open() with a key that wraps = %x, want an error", opened)
	}
	if sealed, err := found.Seal(t.Context(), &[token.NonceSize]byte{}, w.wrapped, nil); err == nil {
		t.Errorf("Seal() with a key that wraps = %x, want an error", sealed)
	}
}

func TestDestroyedKeyWrappingKeyIsNotFound(t *testing.T) {
	tok := softhsmtest.Open(t)
	k := keyWrappingKey(t, tok)
	if _, err := tok.GenerateKeyWrappingKey(t.Context(), k.ID(), "again"); !errors.Is(err, token.ErrKeyExists) {
		t.Errorf("GenerateKeyWrappingKey() of a taken ID err = %v, want ErrKeyExists", err)
	}
	found, err := tok.FindKeyWrappingKey(t.Context(), k.ID())
	if err != nil || found.Label() != k.Label() || !bytes.Equal(found.ID(), k.ID()) {
		t.Fatalf("FindKeyWrappingKey() = %v, %v, want the key", found, err)
	}
	w := generateWrapped(t, k, token.KeyWrapPad, token.P256)
	if err := tok.DestroyKeyWrappingKey(t.Context(), k); err != nil {
		t.Fatalf("DestroyKeyWrappingKey() err = %v, want nil", err)
	}
	if _, err := tok.FindKeyWrappingKey(t.Context(), k.ID()); !errors.Is(err, token.ErrNotFound) {
		t.Errorf("FindKeyWrappingKey() err = %v, want ErrNotFound", err)
	}
	err = w.unwrap(t.Context(), k, nothing)
	if !errors.Is(err, token.ErrNotFound) {
		t.Errorf("Unwrap() with a destroyed key err = %v, want %v", err, token.ErrNotFound)
	}
	if _, _, err := k.GenerateWrapped(t.Context(), token.KeyWrapPad, token.P256); err == nil {
		t.Error("GenerateWrapped() with a destroyed key err = nil, want one")
	}
	wantNoSessionObjects(t, tok)
}

func TestUnwrappedKeyIsNotExtractable(t *testing.T) {
	tok := softhsmtest.Open(t)
	k := keyWrappingKey(t, tok)
	eachKeyWrap(t, tok, func(t *testing.T, m token.KeyWrap, c token.Curve) {
		w := generateWrapped(t, k, m, c)
		err := w.unwrap(t.Context(), k, func(ecdh.KeyExchanger) error {
			infos := sessionObjects(t, tok) // through another session
			if len(infos) != 1 || infos[0].Class != token.ClassPrivateKey || infos[0].KeyType == nil || *infos[0].KeyType != pkcs11.CKK_EC {
				t.Fatalf("session objects = %+v, want one EC private key", infos)
			}
			a := infos[0].Attributes
			for name, got := range map[string]struct {
				value *bool
				want  bool
			}{
				"Token": {a.Token, false}, "Private": {a.Private, true}, "Sensitive": {a.Sensitive, true},
				"Extractable": {a.Extractable, false}, "Derive": {a.Derive, true}, "Sign": {a.Sign, false},
				"Decrypt": {a.Decrypt, false}, "Unwrap": {a.Unwrap, false}, "Local": {a.Local, false},
			} {
				if got.value == nil || *got.value != got.want {
					t.Errorf("attribute %s is not %v", name, got.want)
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("Unwrap() err = %v, want nil", err)
		}
		wantNoSessionObjects(t, tok)
	})
}

func TestUnwrappedKeyIsGoneHoweverItsUseEnds(t *testing.T) {
	tok := softhsmtest.Open(t)
	k := keyWrappingKey(t, tok)
	w := generateWrapped(t, k, token.KeyWrapPad, token.P256)
	peer, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	failed := errors.New("failed")
	var kept ecdh.KeyExchanger
	for name, end := range map[string]func() error{
		"return": func() error { return nil },
		"error":  func() error { return failed },
		"panic":  func() error { panic("of f") },
	} {
		func() {
			defer func() {
				if r := recover(); (r != nil) != (name == "panic") {
					t.Errorf("%s: recovered %v", name, r)
				}
			}()
			err := w.unwrap(t.Context(), k, func(x ecdh.KeyExchanger) error {
				kept = x
				if n := len(sessionObjects(t, tok)); n != 1 {
					t.Errorf("%s: %d session objects within f, want 1", name, n)
				}
				return end()
			})
			if errors.Is(err, failed) != (name == "error") {
				t.Errorf("%s: Unwrap() err = %v", name, err)
			}
		}()
		wantNoSessionObjects(t, tok)
		secret, err := kept.ECDH(peer.PublicKey())
		if _, called := errors.AsType[*token.Error](err); err == nil || called {
			t.Errorf("%s: ECDH() after Unwrap() = %d bytes, %v, want an error without a call", name, len(secret), err)
		}
		if err := w.agrees(t.Context(), k); err != nil {
			t.Errorf("%s: Unwrap() afterwards err = %v, want nil", name, err)
		}
	}
}

func TestWhatWasNotWrappedSoDoesNotUnwrap(t *testing.T) {
	tok := softhsmtest.Open(t)
	k, other := keyWrappingKey(t, tok), keyWrappingKey(t, tok)
	eachKeyWrap(t, tok, func(t *testing.T, m token.KeyWrap, c token.Curve) {
		w := generateWrapped(t, k, m, c)
		refused := func(name string, w wrappedKey, k *token.KeyWrappingKey) {
			t.Helper()
			err := w.unwrap(t.Context(), k, func(ecdh.KeyExchanger) error {
				t.Errorf("Unwrap() of %s calls f", name)
				return nil
			})
			if !errors.Is(err, token.ErrDecrypt) {
				t.Errorf("Unwrap() of %s err = %v, want ErrDecrypt", name, err)
			}
		}
		refused("a key wrapped under another", w, other)
		for i := range w.wrapped {
			refused(fmt.Sprintf("%d bytes", i), w.changed(w.wrapped[:i:i]), k)
			damaged := bytes.Clone(w.wrapped)
			damaged[i] ^= 1 << (i % 8)
			refused(fmt.Sprintf("a key with byte %d damaged", i), w.changed(damaged), k)
		}
		refused("nothing", w.changed(nil), k)
		refused("a byte more", w.changed(append(bytes.Clone(w.wrapped), 0)), k)
		refused("eight bytes more", w.changed(append(bytes.Clone(w.wrapped), make([]byte, 8)...)), k)
		if err := w.agrees(t.Context(), k); err != nil {
			t.Errorf("Unwrap() err = %v, want nil", err)
		}
		wantNoSessionObjects(t, tok)
	})
}

func TestPrivateKeyOfAnotherPairDoesNotFit(t *testing.T) {
	tok := softhsmtest.Open(t)
	k := keyWrappingKey(t, tok)
	eachKeyWrap(t, tok, func(t *testing.T, m token.KeyWrap, c token.Curve) {
		w := generateWrapped(t, k, m, c)
		if err := k.Fits(t.Context(), m, w.public, w.wrapped); err != nil {
			t.Errorf("Fits() err = %v, want nil", err)
		}
		for of := range agreementCurves {
			other := generateWrapped(t, k, m, of)
			err := k.Fits(t.Context(), m, w.public, other.wrapped)
			if !errors.Is(err, token.ErrKeyMismatch) || errors.Is(err, token.ErrDecrypt) {
				t.Errorf("Fits() of another key on %v err = %v, want ErrKeyMismatch", of, err)
			}
		}
		wantNoSessionObjects(t, tok)
	})
}

func TestPeerOnAnotherCurveIsRefused(t *testing.T) {
	tok := softhsmtest.Open(t)
	k := keyWrappingKey(t, tok)
	w := generateWrapped(t, k, token.KeyWrapPad, token.P256)
	err := w.unwrap(t.Context(), k, func(x ecdh.KeyExchanger) error {
		if x.Curve() != ecdh.P256() || !x.PublicKey().Equal(w.public) {
			t.Errorf("the exchanger is on %v, want P-256 and the public key given", x.Curve())
		}
		for _, c := range []ecdh.Curve{ecdh.P384(), ecdh.P521(), ecdh.X25519()} {
			peer, err := c.GenerateKey(rand.Reader)
			if err != nil {
				return err
			}
			if secret, err := x.ECDH(peer.PublicKey()); err == nil {
				t.Errorf("ECDH() with a key on %v = %d bytes, want an error", c, len(secret))
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("Unwrap() err = %v, want nil", err)
	}
}

func TestWhatCannotBeWrappedIsRefused(t *testing.T) {
	tok := softhsmtest.Open(t)
	k := keyWrappingKey(t, tok)
	w := generateWrapped(t, k, token.KeyWrapPad, token.P256)
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []token.Curve{token.Ed25519, token.Ed448, 0, 99} {
		if _, _, err := k.GenerateWrapped(t.Context(), w.m, c); !errors.Is(err, token.ErrUnsupported) {
			t.Errorf("GenerateWrapped() on %v err = %v, want ErrUnsupported", c, err)
		}
		if m, err := tok.ProbeKeyWrap(t.Context(), c); !errors.Is(err, token.ErrUnsupported) {
			t.Errorf("ProbeKeyWrap(%v) = %v, %v, want ErrUnsupported", c, m, err)
		}
	}
	const cbc = token.KeyWrap(pkcs11.CKM_AES_CBC_PAD)
	_, _, errGenerate := k.GenerateWrapped(t.Context(), cbc, token.P256)
	_, errRewrap := k.Rewrap(t.Context(), w.m, w.public, w.wrapped, k, cbc)
	for name, err := range map[string]error{
		"GenerateWrapped by another mechanism": errGenerate,
		"Unwrap by another mechanism":          k.Unwrap(t.Context(), cbc, w.public, w.wrapped, nothing),
		"Rewrap by another mechanism":          errRewrap,
		"Unwrap of an X25519 key":              k.Unwrap(t.Context(), w.m, x25519.PublicKey(), w.wrapped, nothing),
		"Unwrap without a public key":          k.Unwrap(t.Context(), w.m, nil, w.wrapped, nothing),
	} {
		if !errors.Is(err, token.ErrUnsupported) {
			t.Errorf("%s err = %v, want ErrUnsupported", name, err)
		}
	}
}

func TestRewrappedKeyOpensUnderTheOtherKeyOnly(t *testing.T) {
	tok := softhsmtest.Open(t)
	from, to := keyWrappingKey(t, tok), keyWrappingKey(t, tok)
	eachKeyWrap(t, tok, func(t *testing.T, m token.KeyWrap, c token.Curve) {
		before := generateWrapped(t, from, m, c)
		rewrapped, err := from.Rewrap(t.Context(), m, before.public, before.wrapped, to, m)
		if err != nil {
			t.Fatalf("Rewrap() err = %v, want nil", err)
		}
		wantNoSessionObjects(t, tok)
		after := before.changed(rewrapped)
		for name, err := range map[string]error{
			"old key": before.agrees(t.Context(), from), "new key": after.agrees(t.Context(), to),
		} {
			if err != nil {
				t.Errorf("Unwrap() under the %s err = %v, want nil", name, err)
			}
		}
		for name, err := range map[string]error{
			"old key": after.unwrap(t.Context(), from, nothing), "new key": before.unwrap(t.Context(), to, nothing),
		} {
			if !errors.Is(err, token.ErrDecrypt) {
				t.Errorf("Unwrap() of the other's under the %s err = %v, want ErrDecrypt", name, err)
			}
		}
		if _, err := to.Rewrap(t.Context(), m, before.public, before.wrapped, from, m); !errors.Is(err, token.ErrDecrypt) {
			t.Errorf("Rewrap() of what was wrapped under another key err = %v, want ErrDecrypt", err)
		}
	})
	elsewhere := keyWrappingKey(t, softhsmtest.Open(t))
	w := generateWrapped(t, from, token.KeyWrapPad, token.P256)
	if _, err := from.Rewrap(t.Context(), w.m, w.public, w.wrapped, elsewhere, w.m); !errors.Is(err, token.ErrUnsupported) {
		t.Errorf("Rewrap() to another token err = %v, want ErrUnsupported", err)
	}
}

func TestManyGoroutinesUseWrappedKeysAtOnce(t *testing.T) {
	cfg := softhsmtest.Config(t)
	cfg.Sessions = 4
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	k := keyWrappingKey(t, tok)
	shared := generateWrapped(t, k, token.KeyWrapPad, token.P256)
	var wg sync.WaitGroup
	for n := range 16 {
		curve := []token.Curve{token.P256, token.P384, token.P521}[n%3]
		wg.Go(func() {
			for range 10 {
				public, wrapped, err := k.GenerateWrapped(t.Context(), token.KeyWrapPad, curve)
				if err != nil {
					t.Errorf("GenerateWrapped() err = %v, want nil", err)
					return
				}
				for _, w := range []wrappedKey{{token.KeyWrapPad, public, wrapped}, shared} {
					if err := w.agrees(t.Context(), k); err != nil {
						t.Errorf("Unwrap() err = %v, want nil", err)
					}
				}
				damaged := bytes.Clone(wrapped)
				damaged[n] ^= 1
				if err := k.Fits(t.Context(), token.KeyWrapPad, public, damaged); !errors.Is(err, token.ErrDecrypt) {
					t.Errorf("Fits() of a damaged key err = %v, want ErrDecrypt", err)
				}
			}
		})
	}
	wg.Wait()
	wantNoSessionObjects(t, tok)
	if n := tok.Idle(); n > cfg.Sessions {
		t.Errorf("%d sessions kept, want %d at most", n, cfg.Sessions)
	}
}

func TestExchangerMayBeUsedByManyGoroutines(t *testing.T) {
	tok := softhsmtest.Open(t)
	k := keyWrappingKey(t, tok)
	w := generateWrapped(t, k, token.KeyWrapPad, token.P256)
	var wg sync.WaitGroup
	err := w.unwrap(t.Context(), k, func(x ecdh.KeyExchanger) error {
		for range 8 {
			wg.Go(func() {
				peer, err := ecdh.P256().GenerateKey(rand.Reader)
				if err != nil {
					t.Error(err)
					return
				}
				for range 50 { // on past the end of f
					_, _ = x.ECDH(peer.PublicKey())
				}
			})
		}
		return nil
	})
	wg.Wait()
	if err != nil {
		t.Errorf("Unwrap() err = %v, want nil", err)
	}
	wantNoSessionObjects(t, tok)
}

func TestDoneContextReachesNoWrappedKey(t *testing.T) {
	tok := softhsmtest.Open(t)
	k := keyWrappingKey(t, tok)
	w := generateWrapped(t, k, token.KeyWrapPad, token.P256)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, errGenerate := k.GenerateWrapped(ctx, w.m, token.P256)
	_, errRewrap := k.Rewrap(ctx, w.m, w.public, w.wrapped, k, w.m)
	_, errProbe := tok.ProbeKeyWrap(ctx, token.P256)
	_, errObjects := tok.Objects(ctx)
	_, errKey := tok.GenerateKeyWrappingKey(ctx, nil, "key")
	_, errFind := tok.FindKeyWrappingKey(ctx, k.ID())
	for name, err := range map[string]error{
		"GenerateWrapped": errGenerate, "Rewrap": errRewrap, "ProbeKeyWrap": errProbe, "Objects": errObjects,
		"GenerateKeyWrappingKey": errKey, "FindKeyWrappingKey": errFind,
		"Unwrap": w.unwrap(ctx, k, nothing), "Fits": k.Fits(ctx, w.m, w.public, w.wrapped),
		"DestroyKeyWrappingKey": tok.DestroyKeyWrappingKey(ctx, k),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s() err = %v, want context.Canceled", name, err)
		}
	}
}

func TestKeyWrapIsFoundByTrying(t *testing.T) {
	tok := softhsmtest.Open(t)
	r, err := tok.Probe(t.Context())
	if err != nil {
		t.Fatalf("Probe() err = %v, want nil", err)
	}
	k := keyWrappingKey(t, tok)
	for c := range agreementCurves {
		m, err := tok.ProbeKeyWrap(t.Context(), c)
		if err != nil {
			t.Fatalf("ProbeKeyWrap(%v) err = %v, want nil", c, err)
		}
		if err := generateWrapped(t, k, m, c).agrees(t.Context(), k); err != nil {
			t.Errorf("Unwrap() by the %v found err = %v, want nil", m, err)
		}
		if fault := r.CustodyFault(c); fault != "" {
			t.Errorf("CustodyFault(%v) = %q, want none", c, fault)
		}
	}
	for _, c := range []token.Curve{token.Ed25519, token.Ed448, 0} {
		if r.CustodyFault(c) == "" {
			t.Errorf("CustodyFault(%v) is empty, want a reason", c)
		}
	}
	wantNoSessionObjects(t, tok)
}

// intercepted opens a token whose calls go through what wrap returns.
func intercepted(t *testing.T, wrap func(token.Cryptoki) token.Cryptoki) *token.Token {
	t.Helper()
	cfg := softhsmtest.Config(t)
	token.Intercept(t, cfg.Module, wrap)
	cfg.Patience = -1
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	t.Cleanup(func() { tok.Close() })
	return tok
}

// withoutPad is a token that does not wrap by CKM_AES_KEY_WRAP_PAD.
type withoutPad struct{ token.Cryptoki }

func (w withoutPad) WrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping, key pkcs11.ObjectHandle) ([]byte, error) {
	if m[0].Mechanism == uint(token.KeyWrapPad) {
		return nil, pkcs11.Error(pkcs11.CKR_KEY_NOT_WRAPPABLE)
	}
	return nil, pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID)
}

// lossy is a token that does not notice what is wrong with a wrapped key.
type lossy struct {
	token.Cryptoki
	mu   sync.Mutex
	last []byte // what unwrapped
}

func (l *lossy) UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping pkcs11.ObjectHandle, wrapped []byte, a []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, err := l.Cryptoki.UnwrapKey(s, m, wrapping, wrapped, a)
	if err != nil {
		return l.Cryptoki.UnwrapKey(s, m, wrapping, l.last, a)
	}
	l.last = bytes.Clone(wrapped)
	return o, err
}

// loose is a token that makes every unwrapped key extractable.
type loose struct{ token.Cryptoki }

func (l loose) UnwrapKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, wrapping pkcs11.ObjectHandle, wrapped []byte, a []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	for i := range a {
		if a[i].Type == pkcs11.CKA_EXTRACTABLE {
			a[i] = pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true)
		}
	}
	return l.Cryptoki.UnwrapKey(s, m, wrapping, wrapped, a)
}

func TestProbeSaysWhyKeysAreNotKept(t *testing.T) {
	for name, c := range map[string]struct {
		wrap func(token.Cryptoki) token.Cryptoki
		want []string
	}{
		"no mechanism": {
			func(real token.Cryptoki) token.Cryptoki { return withoutPad{real} },
			[]string{"CKM_AES_KEY_WRAP_KWP: the module has no such mechanism: C_WrapKey: CKR_MECHANISM_INVALID", "CKM_AES_KEY_WRAP_PAD: C_WrapKey: CKR_KEY_NOT_WRAPPABLE"},
		},
		"damage is not seen": {
			func(real token.Cryptoki) token.Cryptoki { return &lossy{Cryptoki: real} },
			[]string{"CKM_AES_KEY_WRAP_PAD: takes a damaged wrapped key"},
		},
		"extractable": {
			func(real token.Cryptoki) token.Cryptoki { return loose{real} },
			[]string{"CKM_AES_KEY_WRAP_PAD: unwrapped key: CKA_EXTRACTABLE is true"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tok := intercepted(t, c.wrap)
			m, err := tok.ProbeKeyWrap(t.Context(), token.P256)
			if err == nil {
				t.Fatalf("ProbeKeyWrap() = %v, want an error", m)
			}
			r, errProbe := tok.Probe(t.Context())
			if errProbe != nil {
				t.Fatalf("Probe() err = %v, want nil", errProbe)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) || !strings.Contains(r.CustodyFault(token.P256), want) {
					t.Errorf("ProbeKeyWrap() err = %v\nCustodyFault() = %s\nwant %q in both", err, r.CustodyFault(token.P256), want)
				}
			}
		})
	}
}

// failing is a token whose derivations fail or are short, or that destroys nothing.
type failing struct {
	token.Cryptoki
	derive, short, destroy bool
}

func (f *failing) DestroyObject(s pkcs11.SessionHandle, o pkcs11.ObjectHandle) error {
	if f.destroy {
		return pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)
	}
	return f.Cryptoki.DestroyObject(s, o)
}

func (f *failing) DeriveKey(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, base pkcs11.ObjectHandle, a []*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if f.derive {
		return 0, pkcs11.Error(pkcs11.CKR_DEVICE_ERROR)
	}
	if f.short {
		for i := range a {
			if a[i].Type == pkcs11.CKA_VALUE_LEN {
				a[i] = pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 16)
			}
		}
	}
	return f.Cryptoki.DeriveKey(s, m, base, a)
}

func TestFaultOfTheTokenIsNotThatOfACiphertext(t *testing.T) {
	f := &failing{}
	tok := intercepted(t, func(real token.Cryptoki) token.Cryptoki { f.Cryptoki = real; return f })
	k := keyWrappingKey(t, tok)
	s := suiteOf(t, token.P256)
	w := generateWrapped(t, k, token.KeyWrapPad, token.P256)
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, w.public.Bytes(), "Welcome", nil, []byte("group secrets"))
	if err != nil {
		t.Fatal(err)
	}
	open := func(x ecdh.KeyExchanger) error {
		private, err := hpke.NewExchangeKey(s, x)
		if err != nil {
			return err
		}
		_, err = hpke.DecryptWithLabel(private, "Welcome", nil, kemOutput, ciphertext)
		return err
	}
	f.derive = true
	if err := w.unwrap(t.Context(), k, open); !errors.Is(err, token.CKR_DEVICE_ERROR) || errors.Is(err, hpke.ErrOpen) || errors.Is(err, token.ErrDecrypt) {
		t.Errorf("Unwrap() err = %v, want CKR_DEVICE_ERROR alone", err)
	}
	silent := func(x ecdh.KeyExchanger) error { _ = open(x); return nil }
	if err := w.unwrap(t.Context(), k, silent); !errors.Is(err, token.CKR_DEVICE_ERROR) {
		t.Errorf("Unwrap() err = %v, want CKR_DEVICE_ERROR though f does not pass it on", err)
	}
	if n := tok.Idle(); n != 0 {
		t.Errorf("%d sessions kept after an error of the token, want none", n)
	}
	f.derive, f.short = false, true
	if err := w.unwrap(t.Context(), k, open); err == nil || errors.Is(err, hpke.ErrOpen) {
		t.Errorf("Unwrap() with a secret of 16 bytes err = %v, want one that is not ErrOpen", err)
	}
	f.short, f.destroy = false, true
	if err := w.unwrap(t.Context(), k, open); !errors.Is(err, token.CKR_DEVICE_ERROR) {
		t.Errorf("Unwrap() that destroys nothing err = %v, want CKR_DEVICE_ERROR", err)
	}
	if _, _, err := k.GenerateWrapped(t.Context(), w.m, token.P256); !errors.Is(err, token.CKR_DEVICE_ERROR) {
		t.Errorf("GenerateWrapped() that destroys nothing err = %v, want CKR_DEVICE_ERROR", err)
	}
	wantNoSessionObjects(t, tok) // they went with their sessions
	f.destroy = false
	if err := w.unwrap(t.Context(), k, open); err != nil {
		t.Errorf("Unwrap() err = %v, want nil", err)
	}
	ciphertext[0] ^= 1
	if err := w.unwrap(t.Context(), k, open); !errors.Is(err, hpke.ErrOpen) {
		t.Errorf("Unwrap() of a damaged ciphertext err = %v, want hpke.ErrOpen", err)
	}
	wantNoSessionObjects(t, tok)
}

func TestNothingIsDamagedOnceTheLoginIsLost(t *testing.T) {
	tok := impatient(t)
	generate(t, tok, token.P256, "its public half stays visible")
	k := keyWrappingKey(t, tok)
	w := generateWrapped(t, k, token.KeyWrapPad, token.P256)
	if err := tok.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := w.unwrap(t.Context(), k, nothing); err == nil || errors.Is(err, token.ErrDecrypt) {
		t.Errorf("Unwrap() err = %v, want one that is not ErrDecrypt", err)
	}
	_, _, errGenerate := k.GenerateWrapped(t.Context(), w.m, token.P256)
	_, errFind := tok.FindKeyWrappingKey(t.Context(), k.ID())
	_, errObjects := tok.Objects(t.Context())
	for name, err := range map[string]error{"GenerateWrapped": errGenerate, "FindKeyWrappingKey": errFind, "Objects": errObjects} {
		if !errors.Is(err, token.CKR_USER_NOT_LOGGED_IN) || errors.Is(err, token.ErrNotFound) {
			t.Errorf("%s() err = %v, want CKR_USER_NOT_LOGGED_IN", name, err)
		}
	}
}

func TestObjectsAreOfEveryKind(t *testing.T) {
	tok := softhsmtest.Open(t)
	pair, sealing, wrapping := generate(t, tok, token.P256, "pair"), wrappingKey(t, tok), keyWrappingKey(t, tok)
	infos, err := tok.Objects(t.Context())
	if err != nil {
		t.Fatalf("Objects() err = %v, want nil", err)
	}
	got := make(map[string]bool)
	for _, info := range infos {
		got[fmt.Sprintf("%v %x %s", info.Class, info.ID, info.Label)] = true
		if info.KeyType == nil || info.Attributes.Token == nil || !*info.Attributes.Token {
			t.Errorf("Objects() has %+v, want a key of the token", info)
		}
	}
	for _, want := range []string{
		fmt.Sprintf("CKO_PUBLIC_KEY %x pair", pair.ID()),
		fmt.Sprintf("CKO_PRIVATE_KEY %x pair", pair.ID()),
		fmt.Sprintf("CKO_SECRET_KEY %x %s", sealing.ID(), sealing.Label()),
		fmt.Sprintf("CKO_SECRET_KEY %x %s", wrapping.ID(), wrapping.Label()),
	} {
		if !got[want] {
			t.Errorf("Objects() lacks %s", want)
		}
	}
	if len(infos) != 4 {
		t.Errorf("Objects() = %d objects, want 4", len(infos))
	}
}

func TestNamesOfConstants(t *testing.T) {
	for got, want := range map[string]string{
		token.KeyWrapKWP.String():                   "CKM_AES_KEY_WRAP_KWP",
		token.KeyWrapPad.String():                   "CKM_AES_KEY_WRAP_PAD",
		token.KeyWrap(0x1085).String():              "CKM_0x00001085",
		token.ClassPrivateKey.String():              "CKO_PRIVATE_KEY",
		token.ObjectClass(8).String():               "CKO_0x00000008",
		fmt.Sprintf("0x%X", uint(token.KeyWrapKWP)): "0x210B",
		fmt.Sprintf("0x%X", uint(token.KeyWrapPad)): "0x210A",
	} {
		if got != want {
			t.Errorf("name is %s, want %s", got, want)
		}
	}
}
