package vault

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"testing"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
)

//go:embed testdata/rsa-oaep.json
var rsaVectors []byte

// hexBytes are bytes, in hexadecimal in JSON.
type hexBytes []byte

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// frozenRSA was made by another implementation from docs/FORMATS.md.
type frozenRSA struct {
	PrivateKey    hexBytes `json:"private_key"` // PKCS#8: as if it had left the token
	StampingKey   hexBytes `json:"stamping_key"`
	StampingKeyID hexBytes `json:"stamping_key_id"`
	WrappingKeyID hexBytes `json:"wrapping_key_id"`
	MACKey        hexBytes `json:"mac_key"`
	Blobs         []struct {
		Algorithm  uint8          `json:"algorithm"`
		Suite      ciphersuite.ID `json:"cipher_suite"`
		Leaf       bool           `json:"leaf"`
		Ref        hexBytes       `json:"key_package_ref"`
		Init       hexBytes       `json:"init_private_key"`
		Encryption hexBytes       `json:"encryption_private_key"`
		Blob       hexBytes       `json:"blob"`
	} `json:"blobs"`
	Stamp struct {
		Kind   string   `json:"kind"`
		Record hexBytes `json:"record"`
		Stamp  hexBytes `json:"stamp"`
	} `json:"stamp"`
	OwnStamp hexBytes `json:"own_stamp"`
}

func loadFrozenRSA(t *testing.T) (f frozenRSA, private *rsa.PrivateKey, stamping *ecdsa.PublicKey) {
	t.Helper()
	if err := json.Unmarshal(rsaVectors, &f); err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(f.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	if stamping, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), f.StampingKey); err != nil {
		t.Fatal(err)
	}
	return f, key.(*rsa.PrivateKey), stamping
}

// opened returns the plaintext of a ciphertext by crypto/rsa, with the label of
// docs/FORMATS.md.
func opened(t *testing.T, algorithm uint8, key *rsa.PrivateKey, ciphertext, bound []byte) []byte {
	t.Helper()
	options := &rsa.OAEPOptions{Hash: crypto.SHA256}
	switch digest := sha256.Sum256(bound); algorithm {
	case 4:
		options.Label = append(digest[:], 0)
	case 6:
		options.Hash = crypto.SHA1
	}
	plaintext, err := key.Decrypt(nil, ciphertext, options)
	if err != nil {
		t.Fatalf("the frozen ciphertext of algorithm %d does not open: %v", algorithm, err)
	}
	return plaintext
}

// Blobs of each algorithm by another implementation open, and encode to the same bytes.
func TestRSASealedFormIsFrozen(t *testing.T) {
	f, private, _ := loadFrozenRSA(t)
	seen := make(map[uint8]int)
	for _, c := range f.Blobs {
		seen[c.Algorithm]++
		blob, err := ParseRSABlob(c.Blob)
		if err != nil {
			t.Fatalf("ParseRSABlob() err = %v, want nil", err)
		}
		if !bytes.Equal(blob.Bytes(), c.Blob) {
			t.Errorf("Bytes() = %x, want %x", blob.Bytes(), c.Blob)
		}
		if blob.Algorithm != c.Algorithm || blob.Suite != c.Suite || !bytes.Equal(blob.KeyID, f.WrappingKeyID) {
			t.Errorf("ParseRSABlob() = algorithm %d, suite %v, key %v", blob.Algorithm, blob.Suite, blob.KeyID)
		}
		label, decode := sealLabel, decodeKeys
		if c.Leaf {
			label, decode = leafLabel, decodeLeaf
		}
		bound := blob.boundData(label, c.Ref)
		if blob.mac(f.MACKey, bound) != blob.MAC {
			t.Errorf("algorithm %d: wrong MAC", c.Algorithm)
		}
		s, _ := ciphersuite.Lookup(c.Suite)
		keys, err := decode(bindingOf(s), opened(t, c.Algorithm, private, blob.Ciphertext, bound))
		if err != nil {
			t.Fatalf("decode: %v", err)
		}
		secret, _ := keys.Secret()
		if !c.Leaf && !bytes.Equal(secret.Init.Bytes(), c.Init) || !bytes.Equal(secret.Encryption.Bytes(), c.Encryption) {
			t.Errorf("algorithm %d: other private keys than those that were sealed", c.Algorithm)
		}
		for n := range c.Blob {
			if _, err := ParseRSABlob(c.Blob[:n]); !errors.Is(err, ErrSealed) {
				t.Fatalf("ParseRSABlob() of the first %d bytes err = %v, want %v", n, err, ErrSealed)
			}
		}
		if _, err := ParseRSABlob(append(c.Blob, 0)); !errors.Is(err, ErrSealed) {
			t.Errorf("ParseRSABlob() with a trailing byte err = %v, want %v", err, ErrSealed)
		}
	}
	for algorithm := range oaepAlgorithms {
		if seen[algorithm] != 2 {
			t.Errorf("algorithm %d: %d frozen blobs, want 2", algorithm, seen[algorithm])
		}
	}
	for _, head := range [][]byte{{1, 1}, {1, 3}, {1, 7}, {2, 4}} {
		if _, err := ParseRSABlob(append(head, f.Blobs[0].Blob[2:]...)); !errors.Is(err, ErrSealed) {
			t.Errorf("ParseRSABlob() of version and algorithm %x err = %v, want %v", head, err, ErrSealed)
		}
	}
}

