package hpke_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"slices"
	"testing"

	stdhpke "crypto/hpke"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// comparable are the suites that Go's crypto/hpke has too: it has no X448,
// which is held against the official vectors instead, and it does the work for the
// experimental ones, one of which circl has: see TestXWingIsCircls.
func comparable() []*ciphersuite.Suite {
	return slices.DeleteFunc(ciphersuite.All(), func(s *ciphersuite.Suite) bool {
		return s.Signature == ciphersuite.ED448 || s.Experimental
	})
}

func suite(tb testing.TB, id ciphersuite.ID) *ciphersuite.Suite {
	tb.Helper()
	s, ok := ciphersuite.Lookup(id)
	if !ok {
		tb.Fatalf("Lookup(%d) found nothing", id)
	}
	return s
}

func newKey(tb testing.TB, s *ciphersuite.Suite) *hpke.SecretKey {
	tb.Helper()
	k, err := hpke.GenerateKeyPair(s, rand.Reader)
	if err != nil {
		tb.Fatalf("GenerateKeyPair() err = %v, want nil", err)
	}
	return k
}

// peer is a suite of the standard library's HPKE, another implementation than
// circl's. It has no X448.
type peer struct {
	kem  stdhpke.KEM
	kdf  stdhpke.KDF
	aead stdhpke.AEAD
}

func newPeer(tb testing.TB, s *ciphersuite.Suite) (p peer) {
	tb.Helper()
	var err [3]error
	p.kem, err[0] = stdhpke.NewKEM(s.KEM)
	p.kdf, err[1] = stdhpke.NewKDF(s.KDF)
	p.aead, err[2] = stdhpke.NewAEAD(s.AEAD)
	if err := errors.Join(err[:]...); err != nil {
		tb.Fatal(err)
	}
	return p
}

// The info that RFC 9420, Section 5.1.3, has for label "Welcome" and context
// "context".
const (
	label   = "Welcome"
	context = "context"
	info    = "\x0fMLS 1.0 Welcome\x07context"
)

func TestWhatIsEncryptedOpens(t *testing.T) {
	for _, s := range ciphersuite.All() {
		t.Run(s.Name, func(t *testing.T) {
			k := newKey(t, s)
			for _, plaintext := range [][]byte{{}, []byte("group secrets"), bytes.Repeat([]byte{7}, 70_000)} {
				kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, k.PublicKey(), label, []byte(context), plaintext)
				if err != nil {
					t.Fatalf("EncryptWithLabel() err = %v, want nil", err)
				}
				if len(kemOutput) != s.Nenc || len(ciphertext) != len(plaintext)+s.Nt {
					t.Errorf("EncryptWithLabel() = %d and %d bytes, want %d and %d", len(kemOutput), len(ciphertext), s.Nenc, len(plaintext)+s.Nt)
				}
				got, err := hpke.DecryptWithLabel(k, label, []byte(context), kemOutput, ciphertext)
				if err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("DecryptWithLabel() of %d bytes = %d bytes, %v", len(plaintext), len(got), err)
				}
			}
		})
	}
}

func TestAnotherImplementationOpensWhatIsEncrypted(t *testing.T) {
	for _, s := range comparable() {
		t.Run(s.Name, func(t *testing.T) {
			p := newPeer(t, s)
			private, err := p.kem.GenerateKey()
			if err != nil {
				t.Fatal(err)
			}
			kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, private.PublicKey().Bytes(), label, []byte(context), []byte("group secrets"))
			if err != nil {
				t.Fatalf("EncryptWithLabel() err = %v, want nil", err)
			}
			got, err := stdhpke.Open(private, p.kdf, p.aead, []byte(info), append(kemOutput, ciphertext...))
			if err != nil || string(got) != "group secrets" {
				t.Errorf("the peer opened %q, %v", got, err)
			}
		})
	}
}

