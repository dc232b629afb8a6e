package vault

import (
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
)

// The first two bytes of a blob.
const (
	blobVersion      = 1
	algorithmAES256G = 1 // AES-256-GCM in the token (CKM_AES_GCM), 12-byte nonce, 16-byte tag
)

// sealLabel begins the additional data. Nothing else that a wrapping key seals begins with
// it.
const sealLabel = "hsm-kp sealed private keys"

// leafLabel takes its place for the private key of a leaf alone.
const leafLabel = "hsm-kp sealed leaf key"

// releaseLabel takes its place for private keys of custody `release`. The release digest
// follows the KeyPackageRef.
const releaseLabel = "hsm-kp sealed private keys for release"

// Blob is the sealed form of the private keys of one key package under an AES-256 key of the
// token. Its bytes, in the presentation language of RFC 9420, Section 2.1:
//
//	uint8  version = 1
//	uint8  algorithm = 1             AES-256-GCM
//	uint16 cipher_suite
//	opaque wrapping_key_id<V>        CKA_ID
//	opaque nonce[12]
//	opaque ciphertext<V>             the last 16 bytes are the tag
//
// The plaintext is
//
//	opaque init_private_key<V>       Nsk bytes
//	opaque encryption_private_key<V> Nsk bytes
//
// and the additional data
//
//	opaque label<V> = "hsm-kp sealed private keys"
//	all bytes of the blob before the nonce
//	opaque key_package_ref<V>
//
// With custody `release` the label is "hsm-kp sealed private keys for release", and opaque
// release_digest<V> follows: see ReleaseDigest.
type Blob struct {
	Suite      ciphersuite.ID
	KeyID      KeyID
	Nonce      [token.NonceSize]byte
	Ciphertext []byte
}

// ParseBlob decodes a Blob, whose slices share b. The error wraps ErrSealed: the version or
// the algorithm is another one, or the input is truncated or has trailing bytes.
func ParseBlob(b []byte) (Blob, error) {
	r := wire.NewReader(b)
	version, algorithm := r.Uint8(), r.Uint8()
	if r.Err() == nil && (version != blobVersion || algorithm != algorithmAES256G) {
		return Blob{}, fmt.Errorf("%w: version %d, algorithm %d; this hsm-kp knows version 1, algorithm 1", ErrSealed, version, algorithm)
	}
	blob := Blob{Suite: ciphersuite.ID(r.Uint16()), KeyID: r.Vector()}
	copy(blob.Nonce[:], r.Bytes(token.NonceSize))
	blob.Ciphertext = r.Vector()
	if err := r.Finish(); err != nil {
		return Blob{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	return blob, nil
}

// Bytes returns the encoded blob in new memory.
func (b *Blob) Bytes() []byte {
	size := len(b.KeyID) + len(b.Ciphertext) + 32
	out := b.appendHeader(make([]byte, 0, size))
	out = append(out, b.Nonce[:]...)
	return wire.AppendVector(out, b.Ciphertext)
}

// appendHeader appends the fields before the nonce.
func (b *Blob) appendHeader(out []byte) []byte {
	return appendHeader(out, algorithmAES256G, b.Suite, b.KeyID)
}

// boundData is the additional data that binds the blob to its KeyPackageRef, and to the
// release digest if there is one.
func (b *Blob) boundData(label string, to ...[]byte) []byte {
	out := wire.AppendVector(make([]byte, 0, 160), []byte(label))
	return appendVectors(b.appendHeader(out), to)
}

func appendVectors(out []byte, vectors [][]byte) []byte {
	for _, v := range vectors {
		out = wire.AppendVector(out, v)
	}
	return out
}
