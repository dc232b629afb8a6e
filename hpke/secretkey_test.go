package hpke_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// RFC 9180, Appendix A.1.1: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
// AES-128-GCM, which are those of suite 1.
func TestExampleOfRFC9180(t *testing.T) {
	k, err := hpke.GenerateKeyPair(suite(t, 1), bytes.NewReader(unhex(t, "6db9df30aa07dd42ee5e8181afdb977e538f5e1fec8a06223f33f7013e525037")))
	if err != nil {
		t.Fatalf("GenerateKeyPair() err = %v, want nil", err)
	}
	if got, want := hex.EncodeToString(k.PublicKey()), "3948cfe0ad1ddb695d780e59077195da6c56506b027329794ab02bca80815c4d"; got != want {
		t.Errorf("pkRm = %s, want %s", got, want)
	}
	if got, want := hex.EncodeToString(k.Bytes()), "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8"; got != want {
		t.Error("skRm is another key")
	}
	plaintext, err := k.Open(
		unhex(t, "4f6465206f6e2061204772656369616e2055726e"),
		unhex(t, "436f756e742d30"),
		unhex(t, "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"),
		unhex(t, "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"))
	if err != nil || string(plaintext) != "Beauty is truth, truth beauty" {
		t.Errorf("Open() = %q, %v", plaintext, err)
	}
}

func TestKeysAreMadeAsByAnotherImplementation(t *testing.T) {
	for _, s := range comparable() {
		kem := newPeer(t, s).kem
		for range 20 {
			ikm := make([]byte, s.Nsk)
			rand.Read(ikm)
			k, err := hpke.GenerateKeyPair(s, bytes.NewReader(ikm))
			if err != nil {
				t.Fatalf("%v: GenerateKeyPair() err = %v, want nil", s.ID, err)
			}
			private, err := kem.DeriveKeyPair(ikm)
			if s.ID != 1 && s.ID != 3 { // the P-curves
				ikm[0] &= byte(0xff >> (8*s.Nsk - bitsOf(s)))
				private, err = kem.NewPrivateKey(ikm)
			}
			if err != nil {
				t.Fatal(err)
			}
			if want := private.PublicKey().Bytes(); !bytes.Equal(k.PublicKey(), want) {
				t.Errorf("%v: PublicKey() = %x, want %x", s.ID, k.PublicKey(), want)
			}
		}
	}
}

// bitsOf returns how long a private key of a P-curve may be.
func bitsOf(s *ciphersuite.Suite) int {
	if s.Nsk == 66 {
		return 521
	}
	return 8 * s.Nsk
}

func TestAScalarThatIsOutOfRangeIsPassedOver(t *testing.T) {
	for _, s := range comparable() {
		if s.ID == 1 || s.ID == 3 {
			continue
		}
		good := bytes.Repeat([]byte{1}, s.Nsk)
		for _, bad := range [][]byte{make([]byte, s.Nsk), bytes.Repeat([]byte{0xff}, s.Nsk)} {
			k, err := hpke.GenerateKeyPair(s, bytes.NewReader(slices.Concat(bad, good)))
			if err != nil {
				t.Fatalf("%v: GenerateKeyPair() err = %v, want nil", s.ID, err)
			}
			if !bytes.Equal(k.Bytes(), good) {
				t.Errorf("%v: GenerateKeyPair() is not the second candidate", s.ID)
			}
		}
		if _, err := hpke.GenerateKeyPair(s, bytes.NewReader(make([]byte, 100*s.Nsk))); err == nil {
			t.Errorf("%v: GenerateKeyPair() of nothing but zeros err = nil", s.ID)
		}
	}
}

func TestKeysHaveTheSizesOfTheirSuite(t *testing.T) {
	for _, s := range ciphersuite.All() {
		k := newKey(t, s)
		if k.Suite() != s || len(k.PublicKey()) != s.Npk || len(k.Bytes()) != s.Nsk {
			t.Errorf("%v: a key of %v, %d and %d bytes, want %d and %d", s.ID, k.Suite().ID, len(k.PublicKey()), len(k.Bytes()), s.Npk, s.Nsk)
		}
	}
}

func TestAKeyTakesAllItsBytesFromRand(t *testing.T) {
	for _, s := range ciphersuite.All() {
		if _, err := hpke.GenerateKeyPair(s, bytes.NewReader(make([]byte, s.Nsk-1))); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%v: GenerateKeyPair() of too few bytes err = %v, want %v", s.ID, err, io.ErrUnexpectedEOF)
		}
		r := bytes.NewReader(bytes.Repeat([]byte{1}, s.Nsk+5))
		if _, err := hpke.GenerateKeyPair(s, r); err != nil || r.Len() != 5 {
			t.Errorf("%v: GenerateKeyPair() err = %v and leaves %d bytes, want nil and 5", s.ID, err, r.Len())
		}
	}
}

