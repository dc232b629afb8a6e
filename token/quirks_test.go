package token_test

import (
	"bytes"
	"crypto/ecdh"
	"errors"
	"fmt"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/tokentest"
)

func TestTheTokenMayMakeTheNonces(t *testing.T) {
	for _, library := range []bool{false, true} {
		t.Run(fmt.Sprintf("library calls %t", library), func(t *testing.T) {
			cfg := softhsmtest.Config(t)
			m := tokentest.New(t, cfg.Module)
			m.SetOwnNonces(true)
			cfg.Quirks.TokenNonce, cfg.Quirks.LibraryCalls = true, library
			tok := m.Open(t, cfg)
			k := wrappingKey(t, tok)
			given := [token.NonceSize]byte{1}
			one, other := given, given
			sealed, err := k.Seal(t.Context(), &one, []byte("plaintext"), []byte("data"))
			if err != nil {
				t.Fatalf("Seal() err = %v, want nil", err)
			}
			if _, err := k.Seal(t.Context(), &other, []byte("plaintext"), []byte("data")); err != nil || one == given || one == other {
				t.Errorf("nonces %x and %x, %v, want two of the token's", one, other, err)
			}
			if opened, err := k.Open(t.Context(), one, sealed, []byte("data")); err != nil || !bytes.Equal(opened, []byte("plaintext")) {
				t.Errorf("Open() = %q, %v, want the plaintext", opened, err)
			}
			if _, err := k.Open(t.Context(), other, sealed, []byte("data")); !errors.Is(err, token.ErrDecrypt) {
				t.Errorf("Open() under another nonce err = %v, want %v", err, token.ErrDecrypt)
			}
			if report, err := tok.Probe(t.Context()); err != nil || report.SealFault() != "" {
				t.Errorf("Probe() = %+v, %v, want that it can seal", report, err)
			}
		})
	}
}

// A token that makes its own nonces, without the quirk, would seal what does not open.
func TestATokensNonceIsRefusedWhereNoneIsAwaited(t *testing.T) {
	cfg := softhsmtest.Config(t)
	m := tokentest.New(t, cfg.Module)
	m.SetOwnNonces(true)
	tok := m.Open(t, cfg)
	for _, nonce := range [][token.NonceSize]byte{{}, {1}} { // it takes the first, and not the second
		if sealed, err := wrappingKey(t, tok).Seal(t.Context(), &nonce, []byte("plaintext"), nil); err == nil {
			t.Errorf("Seal() = %x, want an error", sealed)
		}
	}
}

// A token that has the quirk, and makes no nonces, would always use the same one.
func TestANonceThatTheTokenDidNotMakeIsRefused(t *testing.T) {
	cfg := softhsmtest.Config(t)
	cfg.Quirks.TokenNonce = true
	tok := openToken(t, cfg)
	var nonce [token.NonceSize]byte
	if sealed, err := wrappingKey(t, tok).Seal(t.Context(), &nonce, []byte("plaintext"), nil); err == nil {
		t.Errorf("Seal() = %x, want an error", sealed)
	}
	report, err := tok.Probe(t.Context())
	if err != nil || report.SealFault() == "" {
		t.Errorf("Probe() = %+v, %v, want that it cannot seal", report, err)
	}
}

// SoftHSM has RFC 5649 under 0x210A: with that as the number of KWP, it does what KWP is for.
func TestKWPMayHaveAnotherNumber(t *testing.T) {
	cfg := softhsmtest.Config(t)
	cfg.Quirks.KWP = uint(token.KeyWrapPad)
	tok := openToken(t, cfg)
	if m, err := tok.ProbeKeyWrap(t.Context(), token.P256); err != nil || m != token.KeyWrapKWP {
		t.Fatalf("ProbeKeyWrap() = %v, %v, want %v", m, err, token.KeyWrapKWP)
	}
	k, err := tok.GenerateKeyWrappingKey(t.Context(), nil, "test")
	if err != nil {
		t.Fatal(err)
	}
	public, wrapped, err := k.GenerateWrapped(t.Context(), token.KeyWrapKWP, token.P256)
	if err != nil {
		t.Fatalf("GenerateWrapped() err = %v, want nil", err)
	}
	if err := k.Unwrap(t.Context(), token.KeyWrapKWP, public, wrapped, func(ecdh.KeyExchanger) error { return nil }); err != nil {
		t.Errorf("Unwrap() err = %v, want nil", err)
	}
}

func openToken(t *testing.T, cfg token.Config) *token.Token {
	t.Helper()
	tok, err := token.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	t.Cleanup(func() {
		if err := tok.Close(); err != nil {
			t.Errorf("Close() err = %v, want nil", err)
		}
	})
	return tok
}
