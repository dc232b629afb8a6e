package token_test

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
)

func decryptionKey(tb testing.TB, t *token.Token) *token.DecryptionKey {
	tb.Helper()
	k, err := t.GenerateDecryptionKey(tb.Context(), nil, "decrypts")
	if err != nil {
		tb.Fatalf("GenerateDecryptionKey() err = %v, want nil", err)
	}
	return k
}

// decrypts encrypts to a key, by the variant that its token takes, and decrypts.
func decrypts(tb testing.TB, k *token.DecryptionKey, o token.OAEP) error {
	tb.Helper()
	ciphertext, err := o.Encrypt(k.Public(), []byte("text"), []byte("bound"))
	if err != nil {
		tb.Fatal(err)
	}
	plaintext, err := k.Decrypt(tb.Context(), o, ciphertext, []byte("bound"))
	if err == nil && string(plaintext) != "text" {
		err = errors.New("it opens as something else")
	}
	return err
}

// tokensThatDecrypt are tokens with what is known of them: SoftHSM's ignores labels, and decrypts
// nothing that has one.
func tokensThatDecrypt(t *testing.T, test func(*testing.T, *token.Token, token.OAEP)) {
	for _, c := range []struct {
		name    string
		config  func(testing.TB) token.Config
		variant token.OAEP
	}{
		{"SoftHSM", softhsmtest.Config, token.OAEP{Hash: crypto.SHA1}},
		{"TPM", vendortest.TPM, token.OAEP{Hash: crypto.SHA256, Labeled: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tok, err := token.Open(t.Context(), c.config(t))
			if err != nil {
				t.Fatalf("Open() err = %v, want nil", err)
			}
			defer tok.Close()
			test(t, tok, c.variant)
		})
	}
}

func TestADecryptionKeyDecryptsAndDoesNothingElse(t *testing.T) {
	tokensThatDecrypt(t, func(t *testing.T, tok *token.Token, want token.OAEP) {
		k := decryptionKey(t, tok)
		if bits := k.Public().N.BitLen(); bits != 3072 {
			t.Errorf("the key has %d bits, want 3072", bits)
		}
		o, err := k.Variant(t.Context())
		if err != nil || o != want {
			t.Fatalf("Variant() = %v, %v, want %v", o, err, want)
		}
		found, err := tok.FindDecryptionKey(t.Context(), k.ID())
		if err != nil || !found.Public().Equal(k.Public()) || found.Label() != "decrypts" {
			t.Fatalf("FindDecryptionKey() = %+v, %v, want the same key", found, err)
		}
		for _, k := range []*token.DecryptionKey{k, found} {
			if err := decrypts(t, k, o); err != nil {
				t.Errorf("Decrypt() err = %v, want nil", err)
			}
		}
		a, err := k.Attributes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		faults := token.Broken(append(a.Custody(),
			token.AttributeRule{Name: "CKA_DECRYPT", Value: a.Decrypt, Want: true, Required: true},
			token.AttributeRule{Name: "CKA_SIGN", Value: a.Sign, Required: true},
			token.AttributeRule{Name: "CKA_UNWRAP", Value: a.Unwrap, Required: true},
			token.AttributeRule{Name: "CKA_DERIVE", Value: a.Derive, Required: true})...)
		if len(faults) > 0 {
			t.Errorf("attributes: %q", faults)
		}
		if _, err := tok.GenerateDecryptionKey(t.Context(), k.ID(), "again"); !errors.Is(err, token.ErrKeyExists) {
			t.Errorf("GenerateDecryptionKey() of the same ID err = %v, want %v", err, token.ErrKeyExists)
		}
		if err := tok.DestroyDecryptionKey(t.Context(), found); err != nil {
			t.Errorf("DestroyDecryptionKey() err = %v, want nil", err)
		}
		if _, err := tok.FindDecryptionKey(t.Context(), k.ID()); !errors.Is(err, token.ErrNotFound) {
			t.Errorf("FindDecryptionKey() of one that is destroyed err = %v, want %v", err, token.ErrNotFound)
		}
		if n := countObjects(t, tok); n != 0 {
			t.Errorf("%d objects are left, want none", n)
		}
	})
}

func TestWhatWasNotEncryptedSoDoesNotDecrypt(t *testing.T) {
	tokensThatDecrypt(t, func(t *testing.T, tok *token.Token, o token.OAEP) {
		k, other := decryptionKey(t, tok), decryptionKey(t, tok)
		bound := []byte("bound")
		ciphertext, err := o.Encrypt(k.Public(), []byte("text"), bound)
		if err != nil {
			t.Fatal(err)
		}
		damaged := bytes.Clone(ciphertext)
		damaged[len(damaged)/2] ^= 1
		wrongs := map[string]func() ([]byte, error){
			"damaged": func() ([]byte, error) { return k.Decrypt(t.Context(), o, damaged, bound) },
			"cut":     func() ([]byte, error) { return k.Decrypt(t.Context(), o, ciphertext[1:], bound) },
			"nothing": func() ([]byte, error) { return k.Decrypt(t.Context(), o, nil, bound) },
			"out of range": func() ([]byte, error) {
				return k.Decrypt(t.Context(), o, bytes.Repeat([]byte{0xFF}, k.Public().Size()), bound)
			},
			"another key": func() ([]byte, error) { return other.Decrypt(t.Context(), o, ciphertext, bound) },
		}
		if o.Labeled {
			wrongs["other bound data"] = func() ([]byte, error) { return k.Decrypt(t.Context(), o, ciphertext, []byte("other")) }
			wrongs["no label"] = func() ([]byte, error) { return k.Decrypt(t.Context(), token.OAEP{Hash: o.Hash}, ciphertext, bound) }
		}
		for name, try := range wrongs {
			if plaintext, err := try(); !errors.Is(err, token.ErrDecrypt) || plaintext != nil {
				t.Errorf("%s: Decrypt() = %q, %v, want %v", name, plaintext, err, token.ErrDecrypt)
			}
		}
		if err := decrypts(t, k, o); err != nil {
			t.Errorf("after all of that: Decrypt() err = %v, want nil", err)
		}
	})
}

