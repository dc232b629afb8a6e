package vault_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

func suite(tb testing.TB, id ciphersuite.ID) *ciphersuite.Suite {
	tb.Helper()
	s, ok := ciphersuite.Lookup(id)
	if !ok {
		tb.Fatalf("Lookup(%d) found nothing", id)
	}
	return s
}

func newVault(tb testing.TB, t *token.Token) *vault.Vault {
	tb.Helper()
	v, _, err := vault.New(tb.Context(), t, rand.Reader, nil, "test")
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func newKeys(tb testing.TB, s *ciphersuite.Suite) vault.PrivateKeys {
	tb.Helper()
	var k vault.PrivateKeys
	var err error
	if k.Init, err = hpke.GenerateKeyPair(s, rand.Reader); err != nil {
		tb.Fatal(err)
	}
	if k.Encryption, err = hpke.GenerateKeyPair(s, rand.Reader); err != nil {
		tb.Fatal(err)
	}
	return k
}

// unseal returns what was sealed, without its public keys.
func unseal(ctx context.Context, v *vault.Vault, ref []byte, s *ciphersuite.Suite, sealed []byte) (vault.PrivateKeys, error) {
	keys, err := v.Keys(ctx, vault.Binding{Ref: ref, Suite: s, InitKey: make([]byte, s.Npk), EncryptionKey: make([]byte, s.Npk)}, sealed)
	if err != nil {
		return vault.PrivateKeys{}, err
	}
	secret, _ := keys.Secret()
	return secret, nil
}

func newRef(s *ciphersuite.Suite) []byte {
	ref := make([]byte, s.Nh)
	rand.Read(ref)
	return ref
}

func TestSealedKeysComeBackForEverySuite(t *testing.T) {
	v := newVault(t, softhsmtest.Open(t))
	for _, s := range ciphersuite.All() {
		t.Run(s.Name, func(t *testing.T) {
			keys, ref := newKeys(t, s), newRef(s)
			sealed, err := v.Seal(t.Context(), rand.Reader, vault.Binding{Ref: ref, Suite: s}, keys)
			if err != nil {
				t.Fatalf("Seal() err = %v, want nil", err)
			}
			for _, secret := range [][]byte{keys.Init.Bytes(), keys.Encryption.Bytes()} {
				if bytes.Contains(sealed, secret) {
					t.Error("the sealed blob contains a private key")
				}
			}
			got, err := unseal(t.Context(), v, ref, s, sealed)
			if err != nil {
				t.Fatalf("unseal() err = %v, want nil", err)
			}
			if !bytes.Equal(got.Init.Bytes(), keys.Init.Bytes()) || !bytes.Equal(got.Encryption.Bytes(), keys.Encryption.Bytes()) {
				t.Error("unseal() returned other keys")
			}
		})
	}
}

func TestABlobOpensOnlyWhereItBelongs(t *testing.T) {
	tok := softhsmtest.Open(t)
	v, other := newVault(t, tok), newVault(t, tok)
	s1, s3 := suite(t, 1), suite(t, 3)
	ref := newRef(s1)
	sealed, err := v.Seal(t.Context(), rand.Reader, vault.Binding{Ref: ref, Suite: s1}, newKeys(t, s1))
	if err != nil {
		t.Fatal(err)
	}
	for name, unseal := range map[string]func() error{
		"another ref":          func() error { _, err := unseal(t.Context(), v, newRef(s1), s1, sealed); return err },
		"another suite":        func() error { _, err := unseal(t.Context(), v, ref, s3, sealed); return err },
		"another wrapping key": func() error { _, err := unseal(t.Context(), other, ref, s1, sealed); return err },
		"suite rewritten":      func() error { return unsealChanged(t.Context(), v, ref, s3, sealed, 3, 1^3) },
		"algorithm rewritten":  func() error { return unsealChanged(t.Context(), v, ref, s1, sealed, 1, 2) },
		"truncated":            func() error { _, err := unseal(t.Context(), v, ref, s1, sealed[:len(sealed)-1]); return err },
		"empty":                func() error { _, err := unseal(t.Context(), v, ref, s1, nil); return err },
	} {
		if err := unseal(); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("%s: unseal() err = %v, want %v", name, err, vault.ErrSealed)
		}
	}
	for i := range sealed {
		if err := unsealChanged(t.Context(), v, ref, s1, sealed, i, 0x80); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("byte %d changed: unseal() err = %v, want %v", i, err, vault.ErrSealed)
		}
	}
	if _, err := unseal(t.Context(), v, ref, s1, sealed); err != nil {
		t.Errorf("after all of that: unseal() err = %v, want nil", err)
	}
}