func TestAPrivateKeyComesBack(t *testing.T) {
	for _, s := range ciphersuite.All() {
		k := newKey(t, s)
		input := k.Bytes()
		got, err := hpke.ParsePrivateKey(s, input)
		if err != nil {
			t.Fatalf("%v: ParsePrivateKey() err = %v, want nil", s.ID, err)
		}
		clear(input)
		if !bytes.Equal(got.Bytes(), k.Bytes()) || !bytes.Equal(got.PublicKey(), k.PublicKey()) {
			t.Errorf("%v: ParsePrivateKey(Bytes()) is another key", s.ID)
		}
		appended, err := got.AppendTo([]byte("before"))
		if err != nil || !bytes.Equal(appended, append([]byte("before"), k.Bytes()...)) {
			t.Errorf("%v: AppendTo() err = %v, or other bytes", s.ID, err)
		}
	}
}

func TestPrivateKeysOfAnotherLengthAreRefused(t *testing.T) {
	for _, s := range ciphersuite.All() {
		private := newKey(t, s).Bytes()
		for n := range s.Nsk {
			_, err := hpke.ParsePrivateKey(s, private[:n])
			if n == 65 { // suite 5, without its leading zero; tested below
				continue
			}
			if err == nil {
				t.Errorf("%v: ParsePrivateKey() of the first %d bytes err = nil, want one", s.ID, n)
			}
		}
		if _, err := hpke.ParsePrivateKey(s, append(private, 0)); err == nil {
			t.Errorf("%v: ParsePrivateKey() with a byte more err = nil, want one", s.ID)
		}
	}
}

func TestAP521KeyMayLackItsLeadingZero(t *testing.T) {
	s := suite(t, 5)
	short := bytes.Repeat([]byte{0x5A}, 65)
	k, err := hpke.ParsePrivateKey(s, short)
	if err != nil {
		t.Fatalf("ParsePrivateKey() err = %v, want nil", err)
	}
	if want := append([]byte{0}, short...); !bytes.Equal(k.Bytes(), want) {
		t.Error("Bytes() is not the key with a zero before it")
	}
	whole, err := hpke.ParsePrivateKey(s, k.Bytes())
	if err != nil || !bytes.Equal(whole.PublicKey(), k.PublicKey()) {
		t.Errorf("ParsePrivateKey() of all 66 bytes is another key, or err = %v", err)
	}
}

func TestPrivateKeysOutOfRangeAreRefused(t *testing.T) {
	for id, curve := range map[ciphersuite.ID]elliptic.Curve{2: elliptic.P256(), 7: elliptic.P384(), 5: elliptic.P521()} {
		s := suite(t, id)
		order := curve.Params().N.FillBytes(make([]byte, s.Nsk))
		for name, b := range map[string][]byte{
			"zero":      make([]byte, s.Nsk),
			"the order": order,
			"all ones":  bytes.Repeat([]byte{0xFF}, s.Nsk),
		} {
			_, err := hpke.ParsePrivateKey(s, b)
			if err == nil {
				t.Errorf("%v: ParsePrivateKey() of %s err = nil, want one", id, name)
			} else if strings.Contains(err.Error(), hex.EncodeToString(b[:8])) {
				t.Errorf("%v: the error repeats the key: %v", id, err)
			}
		}
	}
}

func TestAClearedKeyIsGone(t *testing.T) {
	for _, s := range ciphersuite.All() {
		k := newKey(t, s)
		kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, k.PublicKey(), label, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		k.Clear()
		k.Clear()
		if got := k.Bytes(); got != nil {
			t.Errorf("%v: Bytes() = %d bytes, want nil", s.ID, len(got))
		}
		if _, err := k.AppendTo(nil); !errors.Is(err, hpke.ErrCleared) {
			t.Errorf("%v: AppendTo() err = %v, want %v", s.ID, err, hpke.ErrCleared)
		}
		if _, err := hpke.DecryptWithLabel(k, label, nil, kemOutput, ciphertext); !errors.Is(err, hpke.ErrCleared) {
			t.Errorf("%v: DecryptWithLabel() err = %v, want %v", s.ID, err, hpke.ErrCleared)
		}
		if len(k.PublicKey()) != s.Npk {
			t.Errorf("%v: the public key is gone too", s.ID)
		}
	}
	(*hpke.SecretKey)(nil).Clear()
}

func TestBytesReturnsACopy(t *testing.T) {
	k := newKey(t, suite(t, 1))
	clear(k.Bytes())
	if bytes.Equal(k.Bytes(), make([]byte, 32)) {
		t.Error("Bytes() is the key's own memory, want a copy")
	}
}

