package vault

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"strings"
	"testing"

	stdlib "crypto/hpke"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
)

// secretKey returns the private key whose bytes are all b.
func secretKey(t *testing.T, s *ciphersuite.Suite, b byte) *hpke.SecretKey {
	t.Helper()
	k, err := hpke.ParsePrivateKey(s, bytes.Repeat([]byte{b}, s.Nsk))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The info and the plaintext are frozen as docs/FORMATS.md has them: devices depend on
// them. circl sealed them, crypto/hpke opens them.
func TestReleasedFormIsFrozen(t *testing.T) {
	for _, c := range []struct {
		id               ciphersuite.ID
		info             string
		n                int    // Nsk
		length           string // before each private key
		init, encryption byte   // of which each of its bytes is
	}{
		{1, "1c68736d2d6b702072656c65617365642070726976617465206b65797301" + "0001" + "20", 32, "20", 0x11, 0x22},
		{2, "1c68736d2d6b702072656c65617365642070726976617465206b65797301" + "0002" + "20", 32, "20", 0x11, 0x22},
		{3, "1c68736d2d6b702072656c65617365642070726976617465206b65797301" + "0003" + "20", 32, "20", 0x11, 0x22},
		{7, "1c68736d2d6b702072656c65617365642070726976617465206b65797301" + "0007" + "30", 48, "30", 0x11, 0x22},
		{5, "1c68736d2d6b702072656c65617365642070726976617465206b65797301" + "0005" + "4040", 66, "4042", 0x01, 0x01},
	} {
		s, _ := ciphersuite.Lookup(c.id)
		device := openerOf(t, s)
		keys := Keys{Init: secretKey(t, s, c.init), Encryption: secretKey(t, s, c.encryption)}
		ref := bytes.Repeat([]byte{0x80}, s.Nh)
		r, err := Release(Binding{Ref: ref, Suite: s, Release: ReleaseDigest(device.public)}, device.public, keys)
		if err != nil {
			t.Fatalf("%v: Release() err = %v, want nil", c.id, err)
		}
		if hex.EncodeToString(r.Info) != c.info+strings.Repeat("80", s.Nh) || len(r.Enc) != s.Nenc {
			t.Errorf("%v: info %x, enc of %d bytes", c.id, r.Info, len(r.Enc))
		}
		plaintext, err := device.open(r.Enc, r.Info, r.Ciphertext)
		if err != nil {
			t.Fatalf("%v: the device opens it: err = %v, want nil", c.id, err)
		}
		length, _ := hex.DecodeString(c.length)
		want := bytes.Join([][]byte{length, bytes.Repeat([]byte{c.init}, c.n), length, bytes.Repeat([]byte{c.encryption}, c.n)}, nil)
		if !bytes.Equal(plaintext, want) {
			t.Errorf("%v: the plaintext is %x, want %x", c.id, plaintext, want)
		}
		for what, change := range map[string]func(info, ciphertext []byte){
			"another label":       func(info, _ []byte) { info[1]++ },
			"another version":     func(info, _ []byte) { info[29]++ },
			"another suite":       func(info, _ []byte) { info[31]++ },
			"another key package": func(info, _ []byte) { info[len(info)-1]++ },
			"another ciphertext":  func(_, ciphertext []byte) { ciphertext[0]++ },
		} {
			info, ciphertext := bytes.Clone(r.Info), bytes.Clone(r.Ciphertext)
			change(info, ciphertext)
			if _, err := device.open(r.Enc, info, ciphertext); err == nil {
				t.Errorf("%v: it opens for %s", c.id, what)
			}
		}
	}
}

// device is a device with crypto/hpke.
type device struct {
	public []byte
	open   func(enc, info, ciphertext []byte) ([]byte, error)
}

func openerOf(t *testing.T, s *ciphersuite.Suite) device {
	t.Helper()
	kem, err := stdlib.NewKEM(s.KEM)
	if err != nil {
		t.Fatal(err)
	}
	kdf, err := stdlib.NewKDF(s.KDF)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := stdlib.NewAEAD(s.AEAD)
	if err != nil {
		t.Fatal(err)
	}
	key, err := kem.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return device{key.PublicKey().Bytes(), func(enc, info, ciphertext []byte) ([]byte, error) {
		r, err := stdlib.NewRecipient(enc, key, kdf, aead, info)
		if err != nil {
			return nil, err
		}
		return r.Open(nil, ciphertext)
	}}
}

func TestPrivateKeysAreReleasedToTheirKeyOnly(t *testing.T) {
	s, _ := ciphersuite.Lookup(2)
	own, other := openerOf(t, s).public, openerOf(t, s).public
	keys := Keys{Init: secretKey(t, s, 1), Encryption: secretKey(t, s, 2)}
	b := Binding{Ref: make([]byte, s.Nh), Suite: s, Release: ReleaseDigest(own)}
	for what, err := range map[string]error{
		"another key":               second(Release(b, other, keys)),
		"private keys for nobody":   second(Release(Binding{Ref: b.Ref, Suite: s}, own, keys)),
		"a leaf alone":              second(Release(b, own, Keys{Encryption: keys.Encryption})),
		"a key that is no point":    second(Release(Binding{Ref: b.Ref, Suite: s, Release: ReleaseDigest(make([]byte, s.Npk))}, make([]byte, s.Npk), keys)),
		"private keys of no memory": second(Release(b, own, Keys{Init: opaque{}, Encryption: opaque{}})),
	} {
		if err == nil {
			t.Errorf("Release() to %s err = nil, want one", what)
		} else if strings.Contains(err.Error(), "0101") {
			t.Errorf("Release() to %s: the error shows a key: %v", what, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// opaque is a private key without bytes.
type opaque struct{}

func (opaque) PublicKey() []byte                      { return nil }
func (opaque) Open(_, _, _, _ []byte) ([]byte, error) { return nil, hpke.ErrOpen }

// Keys that are sealed for release are bound to the key that they may be released to. The
// additional data are frozen.
func TestWhatIsSealedForReleaseIsBoundToIt(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := ciphersuite.Lookup(2)
	b := Binding{Ref: bytes.Repeat([]byte{0x80}, 32), Suite: s, Release: bytes.Repeat([]byte{0x90}, 32)}
	blob := Blob{Suite: s.ID, KeyID: bytes.Repeat([]byte{0xA0}, 16)}
	bound := blob.boundData(b.label(), b.to()...)
	want := "26" + hex.EncodeToString([]byte("hsm-kp sealed private keys for release")) + "01010002" + "10" + strings.Repeat("a0", 16) +
		"20" + strings.Repeat("80", 32) + "20" + strings.Repeat("90", 32)
	if hex.EncodeToString(bound) != want {
		t.Errorf("boundData() = %x, want %s", bound, want)
	}
	rsa := RSABlob{Algorithm: 4, Suite: s.ID, KeyID: blob.KeyID}
	if got := hex.EncodeToString(rsa.boundData(b.label(), b.to()...)); got != strings.Replace(want, "01010002", "01040002", 1) {
		t.Errorf("boundData() by RSA = %s", got)
	}
	nonce := make([]byte, 12)
	rand.Read(nonce)
	sealed := gcm.Seal(nil, nonce, []byte("private keys"), bound)
	for _, other := range []Binding{{Ref: b.Ref, Suite: s}, {Ref: b.Ref, Suite: s, Release: bytes.Repeat([]byte{0x91}, 32)}} {
		if _, err := gcm.Open(nil, nonce, sealed, blob.boundData(other.label(), other.to()...)); err == nil {
			t.Errorf("what was sealed for one device opens for release %x", other.Release)
		}
	}
}
