package token_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"testing"

	"github.com/cloudflare/circl/sign/ed448"
	"github.com/miekg/pkcs11"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/internal/engine"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
)

func generate(t testing.TB, tok *token.Token, c token.Curve, label string) *token.SigningKey {
	t.Helper()
	k, err := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: c, Label: label})
	if err != nil {
		t.Fatalf("GenerateKeyPair(%v) err = %v, want nil", c, err)
	}
	return k
}

// toSign returns what a key on the curve signs for a message, and the option.
func toSign(c token.Curve, message []byte) ([]byte, crypto.SignerOpts) {
	switch c {
	case token.P256:
		d := sha256.Sum256(message)
		return d[:], crypto.SHA256
	case token.P384:
		d := sha512.Sum384(message)
		return d[:], crypto.SHA384
	case token.P521:
		d := sha512.Sum512(message)
		return d[:], crypto.SHA512
	}
	return message, crypto.Hash(0)
}

func verify(t *testing.T, key crypto.PublicKey, input, sig []byte) {
	t.Helper()
	ok := false
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		ok = ecdsa.VerifyASN1(key, input, sig)
	case ed25519.PublicKey:
		ok = ed25519.Verify(key, input, sig)
	case ed448.PublicKey:
		ok = ed448.Verify(key, input, sig, "")
	}
	if !ok {
		t.Errorf("signature %x by %T does not verify", sig, key)
	}
}

func TestKeyPairOfEachCurve(t *testing.T) {
	tok := softhsmtest.Open(t)
	for _, c := range token.Curves() {
		t.Run(c.String(), func(t *testing.T) {
			made := generate(t, tok, c, "key on "+c.String())
			if len(made.ID()) != 16 || made.Curve() != c {
				t.Errorf("generated ID %x on %v, want 16 bytes on %v", made.ID(), made.Curve(), c)
			}
			for _, q := range []token.KeyQuery{{ID: made.ID()}, {Label: made.Label()}, {ID: made.ID(), Label: made.Label()}} {
				found, err := tok.FindKeyPair(t.Context(), q)
				if err != nil {
					t.Fatalf("FindKeyPair(%v) err = %v, want nil", q, err)
				}
				input, opts := toSign(c, []byte("message"))
				sig, err := found.Sign(nil, input, opts)
				if err != nil {
					t.Fatalf("Sign() err = %v, want nil", err)
				}
				verify(t, made.Public(), input, sig)
			}
			if err := tok.DestroyKeyPair(t.Context(), made); err != nil {
				t.Fatalf("DestroyKeyPair() err = %v, want nil", err)
			}
			if _, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: made.ID()}); !errors.Is(err, token.ErrNotFound) {
				t.Errorf("FindKeyPair() after DestroyKeyPair() err = %v, want ErrNotFound", err)
			}
		})
	}
	if n := objects(t, tok); n != 0 {
		t.Errorf("%d objects in the token at the end, want none", n)
	}
}

// objects counts all objects in the token.
func objects(t *testing.T, tok *token.Token) int {
	t.Helper()
	api := token.Raw(t, tok.Info().Module)
	s, err := api.OpenSession(tok.Info().Slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		t.Fatal(err)
	}
	defer api.CloseSession(s)
	if err := api.FindObjectsInit(s, nil); err != nil {
		t.Fatal(err)
	}
	found, _, err := api.FindObjects(s, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func TestGeneratedKeyPairAttributes(t *testing.T) {
	tok := softhsmtest.Open(t)
	for _, c := range token.Curves() {
		a, err := generate(t, tok, c, "key").Attributes(t.Context())
		if err != nil {
			t.Fatalf("Attributes() err = %v, want nil", err)
		}
		for name, got := range map[string]struct {
			value *bool
			want  bool
		}{
			"Token": {a.Token, true}, "Private": {a.Private, true}, "Sensitive": {a.Sensitive, true},
			"AlwaysSensitive": {a.AlwaysSensitive, true}, "Extractable": {a.Extractable, false},
			"NeverExtractable": {a.NeverExtractable, true}, "Local": {a.Local, true}, "Sign": {a.Sign, true},
			"Decrypt": {a.Decrypt, false}, "Unwrap": {a.Unwrap, false}, "Derive": {a.Derive, false},
		} {
			if got.value == nil || *got.value != got.want {
				t.Errorf("%v: attribute %s is not %v", c, name, got.want)
			}
		}
		if a.Encrypt != nil {
			t.Errorf("%v: attribute Encrypt = %v on a private key, want nil", c, *a.Encrypt)
		}
	}
}

func TestTwoKeyPairsThatFitAreAnError(t *testing.T) {
	tok := softhsmtest.Open(t)
	generate(t, tok, token.P256, "twin")
	second := generate(t, tok, token.Ed25519, "twin")
	if _, err := tok.FindKeyPair(t.Context(), token.KeyQuery{Label: "twin"}); !errors.Is(err, token.ErrAmbiguousKey) {
		t.Errorf("FindKeyPair() err = %v, want ErrAmbiguousKey", err)
	}
	found, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: second.ID(), Label: "twin"})
	if err != nil || found.Curve() != token.Ed25519 {
		t.Errorf("FindKeyPair() with an ID = %v, %v, want the Ed25519 key", found, err)
	}
	_, err = tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256, ID: second.ID()})
	if !errors.Is(err, token.ErrKeyExists) {
		t.Errorf("GenerateKeyPair() of a taken ID err = %v, want ErrKeyExists", err)
	}
}

