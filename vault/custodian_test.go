package vault_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/softhsm/softhsmtest"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/token/vendortest"
	"github.com/hsm-kp/hsm-kp/vault"
)

// custody is a custody by one mechanism, with the suites that it serves.
type custody struct {
	name      string
	mechanism vault.Mechanism
	suites    []ciphersuite.ID
	objects   int // in the token, of a wrapping key
}

var everySuite = []ciphersuite.ID{1, 2, 3, 4, 5, 6, 7}

func custodies() []custody {
	return []custody{
		{vault.CustodyWrapped, vault.AESGCM, everySuite, 1},
		{vault.CustodyToken, vault.AESKeyWrap, []ciphersuite.ID{2, 5, 7}, 1},
		{vault.CustodyWrapped, vault.RSAOAEP, everySuite, 4},
	}
}

// create makes a wrapping key, and returns its stamp.
func (c custody) create(tb testing.TB, t *token.Token) (vault.Custodian, []byte) {
	tb.Helper()
	id := newKeyID(tb)
	stamp, err := vault.CreateBy(tb.Context(), t, rand.Reader, c.mechanism, id, "test")
	if err != nil {
		tb.Fatalf("CreateBy(%s) err = %v, want nil", c.mechanism, err)
	}
	if m, err := vault.MechanismOf(stamp); err != nil || m != c.mechanism {
		tb.Errorf("MechanismOf() = %q, %v, want %q", m, err, c.mechanism)
	}
	v, err := vault.OpenBy(tb.Context(), t, c.mechanism, id)
	if err == nil {
		err = v.Recognize(tb.Context(), stamp)
	}
	if err != nil {
		tb.Fatalf("OpenBy(%s) err = %v, want nil", c.mechanism, err)
	}
	return v, stamp
}

