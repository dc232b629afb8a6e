package ciphersuite_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/cloudflare/circl/sign/ed448"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// Signatures by another implementation, over label "LeafNodeTBS" and the bytes
// 0 to 99.
var signatures = []struct {
	scheme            ciphersuite.SignatureScheme
	public, signature string
}{
	{
		scheme:    ciphersuite.ECDSA_SECP256R1_SHA256,
		public:    "04597aecf2b0e5ecf6602cfed8140d2ba0419a2c2be8448d5a2c450e690387eed9d3293b9e78c3c9655539c256e8f5a2aed605ae806b6ae85f3621a5101f02b255",
		signature: "304402204b7d368c0aeb2a71603ff61dae23c64702dc497b6f9a6360f9723ad089bfd508022013bccf866c0feaef8c941d6e2b98b1a7af38fee105f2b9df897a7b85687d2363",
	},
	{
		scheme:    ciphersuite.ECDSA_SECP384R1_SHA384,
		public:    "044204407aafa325b120fc5c38b7b8fb462cd45e19935020745229850d769847ae4317f83571b5d8cb836aff376b155a4d379bc3b52ad86d0a5b3e0e830a2cd0cb27815ba909643fdbed1c22621804a19bb975d59101f74c34efac7488c380b58a",
		signature: "306502302a014a964ce61b416eb3c77b3310a8bad13867095ee80db7a4848e25966be823a220ae86bb9e07fc458ea0ee90c1adb7023100f030481f11675f70346a8ad2230f5c1da663c17ffd3bbac2a41138ad41d4dfcf3c11eb5a8e17d5fd276f6633e8a3d456",
	},
	{
		scheme:    ciphersuite.ECDSA_SECP521R1_SHA512,
		public:    "040028e381635fdbda329ae5edfbfff39df843624c732b5ec8bfc673f724f2d82abd604ef4b95484f3d106e6f09f2b93b90b66e72e03b12ddb834f9e90048eeab261c0002fcee6403e5dfcaa5b43d496a376fc6deafa63e755d401a1cc805150c419e5ffe1d7b628edc2fed52c5326c848f2afff2f0132b6ee856b69f3652d72e58ff5d0fe",
		signature: "30818602416f91491990bf975280c261af2fc2fceef624dd61ba35f3f38127c2184225ca0137265b1474ff2a6c284df36e84c6eaad07febed2d28634ccda17cba35a5abfe1930241606a016ca46e52a4ac15e1e7d564ec9102fcfc98e217f2d3716c89a65e8cd089506654c929d3f57a6248104c5fd82afbfc6a3b182a0b5d1b3c7f7e193654dcaec5",
	},
	{
		scheme:    ciphersuite.ED25519,
		public:    "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8",
		signature: "ffaec64f5b50921ad9b10b1f106ed668e0e9c400ba5c646dcd9996c607785590cb383b5c48409e7a6d905823cfa6b6ebe4079ac553637b6eaeb80c6639896001",
	},
	{
		scheme:    ciphersuite.ED448,
		public:    "18d0a70e42a742dfb561279893385061d7b4dad8f6feed4791eaab66b2f4a4f02fc09462a8bfb1842d0bac60e8a1b3e55ba2407f33226f3800",
		signature: "912584d158a309318b7517039a425d19ab9364245464fcb53f6f673bf31bd3346e169ae706433012ae5c4ca51801de18b115fe3a4c7b2b74806284111480036e226e4409dc797c2b55c2e9c9f7d581505312fd87ed68061f8ec86531b1bbe12b84fae837bbe220383e449955c7691eb53700",
	},
}

const label = "LeafNodeTBS"