// doubled finds everything twice, as a token does if two objects have one ID.
type doubled struct{ token.Cryptoki }

func (d doubled) FindObjects(s pkcs11.SessionHandle, max int) ([]pkcs11.ObjectHandle, bool, error) {
	found, more, err := d.Cryptoki.FindObjects(s, max)
	return append(found, found...), more, err
}

func TestTwoObjectsOfOneIDAreAnError(t *testing.T) {
	cfg := softhsmtest.Config(t)
	token.Intercept(t, cfg.Module, func(real token.Cryptoki) token.Cryptoki { return doubled{real} })
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	k := generate(t, tok, token.Ed25519, "key")
	if _, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: k.ID()}); !errors.Is(err, token.ErrAmbiguousKey) {
		t.Errorf("FindKeyPair() err = %v, want ErrAmbiguousKey", err)
	}
	w, err := tok.GenerateWrappingKey(t.Context(), nil, "key")
	if err != nil {
		t.Fatalf("GenerateWrappingKey() err = %v, want nil", err)
	}
	if _, err := tok.FindWrappingKey(t.Context(), w.ID()); !errors.Is(err, token.ErrAmbiguousKey) {
		t.Errorf("FindWrappingKey() err = %v, want ErrAmbiguousKey", err)
	}
}

// impatient opens a token that does not recover from anything.
func impatient(t *testing.T) *token.Token {
	t.Helper()
	cfg := softhsmtest.Config(t)
	cfg.Patience = -1
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	t.Cleanup(func() { tok.Close() })
	return tok
}

func TestNothingIsAbsentOnceTheLoginIsLost(t *testing.T) {
	tok := impatient(t)
	k := generate(t, tok, token.P256, "key")
	w, err := tok.GenerateWrappingKey(t.Context(), nil, "key")
	if err != nil {
		t.Fatalf("GenerateWrappingKey() err = %v, want nil", err)
	}
	if err := tok.Logout(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, errKey := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: k.ID()})
	_, errWrapping := tok.FindWrappingKey(t.Context(), w.ID())
	_, errGenerate := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256, ID: k.ID()})
	_, errList := tok.KeyPairs(t.Context())
	for name, err := range map[string]error{
		"FindKeyPair": errKey, "FindWrappingKey": errWrapping, "GenerateKeyPair": errGenerate, "KeyPairs": errList,
	} {
		if !errors.Is(err, token.CKR_USER_NOT_LOGGED_IN) || errors.Is(err, token.ErrNotFound) {
			t.Errorf("%s() err = %v, want CKR_USER_NOT_LOGGED_IN", name, err)
		}
	}
}