func unsealChanged(ctx context.Context, v *vault.Vault, ref []byte, s *ciphersuite.Suite, sealed []byte, at int, flip byte) error {
	changed := bytes.Clone(sealed)
	changed[at] ^= flip
	_, err := unseal(ctx, v, ref, s, changed)
	return err
}

func TestSealRefusesWhatWouldNotComeBack(t *testing.T) {
	v := newVault(t, softhsmtest.Open(t))
	s1, s3 := suite(t, 1), suite(t, 3)
	good, cleared, halfCleared := newKeys(t, s1), newKeys(t, s1), newKeys(t, s1)
	cleared.Clear()
	halfCleared.Encryption.Clear()
	for name, c := range map[string]struct {
		ref  []byte
		keys vault.PrivateKeys
	}{
		"keys of another suite": {newRef(s1), newKeys(t, s3)},
		"one key of another":    {newRef(s1), vault.PrivateKeys{Init: good.Init, Encryption: newKeys(t, s3).Encryption}},
		"no keys":               {newRef(s1), vault.PrivateKeys{}},
		"no encryption key":     {newRef(s1), vault.PrivateKeys{Init: good.Init}},
		"cleared keys":          {newRef(s1), cleared},
		"one cleared key":       {newRef(s1), halfCleared},
		"no ref":                {nil, good},
		"a ref cut short":       {newRef(s1)[1:], good},
	} {
		if sealed, err := v.Seal(t.Context(), rand.Reader, vault.Binding{Ref: c.ref, Suite: s1}, c.keys); err == nil || sealed != nil {
			t.Errorf("%s: Seal() = %d bytes, %v, want an error", name, len(sealed), err)
		}
	}
	if _, err := v.Seal(t.Context(), rand.Reader, vault.Binding{Ref: newRef(s1), Suite: s1}, cleared); !errors.Is(err, hpke.ErrCleared) {
		t.Errorf("Seal() of cleared keys err = %v, want %v", err, hpke.ErrCleared)
	}
}

