package vault_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

func newRSAVault(tb testing.TB, t *token.Token) (*vault.RSAVault, []byte) {
	tb.Helper()
	id := newKeyID(tb)
	stamp, err := vault.CreateRSAKey(tb.Context(), t, rand.Reader, id, "test")
	if err != nil {
		tb.Fatalf("CreateRSAKey() err = %v, want nil", err)
	}
	return openRSA(tb, t, id, stamp), stamp
}

func openRSA(tb testing.TB, t *token.Token, id vault.KeyID, stamp []byte) *vault.RSAVault {
	tb.Helper()
	v, err := vault.OpenRSA(tb.Context(), t, id)
	if err == nil {
		err = v.Recognize(tb.Context(), stamp)
	}
	if err != nil {
		tb.Fatalf("OpenRSA() err = %v, want nil", err)
	}
	return v
}

// Somebody with the public key who can write to the store cannot make a blob that opens.
func TestWhatAnybodyEncryptsToAnRSAKeyDoesNotOpen(t *testing.T) {
	tok := softhsmtest.Open(t)
	v, _ := newRSAVault(t, tok)
	s := suite(t, 2)
	genuine := keep(t, v, s)
	key, err := tok.FindDecryptionKey(t.Context(), v.KeyID())
	if err != nil {
		t.Fatal(err)
	}
	blob, err := vault.ParseRSABlob(genuine.sealed)
	if err != nil {
		t.Fatal(err)
	}
	// The private keys are of the attacker's own making, and so is the key package.
	keys := newKeys(t, s)
	plaintext := append([]byte{32}, keys.Init.Bytes()...)
	plaintext = append(append(plaintext, 32), keys.Encryption.Bytes()...)
	for _, mac := range [][32]byte{{}, blob.MAC} {
		forged := blob
		forged.MAC = mac
		if forged.Ciphertext, err = rsa.EncryptOAEP(sha1.New(), rand.Reader, key.Public(), plaintext, nil); err != nil {
			t.Fatal(err)
		}
		own := vault.Binding{Ref: genuine.Ref, Suite: s, InitKey: keys.Init.PublicKey(), EncryptionKey: keys.Encryption.PublicKey()}
		if _, err := v.Keys(t.Context(), own, forged.Bytes()); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("Keys() of a forged blob err = %v, want %v", err, vault.ErrSealed)
		}
	}
}

// Private keys that were sealed for another key package than theirs are refused: by a fault,
// or by somebody who read the key of the MAC.
func TestRSASealedKeysOfAnotherAreNotThoseOfTheKeyPackage(t *testing.T) {
	v, _ := newRSAVault(t, softhsmtest.Open(t))
	for _, s := range ciphersuite.All() {
		k := keep(t, v, s)
		sealed, err := v.Seal(t.Context(), rand.Reader, vault.Binding{Ref: k.Ref, Suite: s}, newKeys(t, s))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Keys(t.Context(), k.Binding, sealed); !errors.Is(err, vault.ErrMixedUp) {
			t.Errorf("%v: Keys() err = %v, want %v", s.ID, err, vault.ErrMixedUp)
		}
	}
}

func TestAnRSAKeyIsOfNoUseBeforeItIsRecognized(t *testing.T) {
	tok := softhsmtest.Open(t)
	known, stamp := newRSAVault(t, tok)
	v, err := vault.OpenRSA(t.Context(), tok, known.KeyID())
	if err != nil {
		t.Fatal(err)
	}
	s := suite(t, 2)
	k := keep(t, known, s)
	record := []byte("record")
	mark, err := known.Stamp(t.Context(), rand.Reader, "identity", record)
	if err != nil {
		t.Fatal(err)
	}
	uses := map[string]func() error{
		"Serves":   func() error { return v.Serves(t.Context(), s) },
		"Generate": func() error { _, err := v.Generate(t.Context(), rand.Reader, s); return err },
		"Seal": func() error {
			_, err := v.Seal(t.Context(), rand.Reader, vault.Binding{Ref: k.Ref, Suite: s}, newKeys(t, s))
			return err
		},
		"Keys":       func() error { _, err := v.Keys(t.Context(), k.Binding, k.sealed); return err },
		"Stamp":      func() error { _, err := v.Stamp(t.Context(), rand.Reader, "identity", record); return err },
		"CheckStamp": func() error { return v.CheckStamp(t.Context(), "identity", record, mark) },
	}
	for name, use := range uses {
		if err := use(); err == nil || errors.Is(err, vault.ErrSealed) || errors.Is(err, vault.ErrStamp) {
			t.Errorf("%s() before Recognize() err = %v, want one that blames nobody", name, err)
		}
	}
	if err := v.Recognize(t.Context(), stamp); err != nil {
		t.Fatal(err)
	}
	for name, use := range uses {
		if err := use(); err != nil {
			t.Errorf("%s() after Recognize() err = %v, want nil", name, err)
		}
	}
}