// Readers see the whole key or ErrCleared; the race detector looks on.
func TestOneKeyServesManyGoroutines(t *testing.T) {
	s := suite(t, 1)
	k := newKey(t, s)
	kemOutput, ciphertext, err := hpke.EncryptWithLabel(s, k.PublicKey(), label, nil, []byte("plaintext"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				got, err := hpke.DecryptWithLabel(k, label, nil, kemOutput, ciphertext)
				if !errors.Is(err, hpke.ErrCleared) && string(got) != "plaintext" {
					t.Errorf("DecryptWithLabel() = %q, %v", got, err)
				}
				if b := k.Bytes(); b != nil && bytes.Equal(b, make([]byte, s.Nsk)) {
					t.Error("Bytes() is a key half cleared")
				}
			}
			if i == 0 {
				k.Clear()
			}
		})
	}
	wg.Wait()
}

// holder hides a key from package fmt's look at methods, by its unexported field,
// and a copy of one.
type holder struct {
	pointer *hpke.SecretKey
	value   hpke.SecretKey
}

func TestKeysPrintRedacted(t *testing.T) {
	for _, s := range ciphersuite.All() {
		k := newKey(t, s)
		private := k.Bytes()
		forms := []string{
			hex.EncodeToString(private[1:9]), strings.ToUpper(hex.EncodeToString(private[1:9])),
			strings.Trim(fmt.Sprint(private[1:9]), "[]"), string(private[1:9]),
			strings.Trim(fmt.Sprintf("%#v", private[1:9]), "[]byte{}"), fmt.Sprintf("% x", private[1:9]),
		}
		check := func(how, out string, redacted bool) {
			t.Helper()
			for _, form := range forms {
				if strings.Contains(out, form) {
					t.Errorf("%v: %s shows the key", s.ID, how)
				}
			}
			if redacted && !strings.Contains(out, "REDACTED") {
				t.Errorf("%v: %s = %s, want REDACTED", s.ID, how, out)
			}
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%t"} {
			check(verb+" of the key", fmt.Sprintf(verb, k), true)
			check(verb+" of its value", fmt.Sprintf(verb, *k), true)
			check(verb+" of a slice", fmt.Sprintf(verb, []*hpke.SecretKey{k}), true)
			check(verb+" of a struct", fmt.Sprintf(verb, struct{ K *hpke.SecretKey }{k}), true)
			check(verb+" of an unexported field", fmt.Sprintf(verb, holder{k, *k}), false)
			check(verb+" of a pointer to one", fmt.Sprintf(verb, &holder{k, *k}), false)
		}
		check("String()", k.String(), true)
		check("GoString()", k.GoString(), true)
		check("an error", fmt.Errorf("key %v", k).Error(), true)
		checkEncodings(t, k, check)
	}
}

func checkEncodings(t *testing.T, k *hpke.SecretKey, check func(how, out string, redacted bool)) {
	t.Helper()
	for _, v := range []any{k, *k, struct{ K *hpke.SecretKey }{k}, map[string]hpke.SecretKey{"k": *k}} {
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		check(fmt.Sprintf("JSON of a %T", v), string(out), true)
		for name, handler := range map[string]func(io.Writer) slog.Handler{
			"text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
			"JSON": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
		} {
			var log bytes.Buffer
			slog.New(handler(&log)).Info("a key", "key", v)
			check(fmt.Sprintf("slog as %s of a %T", name, v), log.String(), true)
		}
	}
	text, err := k.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	check("MarshalText()", string(text), true)
}

func FuzzParsePrivateKey(f *testing.F) {
	for _, s := range ciphersuite.All() {
		f.Add(uint8(s.ID), newKey(f, s).Bytes())
		f.Add(uint8(s.ID), make([]byte, s.Nsk))
	}
	f.Add(uint8(5), bytes.Repeat([]byte{0x5A}, 65))
	f.Fuzz(func(t *testing.T, id uint8, input []byte) {
		s := suite(t, ciphersuite.ID(1+id%7))
		k, err := hpke.ParsePrivateKey(s, input)
		if err != nil {
			return
		}
		if got := k.Bytes(); len(got) != s.Nsk || !bytes.HasSuffix(got, input) {
			t.Errorf("Bytes() of what was parsed from %d bytes are others", len(input))
		}
		if err := hpke.ValidPublicKey(s, k.PublicKey()); err != nil {
			t.Errorf("ValidPublicKey() of a parsed key err = %v, want nil", err)
		}
	})
}

func BenchmarkGenerateKeyPair(b *testing.B) {
	for _, s := range ciphersuite.All() {
		b.Run(s.Name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := hpke.GenerateKeyPair(s, rand.Reader); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParsePrivateKey(b *testing.B) {
	for _, s := range ciphersuite.All() {
		b.Run(s.Name, func(b *testing.B) {
			private := newKey(b, s).Bytes()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := hpke.ParsePrivateKey(s, private); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