func newKeyID(tb testing.TB) vault.KeyID {
	tb.Helper()
	id, err := vault.NewKeyID(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// kept is what Seal returned for a key package.
type kept struct {
	vault.Binding
	sealed []byte
}

func keep(tb testing.TB, c vault.Custodian, s *ciphersuite.Suite) kept {
	tb.Helper()
	fresh, err := c.Generate(tb.Context(), rand.Reader, s)
	if err != nil {
		tb.Fatalf("Generate() err = %v, want nil", err)
	}
	defer fresh.Clear()
	k := kept{Binding: vault.Binding{
		Ref: newRef(s), Suite: s, InitKey: bytes.Clone(fresh.InitKey()), EncryptionKey: bytes.Clone(fresh.EncryptionKey()),
	}}
	if k.sealed, err = fresh.Seal(tb.Context(), rand.Reader, k.Binding); err != nil {
		tb.Fatalf("Seal() err = %v, want nil", err)
	}
	return k
}

// opens returns an error if a private key does not open a message to a public key.
func opens(s *ciphersuite.Suite, key hpke.PrivateKey, public []byte) error {
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, public, "test", []byte("context"), []byte("message"))
	if err != nil {
		return err
	}
	plaintext, err := hpke.DecryptWithLabel(key, "test", []byte("context"), kemOutput, ciphertext)
	if err == nil && string(plaintext) != "message" {
		err = errors.New("it opened to something else")
	}
	return err
}

// usable reports whether both private keys open what is encrypted to the public ones.
func usable(ctx context.Context, c vault.Custodian, k kept) error {
	keys, err := c.Keys(ctx, k.Binding, k.sealed)
	if err != nil {
		return err
	}
	defer keys.Clear()
	return errors.Join(opens(k.Suite, keys.Init, k.InitKey), opens(k.Suite, keys.Encryption, k.EncryptionKey))
}

func TestPrivateKeysLiveInEachCustody(t *testing.T) {
	privateKeysLive(t, openToken(t), custodies()...)
}

// A TPM has no AES-GCM, and opens what is sealed to its RSA key.
func TestPrivateKeysLiveOnATPM(t *testing.T) {
	tok := vendortest.OpenTPM(t)
	privateKeysLive(t, tok, custody{vault.CustodyWrapped, vault.RSAOAEP, everySuite, 4})
	for _, m := range []vault.Mechanism{vault.AESGCM, vault.AESKeyWrap} {
		if _, err := vault.CreateBy(t.Context(), tok, rand.Reader, m, newKeyID(t), "test"); err == nil {
			t.Errorf("CreateBy(%s) on a TPM err = nil, want one", m)
		}
	}
}

// A p11-kit server passes on RSA and ECDSA only.
func TestPrivateKeysLiveBehindP11Kit(t *testing.T) {
	privateKeysLive(t, vendortest.OpenP11Kit(t, softhsmtest.Config(t)), custody{vault.CustodyWrapped, vault.RSAOAEP, everySuite, 4})
}

func privateKeysLive(t *testing.T, tok *token.Token, custodies ...custody) {
	want := 0
	for _, c := range custodies {
		want += 2 * c.objects
		one, stamp := c.create(t, tok)
		other, otherStamp := c.create(t, tok)
		if one.Custody() != c.name {
			t.Errorf("Custody() = %q, want %q", one.Custody(), c.name)
		}
		if err := one.Recognize(t.Context(), stamp); err != nil {
			t.Errorf("%s: Recognize() err = %v, want nil", c.mechanism, err)
		}
		if err := one.Recognize(t.Context(), otherStamp); !errors.Is(err, vault.ErrStamp) {
			t.Errorf("%s: Recognize() of another's stamp err = %v, want %v", c.mechanism, err, vault.ErrStamp)
		}
		for _, id := range served(c.suites) {
			s := suite(t, id)
			t.Run(string(c.mechanism)+"/"+s.Name, func(t *testing.T) {
				if err := one.Serves(t.Context(), s); err != nil {
					t.Fatalf("Serves() err = %v, want nil", err)
				}
				lifeOf(t, one, other, s)
			})
		}
	}
	objects, err := tok.Objects(t.Context())
	if err != nil || len(objects) != want {
		t.Errorf("%d objects (%v) in the token, want the %d of the wrapping keys and nothing else", len(objects), err, want)
	}
}

func lifeOf(t *testing.T, one, other vault.Custodian, s *ciphersuite.Suite) {
	k := keep(t, one, s)
	if err := usable(t.Context(), one, k); err != nil {
		t.Errorf("Keys() err = %v, want two that open", err)
	}
	keys, err := one.Keys(t.Context(), k.Binding, k.sealed)
	if err != nil {
		t.Fatal(err)
	}
	secret, ok := keys.Secret()
	if ok != (one.Custody() == vault.CustodyWrapped) {
		t.Errorf("Secret() = %v in custody %s", ok, one.Custody())
	}
	if ok && bytes.Contains(k.sealed, secret.Init.Bytes()) {
		t.Error("what is kept contains a private key")
	}
	leaf, err := one.KeepLeaf(t.Context(), rand.Reader, k.Binding, k.sealed, keys)
	if err != nil {
		t.Fatalf("KeepLeaf() err = %v, want nil", err)
	}
	keys.Clear()

	moved, err := one.Rewrap(t.Context(), rand.Reader, k.Binding, k.sealed, false, other)
	if err != nil {
		t.Fatalf("Rewrap() err = %v, want nil", err)
	}
	if err := usable(t.Context(), other, kept{k.Binding, moved}); err != nil {
		t.Errorf("after Rewrap(): Keys() err = %v, want two that open", err)
	}
	if err := usable(t.Context(), one, kept{k.Binding, moved}); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("after Rewrap(): Keys() under the old key err = %v, want %v", err, vault.ErrSealed)
	}
	movedLeaf, err := one.Rewrap(t.Context(), rand.Reader, k.Binding, leaf, true, other)
	if err != nil {
		t.Fatalf("Rewrap() of a leaf err = %v, want nil", err)
	}
	for _, l := range []struct {
		c    vault.Custodian
		leaf []byte
	}{{one, leaf}, {other, movedLeaf}} {
		alone, err := l.c.Leaf(t.Context(), k.Binding, l.leaf)
		if err != nil || alone.Init != nil {
			t.Fatalf("Leaf() = %v, %v, want the leaf's key alone", alone, err)
		}
		if err := opens(s, alone.Encryption, k.EncryptionKey); err != nil {
			t.Errorf("Leaf() opens with err = %v, want nil", err)
		}
		alone.Clear()
		if err := usable(t.Context(), l.c, kept{k.Binding, l.leaf}); err == nil {
			t.Error("a leaf alone passes for both keys")
		}
	}
}

// What is kept for one key package is of no use for another, whichever part is exchanged.
func TestWhatIsKeptFitsItsKeyPackageOnly(t *testing.T) {
	tok := openToken(t)
	for _, c := range custodies() {
		one, _ := c.create(t, tok)
		s := suite(t, 2)
		k, other := keep(t, one, s), keep(t, one, s)
		swapped := k.Binding
		swapped.InitKey, swapped.EncryptionKey = k.EncryptionKey, k.InitKey
		otherSuite := k.Binding
		otherSuite.Suite = suite(t, 7)
		wrongs := map[string]kept{
			"of another key package": {k.Binding, other.sealed},
			"of another suite":       {otherSuite, k.sealed},
			"cut short":              {k.Binding, k.sealed[:len(k.sealed)-1]},
			"nothing":                {k.Binding, nil},
		}
		if c.name == vault.CustodyToken { // sealed keys are bound to the KeyPackageRef, which both halves are of
			wrongs["halves exchanged"] = kept{swapped, k.sealed}
		}
		for name, wrong := range wrongs {
			if err := usable(t.Context(), one, wrong); !errors.Is(err, vault.ErrSealed) {
				t.Errorf("%s, %s: err = %v, want %v", c.mechanism, name, err, vault.ErrSealed)
			}
			if _, err := one.Rewrap(t.Context(), rand.Reader, wrong.Binding, wrong.sealed, false, one); !errors.Is(err, vault.ErrSealed) {
				t.Errorf("%s, %s: Rewrap() err = %v, want %v", c.mechanism, name, err, vault.ErrSealed)
			}
		}
		for i := range k.sealed {
			changed := kept{k.Binding, bytes.Clone(k.sealed)}
			changed.sealed[i] ^= 0x40
			if err := usable(t.Context(), one, changed); !errors.Is(err, vault.ErrSealed) {
				t.Errorf("%s, byte %d changed: err = %v, want %v", c.mechanism, i, err, vault.ErrSealed)
			}
		}
		if err := usable(t.Context(), one, k); err != nil {
			t.Errorf("%s: after all of that err = %v, want nil", c.mechanism, err)
		}
	}
}

