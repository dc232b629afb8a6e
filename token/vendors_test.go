package token_test

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
)

// lacks returns the probes that fail.
func lacks(t *testing.T, tok *token.Token) (names []string) {
	t.Helper()
	report, err := tok.Probe(t.Context())
	if err != nil {
		t.Fatalf("Probe() err = %v, want nil", err)
	}
	for _, r := range report.Results {
		if !r.OK {
			names = append(names, r.Name)
		}
	}
	return names
}

// NSS wraps keys that are not extractable: the report says so.
func TestNSSDoesAllButEdwardsCurvesAndKeeping(t *testing.T) {
	tok := openToken(t, vendortest.NSS(t))
	if got, want := strings.Join(lacks(t, tok), ", "), "sign Ed25519, sign Ed448, keep what is not extractable"; got != want {
		t.Errorf("NSS lacks %s, want %s", got, want)
	}
}

// What was made in NSS is found again after it was closed, with the attributes that matter.
func TestKeysOfNSSStay(t *testing.T) {
	cfg := vendortest.NSS(t)
	var id []byte
	t.Run("make", func(t *testing.T) {
		tok := openToken(t, cfg)
		k, err := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P384, Label: "mine"})
		if err != nil {
			t.Fatalf("GenerateKeyPair() err = %v, want nil", err)
		}
		id = k.ID()
	})
	tok := openToken(t, cfg)
	k, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: id})
	if err != nil {
		t.Fatalf("FindKeyPair() err = %v, want nil", err)
	}
	if err := trySign(k); err != nil {
		t.Errorf("Sign() err = %v, want nil", err)
	}
	a, err := k.Attributes(t.Context())
	if err != nil || len(token.Broken(a.Custody()...)) > 0 || a.Local != nil {
		t.Errorf("Attributes() = %+v, %v, want those of custody, and CKA_LOCAL untold", a, err)
	}
	if got := tok.Info(); got.Serial != "0000000000000000" || got.MaxSessions != 0 {
		t.Errorf("Info() = %+v, want no serial number to speak of, and no limit of sessions", got)
	}
}

func trySign(k *token.SigningKey) error {
	digest := sha256.Sum256([]byte("message"))
	sig, err := k.Sign(nil, digest[:], crypto.SHA256)
	if err == nil && !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), digest[:], sig) {
		err = errors.New("the signature does not verify")
	}
	return err
}

// NSS unwraps a private key only with its public point, and other tokens only without.
func TestThePublicPointGoesToWhoWantsIt(t *testing.T) {
	cfg := vendortest.NSS(t)
	for _, c := range []struct {
		point bool
		fits  bool
	}{{true, true}, {false, false}} {
		cfg.Quirks.UnwrapPoint = c.point
		t.Run("", func(t *testing.T) {
			tok := openToken(t, cfg)
			if _, err := tok.ProbeKeyWrap(t.Context(), token.P256); (err == nil) != c.fits {
				t.Errorf("with the point %t: ProbeKeyWrap() err = %v, want it to fit: %t", c.point, err, c.fits)
			}
		})
	}
	soft := softhsmtest.Config(t)
	soft.Quirks.UnwrapPoint = true
	if m, err := openToken(t, soft).ProbeKeyWrap(t.Context(), token.P256); err == nil {
		t.Errorf("SoftHSM with the point: ProbeKeyWrap() = %v, want an error", m)
	}
}

// The point comes from the record, and NSS does not check it: what derives is the private key.
func TestAForeignPointChangesNothingInNSS(t *testing.T) {
	tok := openToken(t, vendortest.NSS(t))
	k, err := tok.GenerateKeyWrappingKey(t.Context(), nil, "test")
	if err != nil {
		t.Fatal(err)
	}
	public, wrapped, err := k.GenerateWrapped(t.Context(), token.KeyWrapKWP, token.P256)
	if err != nil {
		t.Fatalf("GenerateWrapped() err = %v, want nil", err)
	}
	other, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Fits(t.Context(), token.KeyWrapKWP, public, wrapped); err != nil {
		t.Errorf("Fits() err = %v, want nil", err)
	}
	if err := k.Fits(t.Context(), token.KeyWrapKWP, other.PublicKey(), wrapped); !errors.Is(err, token.ErrKeyMismatch) {
		t.Errorf("Fits() of another public key err = %v, want %v", err, token.ErrKeyMismatch)
	}
	var secret []byte
	err = k.Unwrap(t.Context(), token.KeyWrapKWP, other.PublicKey(), wrapped, func(x ecdh.KeyExchanger) (err error) {
		secret, err = x.ECDH(other.PublicKey())
		return err
	})
	want, errWant := other.ECDH(public)
	if err != nil || errWant != nil || !bytes.Equal(secret, want) {
		t.Errorf("ECDH() = %x, %v, want that of the private key", secret, err)
	}
}

