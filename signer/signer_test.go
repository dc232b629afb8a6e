package signer_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
)

var schemes = []ciphersuite.SignatureScheme{
	ciphersuite.ECDSA_SECP256R1_SHA256,
	ciphersuite.ECDSA_SECP384R1_SHA384,
	ciphersuite.ECDSA_SECP521R1_SHA512,
	ciphersuite.ED25519,
	ciphersuite.ED448,
}

func TestGeneratedKeySignsAndIsFoundAgain(t *testing.T) {
	signAndFind(t, softhsmtest.Open(t), schemes)
}

func TestGeneratedKeySignsAndIsFoundAgainInNSS(t *testing.T) {
	signAndFind(t, vendortest.OpenNSS(t), schemes[:3])
}

func TestGeneratedKeySignsAndIsFoundAgainThroughP11Kit(t *testing.T) {
	tok, err := token.Open(t.Context(), vendortest.P11Kit(t, softhsmtest.Config(t)).Config())
	if err != nil {
		t.Fatalf("Open() err = %v, want nil", err)
	}
	defer tok.Close()
	signAndFind(t, tok, schemes[:3])
}

func signAndFind(t *testing.T, tok *token.Token, schemes []ciphersuite.SignatureScheme) {
	t.Helper()
	for _, scheme := range schemes {
		t.Run(scheme.String(), func(t *testing.T) {
			made, err := signer.Generate(t.Context(), tok, scheme, nil, "key of "+scheme.String())
			if err != nil {
				t.Fatalf("Generate() err = %v, want nil", err)
			}
			if made.Scheme() != scheme {
				t.Errorf("Scheme() = %v, want %v", made.Scheme(), scheme)
			}
			found, err := signer.Find(t.Context(), tok, token.KeyQuery{ID: made.ID(), Label: made.Label()})
			if err != nil {
				t.Fatalf("Find() err = %v, want nil", err)
			}
			if !bytes.Equal(found.PublicKey(), made.PublicKey()) {
				t.Error("Find() found another public key than Generate() made")
			}
			sig, err := scheme.SignWithLabel(nil, found, "LeafNodeTBS", []byte("content"))
			if err != nil {
				t.Fatalf("SignWithLabel() err = %v, want nil", err)
			}
			public, err := scheme.ParsePublicKey(made.PublicKey())
			if err != nil {
				t.Fatalf("ParsePublicKey() err = %v, want nil", err)
			}
			if err := public.VerifyWithLabel("LeafNodeTBS", []byte("content"), sig); err != nil {
				t.Errorf("VerifyWithLabel() err = %v, want nil", err)
			}
		})
	}
}

func TestKeyPrintsLabelAndID(t *testing.T) {
	k, err := signer.Generate(t.Context(), softhsmtest.Open(t), ciphersuite.ED25519, []byte("\xab0123456789abcde"), "alice's")
	if err != nil {
		t.Fatalf("Generate() err = %v, want nil", err)
	}
	const id = "ab303132333435363738396162636465"
	const both = `label "alice's", id ` + id
	for verb, want := range map[string]string{
		"%v": both, "%+v": both, "%#v": both, "%s": both, "%q": both, "%d": both, "%x": id, "%X": strings.ToUpper(id),
	} {
		for _, key := range []any{k, *k} {
			if got := fmt.Sprintf(verb, key); got != want {
				t.Errorf("Sprintf(%q, %T) = %s, want %s", verb, key, got, want)
			}
		}
	}
}

func TestGenerateRefusesUnknownSchemes(t *testing.T) {
	tok := softhsmtest.Open(t)
	for _, scheme := range []ciphersuite.SignatureScheme{0, 0x0804} {
		if _, err := signer.Generate(t.Context(), tok, scheme, nil, "key"); !errors.Is(err, signer.ErrScheme) {
			t.Errorf("Generate(%v) err = %v, want ErrScheme", scheme, err)
		}
	}
}