// newSigner makes a key pair in software.
func newSigner(tb testing.TB, scheme ciphersuite.SignatureScheme) crypto.Signer {
	tb.Helper()
	var k crypto.Signer
	var err error
	switch scheme {
	case ciphersuite.ECDSA_SECP256R1_SHA256:
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ciphersuite.ECDSA_SECP384R1_SHA384:
		k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case ciphersuite.ECDSA_SECP521R1_SHA512:
		k, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case ciphersuite.ED25519:
		_, k, err = ed25519.GenerateKey(rand.Reader)
	case ciphersuite.ED448:
		_, k, err = ed448.GenerateKey(rand.Reader)
	default:
		tb.Fatalf("no software key of %v", scheme)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func publicKey(tb testing.TB, k crypto.Signer) *ciphersuite.PublicKey {
	tb.Helper()
	scheme, encoded, err := ciphersuite.MarshalPublicKey(k.Public())
	if err != nil {
		tb.Fatalf("MarshalPublicKey() err = %v, want nil", err)
	}
	p, err := scheme.ParsePublicKey(encoded)
	if err != nil {
		tb.Fatalf("ParsePublicKey() err = %v, want nil", err)
	}
	return p
}

func TestSignaturesOfAnotherImplementationVerify(t *testing.T) {
	for _, s := range signatures {
		t.Run(s.scheme.String(), func(t *testing.T) {
			p, err := s.scheme.ParsePublicKey(unhex(t, s.public))
			if err != nil {
				t.Fatalf("ParsePublicKey() err = %v, want nil", err)
			}
			if p.Scheme() != s.scheme || hex.EncodeToString(p.Bytes()) != s.public {
				t.Errorf("the parsed key is of %v: %x", p.Scheme(), p.Bytes())
			}
			if err := p.VerifyWithLabel(label, count(100), unhex(t, s.signature)); err != nil {
				t.Errorf("VerifyWithLabel() err = %v, want nil", err)
			}
		})
	}
}

func TestASignatureHoldsForItsKeyLabelAndContentOnly(t *testing.T) {
	for _, s := range signatures {
		t.Run(s.scheme.String(), func(t *testing.T) {
			k := newSigner(t, s.scheme)
			content := []byte("content")
			signature, err := s.scheme.SignWithLabel(rand.Reader, k, label, content)
			if err != nil {
				t.Fatalf("SignWithLabel() err = %v, want nil", err)
			}
			p := publicKey(t, k)
			if err := p.VerifyWithLabel(label, content, signature); err != nil {
				t.Fatalf("VerifyWithLabel() err = %v, want nil", err)
			}
			for name, err := range map[string]error{
				"another label":   p.VerifyWithLabel("KeyPackageTBS", content, signature),
				"no label":        p.VerifyWithLabel("", content, signature),
				"another content": p.VerifyWithLabel(label, []byte("contenT"), signature),
				"a shifted frame": p.VerifyWithLabel(label+"\x07c", content[1:], signature),
				"another key":     publicKey(t, newSigner(t, s.scheme)).VerifyWithLabel(label, content, signature),
				"the zero key":    new(ciphersuite.PublicKey).VerifyWithLabel(label, content, signature),
			} {
				if !errors.Is(err, ciphersuite.ErrSignature) {
					t.Errorf("%s: VerifyWithLabel() err = %v, want %v", name, err, ciphersuite.ErrSignature)
				}
			}
		})
	}
}

func TestASignatureCutOrChangedAnywhereDoesNotVerify(t *testing.T) {
	for _, s := range signatures {
		p, err := s.scheme.ParsePublicKey(unhex(t, s.public))
		if err != nil {
			t.Fatal(err)
		}
		signature := unhex(t, s.signature)
		for i := range signature {
			changed := bytes.Clone(signature)
			changed[i] ^= 1
			if p.VerifyWithLabel(label, count(100), signature[:i]) == nil || p.VerifyWithLabel(label, count(100), changed) == nil {
				t.Errorf("%v: cut before byte %d or changed there it verifies", s.scheme, i)
			}
		}
		if p.VerifyWithLabel(label, count(100), append(signature, 0)) == nil {
			t.Errorf("%v: with a byte after it it verifies", s.scheme)
		}
	}
}

// sequence and integer are DER as long as the content is under 128 bytes.
func sequence(parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	return append([]byte{0x30, byte(len(content))}, content...)
}

func integer(content []byte) []byte { return append([]byte{0x02, byte(len(content))}, content...) }

func TestECDSASignaturesAreStrictDER(t *testing.T) {
	s := signatures[0]
	p, err := s.scheme.ParsePublicKey(unhex(t, s.public))
	if err != nil {
		t.Fatal(err)
	}
	der := unhex(t, s.signature) // both integers have 32 bytes here
	r, ss := der[4:36], der[38:]
	if good := sequence(integer(r), integer(ss)); !bytes.Equal(good, der) {
		t.Fatalf("the test takes the signature apart wrongly: %x", good)
	}
	n := elliptic.P256().Params().N.Bytes()
	for name, signature := range map[string][]byte{
		"raw r and s":              slices.Concat(r, ss),
		"empty":                    nil,
		"empty sequence":           sequence(),
		"r alone":                  sequence(integer(r)),
		"three integers":           sequence(integer(r), integer(ss), integer(ss)),
		"trailing byte inside":     sequence(integer(r), integer(ss), []byte{0}),
		"r with a zero before it":  sequence(integer(append([]byte{0}, r...)), integer(ss)),
		"s with a zero before it":  sequence(integer(r), integer(append([]byte{0}, ss...))),
		"negative r":               sequence(integer(append([]byte{0xFF}, r...)), integer(ss)),
		"r is zero":                sequence(integer([]byte{0}), integer(ss)),
		"s is zero":                sequence(integer(r), integer([]byte{0})),
		"r is the order":           sequence(integer(append([]byte{0}, n...)), integer(ss)),
		"length in the long form":  slices.Concat([]byte{0x30, 0x81, der[1]}, der[2:]),
		"length of no fixed size":  slices.Concat([]byte{0x30, 0x80}, der[2:], []byte{0, 0}),
		"a set, not a sequence":    slices.Concat([]byte{0x31}, der[1:]),
		"bit strings, no integers": sequence(append([]byte{0x03, 0x20}, r...), integer(ss)),
	} {
		if err := p.VerifyWithLabel(label, count(100), signature); !errors.Is(err, ciphersuite.ErrSignature) {
			t.Errorf("%s: VerifyWithLabel() err = %v, want %v", name, err, ciphersuite.ErrSignature)
		}
	}
}

// S and S plus the group order fit the same equation; one of them is a signature
// (RFC 8032, Section 5.1.7).
func TestEd25519SignaturesAreNotMalleable(t *testing.T) {
	s := signatures[len(signatures)-1]
	p, err := s.scheme.ParsePublicKey(unhex(t, s.public))
	if err != nil {
		t.Fatal(err)
	}
	signature := unhex(t, s.signature)
	order := unhex(t, "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	carry := 0
	for i, b := range order { // little-endian
		carry += int(signature[32+i]) + int(b)
		signature[32+i], carry = byte(carry), carry>>8
	}
	if err := p.VerifyWithLabel(label, count(100), signature); !errors.Is(err, ciphersuite.ErrSignature) {
		t.Errorf("VerifyWithLabel() err = %v, want %v", err, ciphersuite.ErrSignature)
	}
}

// witness is a signer that keeps what it is given.
type witness struct {
	digest []byte
	opts   crypto.SignerOpts
	err    error
}

func (w *witness) Public() crypto.PublicKey { return nil }

func (w *witness) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	w.digest, w.opts = bytes.Clone(digest), opts
	return []byte("signature"), w.err
}

func TestSignersGetADigestForECDSAAndTheMessageForEdDSA(t *testing.T) {
	// SignContent (RFC 9420, Section 5.1.2).
	message := append([]byte("\x0fMLS 1.0 labelAB\x07"), "content"...)
	for scheme, hash := range map[ciphersuite.SignatureScheme]crypto.Hash{
		ciphersuite.ECDSA_SECP256R1_SHA256: crypto.SHA256,
		ciphersuite.ECDSA_SECP384R1_SHA384: crypto.SHA384,
		ciphersuite.ECDSA_SECP521R1_SHA512: crypto.SHA512,
		ciphersuite.ED25519:                0,
		ciphersuite.ED448:                  0,
	} {
		want := message
		if hash != 0 {
			h := hash.New()
			h.Write(message)
			want = h.Sum(nil)
		}
		var w witness
		signature, err := scheme.SignWithLabel(rand.Reader, &w, "labelAB", []byte("content"))
		if err != nil || string(signature) != "signature" {
			t.Errorf("%v: SignWithLabel() = %q, %v", scheme, signature, err)
		}
		if !bytes.Equal(w.digest, want) || w.opts.HashFunc() != hash {
			t.Errorf("%v: the signer got %x and %v, want %x and %v", scheme, w.digest, w.opts.HashFunc(), want, hash)
		}
	}
}

func TestErrorsOfTheSignerComeThrough(t *testing.T) {
	w := witness{err: errors.New("the token is gone")}
	if _, err := ciphersuite.ED25519.SignWithLabel(rand.Reader, &w, label, nil); !errors.Is(err, w.err) {
		t.Errorf("SignWithLabel() err = %v, want %v", err, w.err)
	}
}

func TestPublicKeysThatAreNoneAreRefused(t *testing.T) {
	for _, s := range signatures {
		whole := unhex(t, s.public)
		for n := range whole {
			if _, err := s.scheme.ParsePublicKey(whole[:n]); err == nil {
				t.Errorf("%v: ParsePublicKey() of the first %d bytes err = nil, want one", s.scheme, n)
			}
		}
		if _, err := s.scheme.ParsePublicKey(append(whole, 0)); err == nil {
			t.Errorf("%v: ParsePublicKey() with a byte more err = nil, want one", s.scheme)
		}
		if whole[0] != 4 || len(whole) == ed25519.PublicKeySize {
			continue
		}
		offCurve, compressed := bytes.Clone(whole), bytes.Clone(whole)
		offCurve[len(whole)-1] ^= 1
		compressed[0] = 2
		for name, b := range map[string][]byte{
			"off the curve":      offCurve,
			"compressed":         compressed,
			"point at infinity":  make([]byte, len(whole)),
			"zeros after the 04": append([]byte{4}, make([]byte, len(whole)-1)...),
			"all ones":           append([]byte{4}, bytes.Repeat([]byte{0xFF}, len(whole)-1)...),
		} {
			if _, err := s.scheme.ParsePublicKey(b); err == nil {
				t.Errorf("%v: ParsePublicKey() of a key %s err = nil, want one", s.scheme, name)
			}
		}
	}
}

func TestUnknownSchemesHaveNoKeys(t *testing.T) {
	for _, scheme := range []ciphersuite.SignatureScheme{0, 0x0804, 0x0809} {
		if _, err := scheme.ParsePublicKey(make([]byte, scheme.PublicKeySize())); err == nil {
			t.Errorf("%v: ParsePublicKey() err = nil, want one", scheme)
		}
	}
}

func TestAParsedKeyDoesNotChangeWithItsInput(t *testing.T) {
	s := signatures[len(signatures)-1]
	input := unhex(t, s.public)
	p, err := s.scheme.ParsePublicKey(input)
	if err != nil {
		t.Fatal(err)
	}
	clear(input)
	clear(p.Bytes())
	if err := p.VerifyWithLabel(label, count(100), unhex(t, s.signature)); err != nil {
		t.Errorf("VerifyWithLabel() err = %v, want nil", err)
	}
}

func TestOnlyKeysOfMLSAreMarshalled(t *testing.T) {
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.PublicKey{
		"nil":                  nil,
		"RSA":                  &rsa.PublicKey{},
		"P-224":                &p224.PublicKey,
		"nil ECDSA":            (*ecdsa.PublicKey)(nil),
		"ECDSA without curve":  &ecdsa.PublicKey{},
		"Ed25519 of no bytes":  ed25519.PublicKey{},
		"Ed25519 of 31 bytes":  ed25519.PublicKey(make([]byte, 31)),
		"Ed25519 private key":  ed25519.NewKeyFromSeed(make([]byte, 32)),
		"ECDSA key, by value":  p224.PublicKey,
		"a key's encoded form": []byte{4},
	} {
		if scheme, b, err := ciphersuite.MarshalPublicKey(key); err == nil || scheme != 0 || b != nil {
			t.Errorf("%s: MarshalPublicKey() = %v, %x, %v, want an error alone", name, scheme, b, err)
		}
	}
}

func TestNamesOfSchemes(t *testing.T) {
	for scheme, want := range map[ciphersuite.SignatureScheme]struct {
		name string
		size int
	}{
		0x0403: {"ecdsa_secp256r1_sha256", 65},
		0x0503: {"ecdsa_secp384r1_sha384", 97},
		0x0603: {"ecdsa_secp521r1_sha512", 133},
		0x0807: {"ed25519", 32},
		0x0808: {"ed448", 57},
		0x0A0A: {"0x0A0A", 0},
	} {
		if got := scheme.String(); got != want.name {
			t.Errorf("String() = %q, want %q", got, want.name)
		}
		if got := scheme.PublicKeySize(); got != want.size {
			t.Errorf("PublicKeySize() of %v = %d, want %d", scheme, got, want.size)
		}
	}
}

func FuzzParsePublicKey(f *testing.F) {
	for _, s := range signatures {
		f.Add(uint16(s.scheme), unhex(f, s.public))
	}
	f.Fuzz(func(t *testing.T, scheme uint16, input []byte) {
		p, err := ciphersuite.SignatureScheme(scheme).ParsePublicKey(input)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Bytes(), input) {
			t.Errorf("Bytes() = %x, want %x", p.Bytes(), input)
		}
		if p.VerifyWithLabel(label, input, input) == nil {
			t.Error("a key verifies as a signature")
		}
	})
}

func FuzzVerifyWithLabel(f *testing.F) {
	keys := make([]*ciphersuite.PublicKey, len(signatures))
	for i, s := range signatures {
		var err error
		if keys[i], err = s.scheme.ParsePublicKey(unhex(f, s.public)); err != nil {
			f.Fatal(err)
		}
		f.Add(unhex(f, s.signature))
	}
	f.Fuzz(func(t *testing.T, signature []byte) {
		for i, p := range keys {
			known := hex.EncodeToString(signature) == signatures[i].signature
			if err := p.VerifyWithLabel(label, count(100), signature); err == nil && !known {
				t.Errorf("%v: %x verifies", p.Scheme(), signature)
			}
		}
	})
}

func BenchmarkVerifyWithLabel(b *testing.B) {
	content := count(400)
	for _, s := range signatures {
		b.Run(s.scheme.String(), func(b *testing.B) {
			k := newSigner(b, s.scheme)
			p := publicKey(b, k)
			signature, err := s.scheme.SignWithLabel(rand.Reader, k, label, content)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := p.VerifyWithLabel(label, content, signature); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParsePublicKey(b *testing.B) {
	for _, s := range signatures {
		b.Run(s.scheme.String(), func(b *testing.B) {
			encoded := unhex(b, s.public)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.scheme.ParsePublicKey(encoded); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