func TestWhatDoesNotFitTheKeyIsNotSigned(t *testing.T) {
	tok := softhsmtest.Open(t)
	keys := make(map[token.Curve]*token.SigningKey)
	for _, c := range token.Curves() {
		keys[c] = generate(t, tok, c, c.String())
	}
	for _, c := range []struct {
		curve token.Curve
		size  int
		opts  crypto.SignerOpts
	}{
		{token.P256, 0, crypto.SHA256},
		{token.P256, 31, crypto.SHA256},
		{token.P256, 33, crypto.SHA256},
		{token.P256, 32, nil},
		{token.P256, 32, crypto.Hash(0)},
		{token.P256, 48, crypto.SHA384},
		{token.P256, 20, crypto.SHA1},
		{token.P384, 64, crypto.SHA512},
		{token.P521, 66, crypto.SHA512},
		{token.Ed25519, 64, crypto.SHA512},
		{token.Ed448, 64, crypto.SHA512},
	} {
		if sig, err := keys[c.curve].Sign(nil, make([]byte, c.size), c.opts); err == nil {
			t.Errorf("%v: Sign() of %d bytes with %v = %x, want an error", c.curve, c.size, c.opts, sig)
		}
	}
	for _, message := range [][]byte{nil, {0}, bytes.Repeat([]byte("long "), 10_000)} {
		for _, c := range []token.Curve{token.Ed25519, token.Ed448} {
			sig, err := keys[c].Sign(nil, message, crypto.Hash(0))
			if err != nil {
				t.Errorf("%v: Sign() of %d bytes err = %v, want nil", c, len(message), err)
				continue
			}
			verify(t, keys[c].Public(), message, sig)
		}
	}
}

func TestErrorsOfBothWaysAreTyped(t *testing.T) {
	for _, library := range []bool{false, true} {
		t.Run(fmt.Sprintf("library=%t", library), func(t *testing.T) {
			cfg := softhsmtest.Config(t)
			m := tokentest.New(t, cfg.Module)
			cfg.Quirks.LibraryCalls = library
			tok := m.Open(t, cfg)
			for _, c := range []token.Curve{token.P256, token.Ed25519} { // through crypto11, and directly
				k := generate(t, tok, c, c.String())
				for _, function := range []string{"C_SignInit", "C_Sign"} {
					m.Reset()
					m.Fail(t, function, 1, 1, engine.CKR_DEVICE_MEMORY)
					input, opts := toSign(c, []byte("message"))
					_, err := k.Sign(nil, input, opts)
					call, ok := errors.AsType[*token.Error](err)
					if !ok || call.RV != engine.CKR_DEVICE_MEMORY || !errors.Is(err, call.RV) {
						t.Errorf("%v: Sign() err = %#v, want a *token.Error of %s in it", c, err, function)
					}
					if ok && !library && call.Func != function {
						t.Errorf("%v: Sign() failed in %s, want %s", c, call.Func, function)
					}
				}
				m.Reset()
				input, opts := toSign(c, []byte("message"))
				if _, err := k.Sign(nil, input, opts); err != nil { // the sessions are sound afterwards
					t.Errorf("%v: Sign() err = %v, want nil", c, err)
				}
			}
		})
	}
}

func TestADestroyedKeyIsNotFound(t *testing.T) {
	tok := softhsmtest.Open(t)
	for _, c := range []token.Curve{token.P256, token.Ed25519} {
		k := generate(t, tok, c, c.String())
		if err := tok.DestroyKeyPair(t.Context(), k); err != nil {
			t.Fatalf("DestroyKeyPair() err = %v, want nil", err)
		}
		input, opts := toSign(c, []byte("message"))
		if _, err := k.Sign(nil, input, opts); !errors.Is(err, token.ErrNotFound) {
			t.Errorf("%v: Sign() with a destroyed key err = %v, want %v", c, err, token.ErrNotFound)
		}
		mustSign(t, generate(t, tok, token.P256, "next"))
	}
}

// unreadable makes keys that cannot be read back.
type unreadable struct{ token.Cryptoki }

func (unreadable) GetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) ([]*pkcs11.Attribute, error) {
	return nil, pkcs11.Error(pkcs11.CKR_DEVICE_MEMORY)
}

func TestNoKeyStaysBehindAfterAFailedGeneration(t *testing.T) {
	cfg := softhsmtest.Config(t)
	token.Intercept(t, cfg.Module, func(real token.Cryptoki) token.Cryptoki { return unreadable{real} })
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	_, err = tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256})
	if !errors.Is(err, engine.CKR_DEVICE_MEMORY) {
		t.Errorf("GenerateKeyPair() err = %v, want CKR_DEVICE_MEMORY", err)
	}
	if n := objects(t, tok); n != 0 {
		t.Errorf("%d objects in the token, want none", n)
	}
}

