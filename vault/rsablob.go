package vault

import (
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
)

// The values of the second byte of an RSABlob.
const (
	algorithmOAEP256Labeled = 4 // CKM_RSA_PKCS_OAEP with SHA-256, and a label
	algorithmOAEP256        = 5 // the same without a label
	algorithmOAEP1          = 6 // CKM_RSA_PKCS_OAEP with SHA-1, without a label
)

var oaepAlgorithms = map[uint8]token.OAEP{
	algorithmOAEP256Labeled: {Hash: crypto.SHA256, Labeled: true},
	algorithmOAEP256:        {Hash: crypto.SHA256},
	algorithmOAEP1:          {Hash: crypto.SHA1},
}

// algorithmOf returns the byte for a variant.
func algorithmOf(o token.OAEP) (uint8, error) {
	for algorithm, other := range oaepAlgorithms {
		if other == o {
			return algorithm, nil
		}
	}
	return 0, fmt.Errorf("this hsm-kp does not seal by RSA-OAEP with %v", o)
}

// macSize is the size of HMAC-SHA-256 in bytes.
const macSize = sha256.Size

// RSABlob is the sealed form of the private keys of one key package, or of the leaf's alone,
// under an RSA key of the token. Its bytes, in the presentation language of RFC 9420, Section
// 2.1:
//
//	uint8  version = 1
//	uint8  algorithm                 4 to 6: see docs/FORMATS.md
//	uint16 cipher_suite
//	opaque wrapping_key_id<V>        CKA_ID
//	opaque ciphertext<V>             RSA-OAEP, as long as the key
//	opaque mac[32]
//
// The plaintext is that of a Blob. The bound data is
//
//	opaque label<V>                  as in a Blob
//	all bytes of the blob before the ciphertext
//	opaque key_package_ref<V>
//
// and the MAC is HMAC-SHA-256 over it and ciphertext<V>, with a key that only the token can
// open. Encryption alone proves nothing, because anybody can encrypt to a public key.
type RSABlob struct {
	Algorithm  uint8
	Suite      ciphersuite.ID
	KeyID      KeyID
	Ciphertext []byte
	MAC        [macSize]byte
}

// ParseRSABlob decodes an RSABlob, whose slices share b. The error wraps ErrSealed: the
// version or the algorithm is another one, or the input is truncated or has trailing bytes.
func ParseRSABlob(b []byte) (RSABlob, error) {
	r := wire.NewReader(b)
	version, algorithm := r.Uint8(), r.Uint8()
	if _, ok := oaepAlgorithms[algorithm]; r.Err() == nil && (version != blobVersion || !ok) {
		return RSABlob{}, fmt.Errorf("%w: version %d, algorithm %d; this hsm-kp knows version 1, algorithms 4 to 6", ErrSealed, version, algorithm)
	}
	blob := RSABlob{Algorithm: algorithm, Suite: ciphersuite.ID(r.Uint16()), KeyID: r.Vector(), Ciphertext: r.Vector()}
	copy(blob.MAC[:], r.Bytes(macSize))
	if err := r.Finish(); err != nil {
		return RSABlob{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	return blob, nil
}

// Bytes returns the encoded blob in new memory.
func (b *RSABlob) Bytes() []byte {
	out := b.appendHeader(make([]byte, 0, len(b.KeyID)+len(b.Ciphertext)+macSize+16))
	out = wire.AppendVector(out, b.Ciphertext)
	return append(out, b.MAC[:]...)
}

func (b *RSABlob) appendHeader(out []byte) []byte {
	return appendHeader(out, b.Algorithm, b.Suite, b.KeyID)
}

// appendHeader appends the fields that every blob begins with.
func appendHeader(out []byte, algorithm uint8, s ciphersuite.ID, id KeyID) []byte {
	out = append(out, blobVersion, algorithm)
	out = binary.BigEndian.AppendUint16(out, uint16(s))
	return wire.AppendVector(out, id)
}

// boundData is what the blob is bound to.
func (b *RSABlob) boundData(label string, to ...[]byte) []byte {
	out := wire.AppendVector(nil, []byte(label))
	return appendVectors(b.appendHeader(out), to)
}

// mac returns the MAC of the ciphertext and the bound data.
func (b *RSABlob) mac(key, bound []byte) (mac [macSize]byte) {
	h := hmac.New(sha256.New, key)
	h.Write(bound)
	h.Write(wire.AppendVector(nil, b.Ciphertext))
	h.Sum(mac[:0])
	return mac
}