func TestRSAStampsAreFrozen(t *testing.T) {
	f, private, stamping := loadFrozenRSA(t)
	verifies := func(s rsaStamp, kind string, record []byte) bool {
		digest := sha256.Sum256(s.signed(kind, record))
		return ecdsa.VerifyASN1(stamping, digest[:], s.signature)
	}
	if got := StampingKeyID(KeyID(f.WrappingKeyID)); !bytes.Equal(got, f.StampingKeyID) {
		t.Errorf("StampingKeyID() = %v, want %x", got, f.StampingKeyID)
	}
	s := readRSAStamp(wire.NewReader(f.Stamp.Stamp))
	if !bytes.Equal(s.bytes(), f.Stamp.Stamp) || !bytes.Equal(s.id, f.WrappingKeyID) {
		t.Errorf("the stamp encodes to %x of key %v", s.bytes(), s.id)
	}
	if !verifies(s, f.Stamp.Kind, f.Stamp.Record) || verifies(s, "wrapping key", f.Stamp.Record) {
		t.Error("the frozen stamp does not verify, or not as what it is alone")
	}
	own, err := parseOwnStamp(f.OwnStamp)
	if err != nil || !bytes.Equal(own.bytes(), f.OwnStamp) {
		t.Fatalf("parseOwnStamp() err = %v, or it encodes otherwise", err)
	}
	if !verifies(own.rsaStamp, kindWrappingKey, own.record()) {
		t.Error("the frozen stamp of the wrapping key does not verify")
	}
	if err := own.names(&private.PublicKey); err != nil {
		t.Errorf("names() err = %v, want nil", err)
	}
	if key := opened(t, own.algorithm, private, own.macKey, own.macKeyBound()); !bytes.Equal(key, f.MACKey) {
		t.Errorf("the key of the MAC is %x, want %x", key, f.MACKey)
	}
	for n := range f.OwnStamp {
		if _, err := parseOwnStamp(f.OwnStamp[:n]); err == nil {
			t.Fatalf("parseOwnStamp() of the first %d bytes err = nil, want one", n)
		}
	}
}

// The private keys of every suite of RFC 9420 fit into the smallest key with the larger
// hash.
func TestAllSuitesFitTheSmallestRSAKey(t *testing.T) {
	_, private, _ := loadFrozenRSA(t)
	room := token.OAEP{Hash: crypto.SHA256}.Capacity(&private.PublicKey)
	if room != 190 {
		t.Errorf("Capacity() of 2048 bits = %d, want 190", room)
	}
	for _, o := range token.OAEPs() {
		if _, err := algorithmOf(o); err != nil {
			t.Errorf("algorithmOf(%v) err = %v, want nil", o, err)
		}
	}
	for _, s := range ciphersuite.All() {
		if size := 2 * (wire.VectorLen(s.Nsk) + s.Nsk); size > room {
			t.Errorf("%v: private keys of %d bytes do not fit", s.ID, size)
		}
	}
}

func FuzzRSABlob(f *testing.F) {
	var v frozenRSA
	if err := json.Unmarshal(rsaVectors, &v); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(v.Blobs[0].Blob))
	f.Add([]byte(v.OwnStamp))
	f.Add([]byte(v.Stamp.Stamp))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if blob, err := ParseRSABlob(raw); err == nil && !bytes.Equal(blob.Bytes(), raw) {
			t.Errorf("Bytes() of ParseRSABlob(%x) = %x", raw, blob.Bytes())
		}
		if s, err := parseOwnStamp(raw); err == nil && s.id != nil && !bytes.Equal(s.bytes(), raw) {
			t.Errorf("bytes() of parseOwnStamp(%x) = %x", raw, s.bytes())
		}
		if _, err := MechanismOf(raw); err != nil && !errors.Is(err, ErrStamp) {
			t.Errorf("MechanismOf(%x) err = %v, want %v", raw, err, ErrStamp)
		}
	})
}