func TestWhatAnotherImplementationEncryptsOpens(t *testing.T) {
	for _, s := range comparable() {
		t.Run(s.Name, func(t *testing.T) {
			p, k := newPeer(t, s), newKey(t, s)
			public, err := p.kem.NewPublicKey(k.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			sealed, err := stdhpke.Seal(public, p.kdf, p.aead, []byte(info), []byte("group secrets"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := hpke.DecryptWithLabel(k, label, []byte(context), sealed[:s.Nenc], sealed[s.Nenc:])
			if err != nil || string(got) != "group secrets" {
				t.Errorf("DecryptWithLabel() = %q, %v", got, err)
			}
		})
	}
}

func TestACiphertextOpensForItsKeyLabelAndContextOnly(t *testing.T) {
	for _, s := range ciphersuite.All() {
		t.Run(s.Name, func(t *testing.T) {
			k := newKey(t, s)
			kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, k.PublicKey(), label, []byte(context), []byte("group secrets"))
			if err != nil {
				t.Fatal(err)
			}
			other, _, err := hpke.EncryptWithLabel(s, k.PublicKey(), label, []byte(context), nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, c := range map[string]struct {
				k                     hpke.PrivateKey
				label, context        string
				kemOutput, ciphertext []byte
			}{
				"another key":         {newKey(t, s), label, context, kemOutput, ciphertext},
				"another label":       {k, "UpdatePathNode", context, kemOutput, ciphertext},
				"another context":     {k, label, "contexT", kemOutput, ciphertext},
				"a shifted frame":     {k, label + "\x07c", context[1:], kemOutput, ciphertext},
				"another KEM output":  {k, label, context, other, ciphertext},
				"no KEM output":       {k, label, context, nil, ciphertext},
				"zeros as KEM output": {k, label, context, make([]byte, s.Nenc), ciphertext},
				"ones as KEM output":  {k, label, context, bytes.Repeat([]byte{0xFF}, s.Nenc), ciphertext},
				"a longer KEM output": {k, label, context, append(kemOutput[:s.Nenc:s.Nenc], 0), ciphertext},
				"no ciphertext":       {k, label, context, kemOutput, nil},
				"a longer ciphertext": {k, label, context, kemOutput, append(ciphertext[:len(ciphertext):len(ciphertext)], 0)},
			} {
				if got, err := hpke.DecryptWithLabel(c.k, c.label, []byte(c.context), c.kemOutput, c.ciphertext); !errors.Is(err, hpke.ErrOpen) || got != nil {
					t.Errorf("%s: DecryptWithLabel() = %x, %v, want %v", name, got, err, hpke.ErrOpen)
				}
			}
		})
	}
}

func TestACiphertextCutOrChangedAnywhereDoesNotOpen(t *testing.T) {
	for _, id := range []ciphersuite.ID{1, 2} {
		s := suite(t, id)
		k := newKey(t, s)
		kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, k.PublicKey(), label, nil, []byte("group secrets"))
		if err != nil {
			t.Fatal(err)
		}
		sealed := append(bytes.Clone(kemOutput), ciphertext...)
		decrypt := func(sealed []byte) error {
			n := min(s.Nenc, len(sealed))
			_, err := hpke.DecryptWithLabel(k, label, nil, sealed[:n], sealed[n:])
			return err
		}
		if err := decrypt(sealed); err != nil {
			t.Fatalf("DecryptWithLabel() err = %v, want nil", err)
		}
		for i := range sealed {
			changed := bytes.Clone(sealed)
			changed[i] ^= 1
			if err := decrypt(sealed[:i]); !errors.Is(err, hpke.ErrOpen) {
				t.Errorf("suite %d, cut before byte %d: err = %v, want %v", id, i, err, hpke.ErrOpen)
			}
			if err := decrypt(changed); !errors.Is(err, hpke.ErrOpen) {
				t.Errorf("suite %d, byte %d changed: err = %v, want %v", id, i, err, hpke.ErrOpen)
			}
		}
	}
}

// opaque is a private key whose bytes are not here.
type opaque struct {
	info, aad []byte
	err       error
}

func (o *opaque) PublicKey() []byte { return nil }

func (o *opaque) Open(info, aad, _, _ []byte) ([]byte, error) {
	o.info, o.aad = info, aad
	return []byte("plaintext"), o.err
}

func TestOpaquePrivateKeysOpenToo(t *testing.T) {
	var o opaque
	got, err := hpke.DecryptWithLabel(&o, label, []byte(context), nil, nil)
	if err != nil || string(got) != "plaintext" {
		t.Errorf("DecryptWithLabel() = %q, %v", got, err)
	}
	if string(o.info) != info || len(o.aad) != 0 {
		t.Errorf("Open() got info %q and aad %x, want %q and none", o.info, o.aad, info)
	}
	o.err = errors.New("the token is gone")
	if got, err := hpke.DecryptWithLabel(&o, label, nil, nil, nil); !errors.Is(err, o.err) || got != nil {
		t.Errorf("DecryptWithLabel() = %q, %v, want %v", got, err, o.err)
	}
}

func TestPublicKeysThatAreNoneAreRefused(t *testing.T) {
	for _, s := range ciphersuite.All() {
		public := newKey(t, s).PublicKey()
		if err := hpke.ValidPublicKey(s, public); err != nil {
			t.Fatalf("%v: ValidPublicKey() err = %v, want nil", s.ID, err)
		}
		for n := range public {
			if err := hpke.ValidPublicKey(s, public[:n]); err == nil {
				t.Errorf("%v: ValidPublicKey() of the first %d bytes err = nil, want one", s.ID, n)
			}
		}
		bad := map[string][]byte{
			"a byte longer": append(bytes.Clone(public), 0),
			"zero":          make([]byte, s.Npk),
		}
		if s.ID == mlKEM {
			delete(bad, "zero") // its coefficients are in range, and there is no point
		}
		if public[0] == 4 && s.Npk == 1+2*s.Nsk {
			compressed, offCurve := bytes.Clone(public), bytes.Clone(public)
			compressed[0], offCurve[s.Npk-1] = 2, offCurve[s.Npk-1]^1
			bad["compressed"], bad["off the curve"] = compressed, offCurve
			bad["out of range"] = append([]byte{4}, bytes.Repeat([]byte{0xFF}, s.Npk-1)...)
		}
		for name, b := range bad {
			if err := hpke.ValidPublicKey(s, b); err == nil {
				t.Errorf("%v: ValidPublicKey() of a key that is %s err = nil, want one", s.ID, name)
			}
			if _, _, err := hpke.EncryptWithLabel(s, b, label, nil, nil); err == nil {
				t.Errorf("%v: EncryptWithLabel() to a key that is %s err = nil, want one", s.ID, name)
			}
		}
	}
}

func FuzzDecryptWithLabel(f *testing.F) {
	var keys []*hpke.SecretKey
	for _, s := range ciphersuite.All() {
		number := uint8(len(keys))
		keys = append(keys, newKey(f, s))
		kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, keys[number].PublicKey(), label, nil, []byte("plaintext"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(number, wire.AppendVector(nil, kemOutput), ciphertext)
		f.Add(number, kemOutput, ciphertext[:1])
	}
	f.Fuzz(func(t *testing.T, number uint8, kemOutput, ciphertext []byte) {
		k := keys[int(number)%len(keys)]
		if _, err := hpke.DecryptWithLabel(k, "another label", nil, kemOutput, ciphertext); !errors.Is(err, hpke.ErrOpen) {
			t.Errorf("DecryptWithLabel() err = %v, want %v", err, hpke.ErrOpen)
		}
	})
}

func BenchmarkEncryptWithLabel(b *testing.B) {
	for _, s := range ciphersuite.All() {
		b.Run(s.Name, func(b *testing.B) {
			public, plaintext := newKey(b, s).PublicKey(), make([]byte, 100)
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := hpke.EncryptWithLabel(s, public, label, nil, plaintext); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDecryptWithLabel(b *testing.B) {
	for _, s := range ciphersuite.All() {
		b.Run(s.Name, func(b *testing.B) {
			k := newKey(b, s)
			kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, k.PublicKey(), label, nil, make([]byte, 100))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := hpke.DecryptWithLabel(k, label, nil, kemOutput, ciphertext); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkValidPublicKey(b *testing.B) {
	for _, s := range ciphersuite.All() {
		b.Run(s.Name, func(b *testing.B) {
			public := newKey(b, s).PublicKey()
			b.ReportAllocs()
			for b.Loop() {
				if err := hpke.ValidPublicKey(s, public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