func TestAWrongPINIsSentToNSSOnce(t *testing.T) {
	cfg := vendortest.NSS(t)
	right := cfg.PIN
	cfg.PIN = token.Static(token.NewPIN([]byte("wrong")))
	for range 3 {
		if _, err := token.Open(t.Context(), cfg); !errors.Is(err, token.ErrPIN) {
			t.Errorf("Open() with a wrong PIN err = %v, want %v", err, token.ErrPIN)
		}
	}
	cfg.PIN = right
	tok := openToken(t, cfg)
	cfg.PIN = token.Static(token.NewPIN([]byte("wrong")))
	if other, err := token.Open(t.Context(), cfg); !errors.Is(err, token.ErrPIN) {
		t.Errorf("Open() with a wrong PIN beside a login = %v, %v, want %v", other, err, token.ErrPIN)
	}
	if got := lacks(t, tok); len(got) != 3 {
		t.Errorf("the first login lacks %v afterwards, want what NSS lacks before", got)
	}
}

// A process has one NSS database open at a time: the module belongs to the process.
func TestASecondNSSDatabaseIsRefusedBesideTheFirst(t *testing.T) {
	first := openToken(t, vendortest.NSS(t))
	second := vendortest.NSS(t)
	if tok, err := token.Open(t.Context(), second); err == nil {
		tok.Close()
		t.Error("Open() of a second database err = nil, want one")
	}
	if _, err := first.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256}); err != nil {
		t.Errorf("GenerateKeyPair() in the first err = %v, want nil", err)
	}
}

func TestNSSUnderManyGoroutines(t *testing.T) {
	tok := openToken(t, vendortest.NSS(t))
	k, err := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256})
	if err != nil {
		t.Fatal(err)
	}
	seal := wrappingKey(t, tok)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 20 {
				nonce := [token.NonceSize]byte{byte(i), byte(j)}
				sealed, err := seal.Seal(t.Context(), &nonce, []byte("plaintext"), nil)
				if err == nil {
					_, err = seal.Open(t.Context(), nonce, sealed, nil)
				}
				if err = errors.Join(err, trySign(k)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// p11-kit 0.24 passes on ECDSA and RSA, and no more. It gives each caller a state of its own, so
// that onecall cannot be used.
func TestThroughP11KitATokenSignsByECDSAAndDecryptsByRSA(t *testing.T) {
	s := vendortest.P11Kit(t, softhsmtest.Config(t))
	tok := openToken(t, s.Config())
	report, err := tok.Probe(t.Context())
	if err != nil {
		t.Fatalf("Probe() err = %v, want nil", err)
	}
	for _, r := range report.Results {
		signs := slices.Contains([]string{"CKM_ECDSA", "CKM_RSA_PKCS_OAEP"}, r.Mechanism) ||
			slices.Contains([]string{"random bytes", "generate AES-256", "keep what is not extractable"}, r.Name)
		if r.OK != signs {
			t.Errorf("%s: ok %t, %s; want %t", r.Name, r.OK, r.Reason, signs)
		}
		if !signs && !strings.HasPrefix(r.Reason, "the module has no such mechanism: ") {
			t.Errorf("%s: %q, want it in words", r.Name, r.Reason)
		}
	}
	for _, c := range []token.Curve{token.P256, token.P384, token.P521} {
		k, err := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: c})
		if err == nil {
			err = trySign(k)
		}
		if err != nil {
			t.Errorf("%v: err = %v, want nil", c, err)
		}
	}
	if tok.Info().LibraryManufacturer != "PKCS#11 Kit" {
		t.Errorf("Info() = %+v, want p11-kit's library", tok.Info())
	}
}

// A crash of the module is one of another process, and delays an operation briefly.
func TestSignaturesOutliveTheModulesProcess(t *testing.T) {
	s := vendortest.P11Kit(t, softhsmtest.Config(t))
	cfg := s.Config()
	var mu sync.Mutex
	steps := make(map[token.Step]int)
	cfg.Observe = func(r token.Recovery) {
		mu.Lock()
		defer mu.Unlock()
		steps[r.Step]++
	}
	tok := openToken(t, cfg)
	k, err := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 100 {
				if err := trySign(k); err != nil {
					t.Errorf("signature %d: %v", i, err)
					return
				}
			}
		})
	}
	for range 3 {
		if err := trySign(k); err != nil {
			t.Error(err)
		}
		if n := s.KillModules(); n != 1 {
			t.Errorf("%d processes ran the module, want 1", n)
		}
	}
	wg.Wait()
	if steps[token.StepModule] == 0 {
		t.Errorf("steps of recovery = %v, want the module initialized again", steps)
	}
}

func TestAServerThatIsStartedAgainIsFound(t *testing.T) {
	s := vendortest.P11Kit(t, softhsmtest.Config(t))
	tok := openToken(t, s.Config())
	k, err := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256})
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	var wg sync.WaitGroup
	wg.Go(s.Start)
	if err := trySign(k); err != nil {
		t.Errorf("Sign() err = %v, want nil", err)
	}
	wg.Wait()
}
