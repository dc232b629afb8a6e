package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// newKeyPackage builds a key package of suite 1 with a key in software.
func newKeyPackage(tb testing.TB) *keypackage.Verified {
	tb.Helper()
	s, _ := ciphersuite.Lookup(ciphersuite.MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519)
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := keypackage.NewBuilder(keypackage.Template{
		Suite: s, Credential: keypackage.BasicCredential([]byte("alice")),
		Capabilities: keypackage.DefaultCapabilities(s), Lifetime: keypackage.Lifetime{NotBefore: 1, NotAfter: 2},
	}, signer)
	if err != nil {
		tb.Fatal(err)
	}
	var public [2][]byte
	for i := range public {
		k, err := hpke.GenerateKeyPair(s, rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		public[i] = k.PublicKey()
	}
	kp, err := b.Build(rand.Reader, public[0], public[1])
	if err != nil {
		tb.Fatal(err)
	}
	return kp
}

// folded breaks text into lines, as mail programs do.
func folded(text string) string {
	var b strings.Builder
	for len(text) > 60 {
		b.WriteString(text[:60] + "\r\n")
		text = text[60:]
	}
	return b.String() + text + "\n"
}

func TestKeyPackagesAreUnderstoodInEveryForm(t *testing.T) {
	kp := newKeyPackage(t)
	for framing, raw := range map[string][]byte{"MLSMessage": kp.Message(), "KeyPackage": kp.Bytes()} {
		for name, form := range map[string]struct {
			encoding string
			data     []byte
		}{
			"raw":                 {"raw", raw},
			"hex":                 {"hex", []byte(hex.EncodeToString(raw))},
			"upper-case hex":      {"hex", []byte(strings.ToUpper(hex.EncodeToString(raw)))},
			"folded hex":          {"hex", []byte(folded(hex.EncodeToString(raw)))},
			"base64":              {"base64", []byte(base64.StdEncoding.EncodeToString(raw))},
			"unpadded base64":     {"base64", []byte(base64.RawStdEncoding.EncodeToString(raw))},
			"URL base64":          {"base64", []byte(base64.URLEncoding.EncodeToString(raw))},
			"folded base64":       {"base64", []byte(folded(base64.StdEncoding.EncodeToString(raw)))},
			"base64 with a space": {"base64", []byte("  " + base64.StdEncoding.EncodeToString(raw) + "\n\n")},
		} {
			got, err := decodeKeyPackage(form.data)
			if err != nil {
				t.Errorf("%s, %s: decodeKeyPackage() err = %v, want nil", framing, name, err)
				continue
			}
			if got.Encoding != form.encoding || got.Framing != framing || !bytes.Equal(got.Bytes(), kp.Bytes()) {
				t.Errorf("%s, %s: decodeKeyPackage() = %s, %s", framing, name, got.Framing, got.Encoding)
			}
		}
	}
}

func TestACutKeyPackageIsRefused(t *testing.T) {
	message := newKeyPackage(t).Message()
	for n := range message {
		if _, err := decodeKeyPackage(message[:n]); !errors.Is(err, errNotKeyPackage) {
			t.Errorf("the first %d bytes: decodeKeyPackage() err = %v, want %v", n, err, errNotKeyPackage)
		}
	}
}

func FuzzDecodeKeyPackage(f *testing.F) {
	kp := newKeyPackage(f)
	for _, raw := range [][]byte{kp.Message(), kp.Bytes()} {
		f.Add(raw)
		f.Add([]byte(hex.EncodeToString(raw)))
		f.Add([]byte(base64.StdEncoding.EncodeToString(raw)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeKeyPackage(data)
		switch {
		case err == nil && got.KeyPackage == nil:
			t.Error("no key package and no error")
		case err != nil && !errors.Is(err, errNotKeyPackage):
			t.Errorf("decodeKeyPackage() err = %v, want %v", err, errNotKeyPackage)
		}
	})
}