func TestSealNeedsAWholeNonce(t *testing.T) {
	v := newVault(t, softhsmtest.Open(t))
	s := suite(t, 1)
	if _, err := v.Seal(t.Context(), bytes.NewReader(make([]byte, 11)), vault.Binding{Ref: newRef(s), Suite: s}, newKeys(t, s)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Seal() err = %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

func TestEachSealingHasANonceOfItsOwn(t *testing.T) {
	v := newVault(t, softhsmtest.Open(t))
	s := suite(t, 1)
	keys, ref := newKeys(t, s), newRef(s)
	seen := map[string]bool{}
	for range 50 {
		sealed, err := v.Seal(t.Context(), rand.Reader, vault.Binding{Ref: ref, Suite: s}, keys)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := vault.ParseBlob(sealed)
		if err != nil {
			t.Fatal(err)
		}
		seen[string(blob.Nonce[:])] = true
	}
	if len(seen) != 50 {
		t.Errorf("50 sealings have %d nonces", len(seen))
	}
}

func TestACiphertextTooShortForItsTagDoesNotOpen(t *testing.T) {
	v := newVault(t, softhsmtest.Open(t))
	s := suite(t, 1)
	for n := range 20 {
		blob := vault.Blob{Suite: s.ID, KeyID: v.KeyID(), Ciphertext: make([]byte, n)}
		if _, err := unseal(t.Context(), v, newRef(s), s, blob.Bytes()); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("%d bytes: unseal() err = %v, want %v", n, err, vault.ErrSealed)
		}
	}
}

// A token that fails says nothing about the blob: the caller must not take it for damaged.
func TestAFaultOfTheTokenIsNotTheBlobs(t *testing.T) {
	tok := softhsmtest.Open(t)
	v := newVault(t, tok)
	s := suite(t, 1)
	keys, ref := newKeys(t, s), newRef(s)
	sealed, err := v.Seal(t.Context(), rand.Reader, vault.Binding{Ref: ref, Suite: s}, keys)
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := unseal(cancelled, v, ref, s, sealed); !errors.Is(err, context.Canceled) || errors.Is(err, vault.ErrSealed) {
		t.Errorf("unseal() in a cancelled context err = %v, want %v", err, context.Canceled)
	}
	if _, err := v.Seal(cancelled, rand.Reader, vault.Binding{Ref: ref, Suite: s}, keys); !errors.Is(err, context.Canceled) {
		t.Errorf("Seal() in a cancelled context err = %v, want %v", err, context.Canceled)
	}
	if err := tok.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := unseal(t.Context(), v, ref, s, sealed); !errors.Is(err, token.ErrClosed) || errors.Is(err, vault.ErrSealed) {
		t.Errorf("unseal() after Close() err = %v, want %v", err, token.ErrClosed)
	}
}

func TestOneVaultServesManyGoroutines(t *testing.T) {
	v := newVault(t, softhsmtest.Open(t))
	s := suite(t, 2)
	var wg sync.WaitGroup
	for range 8 {
		keys, ref := newKeys(t, s), newRef(s)
		wg.Go(func() {
			for range 20 {
				sealed, err := v.Seal(t.Context(), rand.Reader, vault.Binding{Ref: ref, Suite: s}, keys)
				if err != nil {
					t.Errorf("Seal() err = %v, want nil", err)
					return
				}
				got, err := unseal(t.Context(), v, ref, s, sealed)
				if err != nil || !bytes.Equal(got.Init.Bytes(), keys.Init.Bytes()) {
					t.Errorf("unseal() err = %v, or another key", err)
					return
				}
				got.Clear()
			}
		})
	}
	wg.Wait()
}

func TestOpenOfAMissingKey(t *testing.T) {
	_, err := vault.Open(t.Context(), softhsmtest.Open(t), vault.KeyID("0123456789abcdef"))
	if !errors.Is(err, token.ErrNotFound) {
		t.Errorf("Open() err = %v, want %v", err, token.ErrNotFound)
	}
}

func TestABlobOutlivesItsVaultButNotItsWrappingKey(t *testing.T) {
	tok := softhsmtest.Open(t)
	v := newVault(t, tok)
	s := suite(t, 1)
	ref := newRef(s)
	sealed, err := v.Seal(t.Context(), rand.Reader, vault.Binding{Ref: ref, Suite: s}, newKeys(t, s))
	if err != nil {
		t.Fatal(err)
	}
	again, err := vault.Open(t.Context(), tok, v.KeyID())
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	if _, err := unseal(t.Context(), again, ref, s, sealed); err != nil {
		t.Errorf("unseal() by another vault of the same key err = %v, want nil", err)
	}
	key, err := tok.FindWrappingKey(t.Context(), v.KeyID())
	if err != nil {
		t.Fatal(err)
	}
	if err := tok.DestroyWrappingKey(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if _, err := unseal(t.Context(), v, ref, s, sealed); err == nil {
		t.Error("unseal() after its key was destroyed err = nil, want one")
	}
}

func TestPrivateKeysPrintRedacted(t *testing.T) {
	keys := newKeys(t, suite(t, 2))
	secret := keys.Init.Bytes()
	forms := []string{hex.EncodeToString(secret[:8]), strings.Trim(fmt.Sprint(secret[:8]), "[]"), string(secret[:8])}
	outputs := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		outputs[verb] = fmt.Sprintf(verb, keys)
	}
	encoded, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	outputs["JSON"] = string(encoded)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("keys", "keys", keys)
	outputs["slog"] = log.String()
	for how, out := range outputs {
		if !strings.Contains(out, "REDACTED") {
			t.Errorf("%s = %s, want REDACTED", how, out)
		}
		for _, form := range forms {
			if strings.Contains(out, form) {
				t.Errorf("%s shows the key", how)
			}
		}
	}
}

func TestKeyIDPrintsInHexadecimalOnce(t *testing.T) {
	for verb, want := range map[string]string{
		"%v": "ab01", "%+v": "ab01", "%s": "ab01", "%x": "ab01", "%X": "AB01", "%# x": "0xab 0x01", "%q": `"ab01"`, "%6v": "  ab01",
	} {
		if got := fmt.Sprintf(verb, vault.KeyID{0xAB, 0x01}); got != want {
			t.Errorf("Sprintf(%q) = %s, want %s", verb, got, want)
		}
	}
}

func TestClearOfNoKeysDoesNothing(t *testing.T) {
	vault.PrivateKeys{}.Clear()
	keys := newKeys(t, suite(t, 1))
	keys.Clear()
	if keys.Init.Bytes() != nil || keys.Encryption.Bytes() != nil {
		t.Error("a key is left after Clear()")
	}
}

func BenchmarkSeal(b *testing.B) {
	v := newVault(b, softhsmtest.Open(b))
	s := suite(b, 2)
	keys, ref := newKeys(b, s), newRef(s)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Seal(b.Context(), rand.Reader, vault.Binding{Ref: ref, Suite: s}, keys); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkUnseal(b *testing.B) {
	v := newVault(b, softhsmtest.Open(b))
	s := suite(b, 2)
	ref := newRef(s)
	sealed, err := v.Seal(b.Context(), rand.Reader, vault.Binding{Ref: ref, Suite: s}, newKeys(b, s))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		keys, err := unseal(b.Context(), v, ref, s, sealed)
		if err != nil {
			b.Fatal(err)
		}
		keys.Clear()
	}
}