// Neither of the two keys can be replaced.
func TestAReplacedRSAKeyIsNotRecognized(t *testing.T) {
	tok := softhsmtest.Open(t)
	for name, replace := range map[string]func(testing.TB, vault.KeyID){
		"the RSA key": func(tb testing.TB, id vault.KeyID) {
			key, err := tok.FindDecryptionKey(tb.Context(), id)
			if err == nil {
				err = tok.DestroyDecryptionKey(tb.Context(), key)
			}
			if err == nil {
				_, err = tok.GenerateDecryptionKey(tb.Context(), id, "impostor")
			}
			if err != nil {
				tb.Fatal(err)
			}
		},
		"the stamping key": func(tb testing.TB, id vault.KeyID) {
			key, err := tok.FindKeyPair(tb.Context(), token.KeyQuery{ID: vault.StampingKeyID(id)})
			if err == nil {
				err = tok.DestroyKeyPair(tb.Context(), key)
			}
			if err == nil {
				_, err = tok.GenerateKeyPair(tb.Context(), token.KeyPairSpec{Curve: token.P256, ID: vault.StampingKeyID(id)})
			}
			if err != nil {
				tb.Fatal(err)
			}
		},
	} {
		v, stamp := newRSAVault(t, tok)
		replace(t, v.KeyID())
		impostor, err := vault.OpenRSA(t.Context(), tok, v.KeyID())
		if err != nil {
			t.Fatal(err)
		}
		if err := impostor.Recognize(t.Context(), stamp); !errors.Is(err, vault.ErrStamp) {
			t.Errorf("%s replaced: Recognize() err = %v, want %v", name, err, vault.ErrStamp)
		}
	}
}

func TestAnRSAKeyRecognizesNoChangedStamp(t *testing.T) {
	v, stamp := newRSAVault(t, softhsmtest.Open(t))
	for i := range stamp {
		changed := bytes.Clone(stamp)
		changed[i] ^= 0x10
		if err := v.Recognize(t.Context(), changed); !errors.Is(err, vault.ErrStamp) {
			t.Errorf("byte %d changed: Recognize() err = %v, want %v", i, err, vault.ErrStamp)
		}
	}
	again, err := v.Prove(t.Context(), rand.Reader)
	if err != nil {
		t.Fatalf("Prove() err = %v, want nil", err)
	}
	for _, s := range [][]byte{stamp, again} {
		if err := v.Recognize(t.Context(), s); err != nil {
			t.Errorf("Recognize() err = %v, want nil", err)
		}
	}
}

// Rewrapping works from a key of either kind to one of the other.
func TestRewrappingBetweenTheKindsOfSealingKeys(t *testing.T) {
	tok := softhsmtest.Open(t)
	byRSA, _ := newRSAVault(t, tok)
	for _, pair := range [][2]vault.Sealer{{newVault(t, tok), byRSA}, {byRSA, newVault(t, tok)}} {
		k := keep(t, pair[0], suite(t, 5))
		moved, err := pair[0].Rewrap(t.Context(), rand.Reader, k.Binding, k.sealed, false, pair[1])
		if err != nil {
			t.Fatalf("Rewrap() err = %v, want nil", err)
		}
		if err := usable(t.Context(), pair[1], kept{k.Binding, moved}); err != nil {
			t.Errorf("after Rewrap(): err = %v, want nil", err)
		}
		if err := usable(t.Context(), pair[0], kept{k.Binding, moved}); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("after Rewrap(): under the old key err = %v, want %v", err, vault.ErrSealed)
		}
	}
}

// A suite whose private keys are too long for the RSA key is refused before any are made.
func TestAnRSAKeyRefusesWhatDoesNotFit(t *testing.T) {
	v, _ := newRSAVault(t, softhsmtest.Open(t))
	long := *suite(t, 2)
	long.Nsk = 200
	if err := v.Serves(t.Context(), &long); !errors.Is(err, vault.ErrCustody) {
		t.Errorf("Serves() err = %v, want %v", err, vault.ErrCustody)
	}
	if _, err := v.Generate(t.Context(), rand.Reader, &long); !errors.Is(err, vault.ErrCustody) {
		t.Errorf("Generate() err = %v, want %v", err, vault.ErrCustody)
	}
}

// A failure while the keys are made leaves none behind.
func TestAnRSAKeyThatFailsIsNotLeftBehind(t *testing.T) {
	tok := softhsmtest.Open(t)
	id := newKeyID(t)
	if _, err := vault.CreateRSAKey(t.Context(), tok, noRandom{}, id, "test"); err == nil {
		t.Fatal("CreateRSAKey() without randomness err = nil, want one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := vault.CreateRSAKey(ctx, tok, rand.Reader, id, "test"); !errors.Is(err, context.Canceled) {
		t.Errorf("CreateRSAKey() err = %v, want %v", err, context.Canceled)
	}
	if objects, err := tok.Objects(t.Context()); err != nil || len(objects) != 0 {
		t.Errorf("%d objects (%v) in the token, want none", len(objects), err)
	}
}

type noRandom struct{}

func (noRandom) Read([]byte) (int, error) { return 0, errors.New("no randomness") }
