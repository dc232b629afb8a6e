package program

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	stdlib "crypto/hpke"
)

// Device is a device to which private keys are released. It uses Go's HPKE and what docs/FORMATS.md
// says, and nothing of the product.
type Device struct{ key stdlib.PrivateKey }

// curves are those of the suites that crypto/hpke has.
var curves = map[int]ecdh.Curve{1: ecdh.X25519(), 2: ecdh.P256(), 3: ecdh.X25519(), 5: ecdh.P521(), 7: ecdh.P384()}

// NewDevice makes a device with a key pair for the suite.
func NewDevice(suite int) (*Device, error) {
	curve, ok := curves[suite]
	if !ok {
		return nil, fmt.Errorf("no curve for suite %d", suite)
	}
	key, err := stdlib.DHKEM(curve).GenerateKey()
	return &Device{key}, err
}

// PublicKey returns the release key of the device.
func (d *Device) PublicKey() []byte { return d.key.PublicKey().Bytes() }

// PrivateKey returns the private key of the device.
func (d *Device) PrivateKey() []byte {
	private, err := d.key.Bytes()
	if err != nil {
		panic(err) // the key was made from bytes
	}
	return private
}

// Provisioned is a line of `provision --json`, as a device reads it.
type Provisioned struct {
	Name        string               `json:"name"`
	Status      string               `json:"status"`
	KeyPackages []ReleasedKeyPackage `json:"key_packages"`
}

// ReleasedKeyPackage is a key package in a Provisioned.
type ReleasedKeyPackage struct {
	Ref       string    `json:"key_package_ref"`
	Confirmed *bool     `json:"confirmed"`
	Message   []byte    `json:"mls_message"`
	Released  *Released `json:"released"` // nil if nothing was handed over
}

// Released holds private keys that are sealed for a device.
type Released struct {
	KEM        uint16 `json:"kem_id"`
	KDF        uint16 `json:"kdf_id"`
	AEAD       uint16 `json:"aead_id"`
	Info       []byte `json:"info"`
	Enc        []byte `json:"enc"`
	Ciphertext []byte `json:"ciphertext"`
}

// ParseProvisioned parses the results.
func ParseProvisioned(in io.Reader) (all []Provisioned, err error) {
	d := json.NewDecoder(in)
	for {
		var one Provisioned
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
}

// Open opens the released keys of a key package with the private key of a device, and checks that
// they are the private keys of that key package.
func Open(devicePrivateKey []byte, k *ReleasedKeyPackage) (initKey, encryptionKey []byte, err error) {
	r := k.Released
	kem, err := stdlib.NewKEM(r.KEM)
	if err != nil {
		return nil, nil, err
	}
	key, err := kem.NewPrivateKey(devicePrivateKey)
	if err != nil {
		return nil, nil, err
	}
	plaintext, err := r.open(key)
	if err != nil {
		return nil, nil, err
	}
	if !strings.HasSuffix(hex.EncodeToString(r.Info), k.Ref) {
		return nil, nil, fmt.Errorf("the info is %x", r.Info)
	}
	initKey, rest := vector(plaintext)
	encryptionKey, rest = vector(rest)
	if len(rest) > 0 {
		return nil, nil, fmt.Errorf("%d bytes follow the private keys", len(rest))
	}
	for _, private := range [][]byte{initKey, encryptionKey} {
		key, err := kem.NewPrivateKey(private)
		if err != nil {
			return nil, nil, err
		}
		if !bytes.Contains(k.Message, key.PublicKey().Bytes()) {
			return nil, nil, fmt.Errorf("the key package has no key %x", key.PublicKey().Bytes())
		}
	}
	return initKey, encryptionKey, nil
}

func (r *Released) open(key stdlib.PrivateKey) ([]byte, error) {
	kdf, err := stdlib.NewKDF(r.KDF)
	if err != nil {
		return nil, err
	}
	aead, err := stdlib.NewAEAD(r.AEAD)
	if err != nil {
		return nil, err
	}
	recipient, err := stdlib.NewRecipient(r.Enc, key, kdf, aead, r.Info)
	if err != nil {
		return nil, err
	}
	return recipient.Open(nil, r.Ciphertext)
}

// vector reads opaque<V> with a length of one byte, or of two that begin with the bits 01 (RFC
// 9420, Section 2.1.2).
func vector(b []byte) (v, rest []byte) {
	n := int(b[0])
	b = b[1:]
	if n >= 0x40 {
		n = (n-0x40)<<8 + int(b[0])
		b = b[1:]
	}
	return b[:n], b[n:]
}
