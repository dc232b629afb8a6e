package tokentest_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/internal/engine"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
)

// open has a token behind a module of faults, with a key that signs.
func open(t *testing.T) (*tokentest.Module, *token.Token, *token.SigningKey) {
	t.Helper()
	cfg := softhsmtest.Config(t)
	m := tokentest.New(t, cfg.Module)
	cfg.Sessions = 2
	cfg.Patience = -1
	tok := m.Open(t, cfg)
	key, err := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.P256, Label: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return m, tok, key
}

func sign(key *token.SigningKey) ([]byte, error) {
	digest := sha256.Sum256([]byte("message"))
	return key.Sign(rand.Reader, digest[:], crypto.SHA256)
}

func TestCallsAreCounted(t *testing.T) {
	m, tok, key := open(t)
	m.Reset()
	for range 3 {
		if _, err := sign(key); err != nil {
			t.Fatal(err)
		}
		if err := tok.Random(t.Context(), make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.Calls("C_SignInit"); n != 3 {
		t.Errorf("Calls(C_SignInit) = %d, want 3", n)
	}
	if n := m.AllCalls()["C_GenerateRandom"]; n != 3 {
		t.Errorf("AllCalls() = %v, want 3 of C_GenerateRandom", m.AllCalls())
	}
	if m.Sessions() < 2 {
		t.Errorf("Sessions() = %d, want those of the token", m.Sessions())
	}
}

func TestTheCallThatIsNamedFails(t *testing.T) {
	m, tok, _ := open(t)
	seen := m.Fail(t, "C_GenerateRandom", 2, 2, engine.CKR_DEVICE_MEMORY)
	for i, want := range []error{nil, engine.CKR_DEVICE_MEMORY, engine.CKR_DEVICE_MEMORY, nil} {
		if err := tok.Random(t.Context(), make([]byte, 8)); !errors.Is(err, want) {
			t.Errorf("call %d: err = %v, want %v", i+1, err, want)
		}
	}
	if n := seen(); n != 4 {
		t.Errorf("%d calls were seen, want 4", n)
	}
	m.Reset()
	m.Fail(t, tokentest.Any, 1, 1, token.CKR_SESSION_CLOSED)
	if err := tok.Random(t.Context(), make([]byte, 8)); !errors.Is(err, token.CKR_SESSION_CLOSED) {
		t.Errorf("Random() err = %v, want %v", err, token.CKR_SESSION_CLOSED)
	}
}

func TestADeviceIsAwayForAWhile(t *testing.T) {
	m, tok, _ := open(t)
	m.SetDown(true)
	if err := tok.Random(t.Context(), make([]byte, 8)); !errors.Is(err, token.CKR_DEVICE_ERROR) {
		t.Errorf("Random() err = %v, want %v", err, token.CKR_DEVICE_ERROR)
	}
	m.SetDown(false)
	if err := tok.Random(t.Context(), make([]byte, 8)); err != nil {
		t.Errorf("Random() err = %v, want nil", err)
	}
}

func TestSessionsAreDroppedAndFew(t *testing.T) {
	cfg := softhsmtest.Config(t)
	m := tokentest.New(t, cfg.Module)
	cfg.Patience = -1
	tok := m.Open(t, cfg)
	m.DropSessions()
	if err := tok.Random(t.Context(), make([]byte, 8)); !errors.Is(err, token.CKR_SESSION_HANDLE_INVALID) {
		t.Errorf("Random() err = %v, want %v", err, token.CKR_SESSION_HANDLE_INVALID)
	}
	m.SetSessions(1)
	if err := tok.Random(t.Context(), make([]byte, 8)); err != nil {
		t.Errorf("Random() with one session err = %v, want nil", err)
	}
	if _, err := token.Open(t.Context(), m.Config(cfg)); !errors.Is(err, token.CKR_SESSION_COUNT) {
		t.Errorf("Open() with %d of 1 sessions open err = %v, want %v", m.Sessions(), err, token.CKR_SESSION_COUNT)
	}
}

func TestAMechanismIsHidden(t *testing.T) {
	m, tok, _ := open(t)
	const ckmAESGCM = 0x1087
	m.HideMechanism(ckmAESGCM)
	report, err := tok.Probe(t.Context())
	if err != nil || report.SealFault() == "" || report.SignFault(token.P256) != "" {
		t.Errorf("Probe() = %+v, %v, want no sealing and all else", report, err)
	}
}

func TestASignatureIsSpoilt(t *testing.T) {
	m, _, key := open(t)
	m.SpoilSignature(2)
	digest := sha256.Sum256([]byte("message"))
	for i, want := range []bool{true, false, true} {
		sig, err := sign(key)
		if err != nil {
			t.Fatal(err)
		}
		if got := ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], sig); got != want {
			t.Errorf("signature %d verifies = %v, want %v", i+1, got, want)
		}
	}
}

func TestCallsTakeLonger(t *testing.T) {
	m, tok, _ := open(t)
	m.SetLatency(30 * time.Millisecond)
	start := time.Now()
	if err := tok.Random(t.Context(), make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 30*time.Millisecond {
		t.Errorf("a call took %v, want 30ms at least", took)
	}
}