func TestDescriptionOfGeneratedKeyHasNoWeakness(t *testing.T) {
	tok := softhsmtest.Open(t)
	k, err := signer.Generate(t.Context(), tok, ciphersuite.ED25519, nil, "alice")
	if err != nil {
		t.Fatalf("Generate() err = %v, want nil", err)
	}
	d, err := k.Describe(t.Context())
	if err != nil {
		t.Fatalf("Describe() err = %v, want nil", err)
	}
	if len(d.Weak) > 0 || d.Label != "alice" || !bytes.Equal(d.ID, k.ID()) || !bytes.Equal(d.PublicKey, k.PublicKey()) {
		t.Errorf("Describe() = %+v, want the generated key, without weakness", d)
	}
	if e := d.Attributes.Extractable; e == nil || *e {
		t.Errorf("Describe().Attributes.Extractable = %v, want false", e)
	}
	list, err := signer.List(t.Context(), tok)
	if err != nil || len(list) != 1 || !bytes.Equal(list[0].PublicKey, k.PublicKey()) {
		t.Errorf("List() = %+v, %v, want the one key", list, err)
	}
}

func TestListLeavesOutKeysThatAreNotForMLSHere(t *testing.T) {
	tok := softhsmtest.Open(t)
	if _, err := tok.GenerateKeyPair(t.Context(), token.KeyPairSpec{Curve: token.Ed448}); err != nil {
		t.Fatalf("GenerateKeyPair() err = %v, want nil", err)
	}
	made, err := signer.Generate(t.Context(), tok, ciphersuite.ECDSA_SECP256R1_SHA256, nil, "bob")
	if err != nil {
		t.Fatalf("Generate() err = %v, want nil", err)
	}
	list, err := signer.List(t.Context(), tok)
	if err != nil {
		t.Fatalf("List() err = %v, want nil", err)
	}
	for _, d := range list {
		if d.Scheme == ciphersuite.ECDSA_SECP256R1_SHA256 && !bytes.Equal(d.ID, made.ID()) {
			t.Errorf("List() has key %x, want %x only", d.ID, made.ID())
		}
	}
}

func TestDeletedKeyIsNotFound(t *testing.T) {
	tok := softhsmtest.Open(t)
	k, err := signer.Generate(t.Context(), tok, ciphersuite.ECDSA_SECP256R1_SHA256, nil, "carol")
	if err != nil {
		t.Fatalf("Generate() err = %v, want nil", err)
	}
	if err := k.Delete(t.Context()); err != nil {
		t.Fatalf("Delete() err = %v, want nil", err)
	}
	if _, err := signer.Find(t.Context(), tok, token.KeyQuery{ID: k.ID()}); !errors.Is(err, token.ErrNotFound) {
		t.Errorf("Find() err = %v, want ErrNotFound", err)
	}
}

func TestGenerateStopsBeforeAnythingIsMadeWhenCancelled(t *testing.T) {
	tok := softhsmtest.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := signer.Generate(ctx, tok, ciphersuite.ED25519, nil, "dave"); !errors.Is(err, context.Canceled) {
		t.Errorf("Generate() err = %v, want context.Canceled", err)
	}
	list, err := signer.List(t.Context(), tok)
	if err != nil || len(list) != 0 {
		t.Errorf("List() = %+v, %v, want none", list, err)
	}
}

func TestSignerRefusesDigestOfAnotherLength(t *testing.T) {
	tok := softhsmtest.Open(t)
	k, err := signer.Generate(t.Context(), tok, ciphersuite.ECDSA_SECP256R1_SHA256, nil, "eve")
	if err != nil {
		t.Fatalf("Generate() err = %v, want nil", err)
	}
	if _, err := k.Sign(nil, make([]byte, 31), crypto.SHA256); err == nil {
		t.Error("Sign() of 31 bytes err = nil, want an error")
	}
}