func TestKeyPairsListsEveryPrivateKey(t *testing.T) {
	tok := softhsmtest.Open(t)
	want := make(map[string]token.Curve)
	for _, c := range token.Curves() {
		want[string(generate(t, tok, c, c.String()).ID())] = c
	}
	pairs, err := tok.KeyPairs(t.Context())
	if err != nil || len(pairs) != len(want) {
		t.Fatalf("KeyPairs() = %d pairs, %v, want %d", len(pairs), err, len(want))
	}
	for _, p := range pairs {
		if want[string(p.ID)] != p.Curve || p.Public == nil || p.Label != p.Curve.String() {
			t.Errorf("KeyPairs() has %+v, want curve %v with its public key", p, want[string(p.ID)])
		}
	}
}

func TestHalfAKeyPairIsNotAbsent(t *testing.T) {
	tok := softhsmtest.Open(t)
	k := generate(t, tok, token.P256, "half")
	if err := k.DestroyPublicHalf(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: k.ID()})
	if errors.Is(err, token.ErrNotFound) || !errors.Is(err, token.ErrUnsupported) {
		t.Errorf("FindKeyPair() err = %v, want ErrUnsupported", err)
	}
	pairs, err := tok.KeyPairs(t.Context())
	if err != nil || len(pairs) != 1 || pairs[0].Public != nil || !bytes.Equal(pairs[0].ID, k.ID()) {
		t.Errorf("KeyPairs() = %+v, %v, want the half", pairs, err)
	}
}

func TestQueryWithoutIDAndLabelIsRefused(t *testing.T) {
	tok := softhsmtest.Open(t)
	generate(t, tok, token.P256, "only")
	if k, err := tok.FindKeyPair(t.Context(), token.KeyQuery{}); err == nil {
		t.Errorf("FindKeyPair() = %v, want an error", k)
	}
	if k, err := tok.FindWrappingKey(t.Context(), nil); err == nil {
		t.Errorf("FindWrappingKey() = %v, want an error", k)
	}
}

func TestProbeFindsWhatSoftHSMDoes(t *testing.T) {
	tok := softhsmtest.Open(t)
	r, err := tok.Probe(t.Context())
	if err != nil {
		t.Fatalf("Probe() err = %v, want nil", err)
	}
	for _, c := range token.Curves() {
		if r.SignFault(c) != "" {
			t.Errorf("SignFault(%v) = %s, want none", c, r.SignFault(c))
		}
	}
	if r.SealFault() != "" {
		t.Errorf("SealFault() = %s, want none", r.SealFault())
	}
	if r.SignFault(0) == "" {
		t.Error("SignFault(0) is empty, want a reason")
	}
	for _, result := range r.Results {
		if result.OK != (result.Reason == "") || result.Duration <= 0 {
			t.Errorf("result %+v: want a reason exactly where it is not ok, and a duration", result)
		}
	}
	if n := objects(t, tok); n != 0 {
		t.Errorf("%d objects in the token after Probe(), want none", n)
	}
}

// withoutGCM is a token without AES-GCM.
type withoutGCM struct{ token.Cryptoki }

func (withoutGCM) EncryptInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error {
	return pkcs11.Error(pkcs11.CKR_MECHANISM_INVALID)
}

func TestProbeSaysWhyNot(t *testing.T) {
	cfg := softhsmtest.Config(t)
	token.Intercept(t, cfg.Module, func(real token.Cryptoki) token.Cryptoki { return withoutGCM{real} })
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	r, err := tok.Probe(t.Context())
	if err != nil {
		t.Fatalf("Probe() err = %v, want nil", err)
	}
	if got, want := r.SealFault(), "the module has no such mechanism: C_EncryptInit: CKR_MECHANISM_INVALID"; got != want {
		t.Errorf("SealFault() = %q, want %q", got, want)
	}
	if r.SignFault(token.P256) != "" {
		t.Errorf("SignFault(P-256) = %s, want none", r.SignFault(token.P256))
	}
}