func TestCustodiesDoNotMix(t *testing.T) {
	tok := openToken(t)
	all := custodies()
	wrapped, _ := all[0].create(t, tok)
	inToken, _ := all[1].create(t, tok)
	for _, pair := range [][2]vault.Custodian{{wrapped, inToken}, {inToken, wrapped}} {
		k := keep(t, pair[0], suite(t, 2))
		if _, err := pair[0].Rewrap(t.Context(), rand.Reader, k.Binding, k.sealed, false, pair[1]); err == nil {
			t.Errorf("Rewrap() from %s to %s err = nil, want one", pair[0].Custody(), pair[1].Custody())
		}
	}
	if _, err := vault.OpenToken(t.Context(), tok, wrapped.KeyID()); !errors.Is(err, token.ErrUnsupported) {
		t.Errorf("OpenToken() of a sealing key err = %v, want %v", err, token.ErrUnsupported)
	}
	if _, err := vault.Open(t.Context(), tok, inToken.KeyID()); !errors.Is(err, vault.ErrWeakKey) {
		t.Errorf("Open() of a wrapping key err = %v, want %v", err, vault.ErrWeakKey)
	}
}

func TestTokenCustodyRefusesOtherCurves(t *testing.T) {
	v, _ := custodies()[1].create(t, openToken(t))
	for _, id := range []ciphersuite.ID{1, 3, 4, 6} {
		s := suite(t, id)
		if err := v.Serves(t.Context(), s); !errors.Is(err, vault.ErrCustody) {
			t.Errorf("Serves(%v) err = %v, want %v", id, err, vault.ErrCustody)
		}
		if _, err := v.Generate(t.Context(), rand.Reader, s); !errors.Is(err, vault.ErrCustody) {
			t.Errorf("Generate(%v) err = %v, want %v", id, err, vault.ErrCustody)
		}
	}
}

// The form is frozen: stores keep blobs for as long as a key package lives.
func TestWrappedBlobFormIsFrozen(t *testing.T) {
	const frozen = "01" + "03" + "0005" + "04" + "00010203" + "03" + "a0a1a2" + "02" + "b0b1"
	raw, err := hex.DecodeString(frozen)
	if err != nil {
		t.Fatal(err)
	}
	blob, err := vault.ParseWrappedBlob(raw)
	if err != nil || blob.Mechanism != token.KeyWrapPad || blob.Suite != 5 || blob.KeyID.String() != "00010203" ||
		hex.EncodeToString(blob.Init) != "a0a1a2" || hex.EncodeToString(blob.Encryption) != "b0b1" {
		t.Fatalf("ParseWrappedBlob() = %+v, %v", blob, err)
	}
	if got := blob.Bytes(); !bytes.Equal(got, raw) {
		t.Errorf("Bytes() = %x, want %s", got, frozen)
	}
	for n := range raw {
		if _, err := vault.ParseWrappedBlob(raw[:n]); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("ParseWrappedBlob() of the first %d bytes err = %v, want %v", n, err, vault.ErrSealed)
		}
	}
	for _, head := range [][]byte{{1, 1}, {1, 4}, {1, 6}, {2, 2}} {
		if _, err := vault.ParseWrappedBlob(append(head, raw[2:]...)); !errors.Is(err, vault.ErrSealed) {
			t.Errorf("ParseWrappedBlob() of version and algorithm %x err = %v, want %v", head, err, vault.ErrSealed)
		}
	}
}

func FuzzParseWrappedBlob(f *testing.F) {
	for _, m := range []token.KeyWrap{token.KeyWrapKWP, token.KeyWrapPad} {
		blob := vault.WrappedBlob{Mechanism: m, Suite: 2, KeyID: make([]byte, 16), Init: make([]byte, 80), Encryption: make([]byte, 80)}
		f.Add(blob.Bytes())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		blob, err := vault.ParseWrappedBlob(raw)
		if err == nil && !bytes.Equal(blob.Bytes(), raw) {
			t.Errorf("Bytes() of ParseWrappedBlob(%x) = %x", raw, blob.Bytes())
		}
	})
}