func TestADecryptionKeyIsNoOtherKey(t *testing.T) {
	tok := softhsmtest.Open(t)
	signing, k := generate(t, tok, token.P256, "signs"), decryptionKey(t, tok)
	if _, err := tok.FindDecryptionKey(t.Context(), signing.ID()); !errors.Is(err, token.ErrUnsupported) {
		t.Errorf("FindDecryptionKey() of a signature key err = %v, want %v", err, token.ErrUnsupported)
	}
	if _, err := tok.FindKeyPair(t.Context(), token.KeyQuery{ID: k.ID()}); !errors.Is(err, token.ErrUnsupported) {
		t.Errorf("FindKeyPair() of a decryption key err = %v, want %v", err, token.ErrUnsupported)
	}
	if _, err := tok.FindDecryptionKey(t.Context(), nil); err == nil {
		t.Error("FindDecryptionKey() of no ID err = nil, want one")
	}
}

// Whatever is gone comes back, for decryption too; the other operations are in
// TestWhatIsGoneComesBack.
func TestADecryptionIsTriedAgain(t *testing.T) {
	for _, library := range []bool{false, true} {
		t.Run(fmt.Sprintf("library=%t", library), func(t *testing.T) {
			decryptionIsTriedAgain(t, openFaulty(t, func(c *token.Config) { c.Quirks.LibraryCalls = library }))
		})
	}
}

func decryptionIsTriedAgain(t *testing.T, f *faulty) {
	k := decryptionKey(t, f.tok)
	o, err := k.Variant(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, function := range []string{"C_OpenSession", "C_FindObjectsInit", "C_GetAttributeValue", "C_DecryptInit", "C_Decrypt"} {
		for _, code := range goneCodes {
			f.Reset()
			f.Fail(t, function, 1, 1, code)
			f.DropSessions()
			if err := decrypts(t, k, o); err != nil {
				t.Errorf("with %s failing with %v: err = %v, want nil", function, code.Name(), err)
			}
		}
	}
	for _, code := range goneCodes {
		f.Reset()
		f.Fail(t, "C_GenerateKeyPair", 1, 1, code)
		if _, err := f.tok.GenerateDecryptionKey(t.Context(), nil, "once"); !errors.Is(err, code) || f.Calls("C_GenerateKeyPair") != 1 {
			t.Errorf("GenerateDecryptionKey() err = %v after %d calls, want %v after one", err, f.Calls("C_GenerateKeyPair"), code.Name())
		}
	}
	f.Reset()
	f.steps = nil
	if _, err := k.Decrypt(t.Context(), o, make([]byte, k.Public().Size()), nil); !errors.Is(err, token.ErrDecrypt) || len(f.steps) != 0 {
		t.Errorf("Decrypt() of bad data err = %v after steps %v, want %v at once", err, f.steps, token.ErrDecrypt)
	}
}

func TestAnotherDecryptionKeyUnderTheSameIDStopsEverything(t *testing.T) {
	f := openFaulty(t, nil)
	k := decryptionKey(t, f.tok)
	other := f.Open(t, f.cfg)
	if _, err := other.DestroyByID(t.Context(), k.ID(), token.ClassPrivateKey, token.ClassPublicKey); err != nil {
		t.Fatal(err)
	}
	if _, err := other.GenerateDecryptionKey(t.Context(), k.ID(), "other"); err != nil {
		t.Fatal(err)
	}
	wantChanged(t, f, operation{"decrypt", func(t *testing.T, _ *faulty) error { return decrypts(t, k, token.OAEP{Hash: crypto.SHA1}) }})
}

// What a TPM has and lacks. Its token has no session objects, and nothing is left of the token
// objects that are made instead.
func TestProbeOfATPM(t *testing.T) {
	tok, err := token.Open(t.Context(), vendortest.TPM(t))
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	if can, err := tok.CanSeal(t.Context()); err != nil || can {
		t.Errorf("CanSeal() = %t, %v, want false", can, err)
	}
	r, err := tok.Probe(t.Context())
	if err != nil {
		t.Fatalf("Probe() err = %v, want nil", err)
	}
	var can []string
	for _, p := range r.Results {
		if p.OK {
			can = append(can, p.Name)
		}
	}
	if want := []string{"random bytes", "decrypt RSA-OAEP", "sign P-256", "sign P-384", "keep what is not extractable"}; !slices.Equal(can, want) {
		t.Errorf("the TPM can %q, want %q", can, want)
	}
	if r.DecryptFault() != "" || r.SealFault() == "" {
		t.Errorf("DecryptFault() = %q, SealFault() = %q, want the second only", r.DecryptFault(), r.SealFault())
	}
	if n := countObjects(t, tok); n != 0 {
		t.Errorf("%d objects are left, want none", n)
	}
}

func TestSoftHSMSaysThatItSeals(t *testing.T) {
	tok := softhsmtest.Open(t)
	if can, err := tok.CanSeal(t.Context()); err != nil || !can {
		t.Errorf("CanSeal() = %t, %v, want true", can, err)
	}
}
