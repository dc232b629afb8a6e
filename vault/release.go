package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/wire"
)

// infoLabel begins the info of a release.
const infoLabel = "hsm-kp released private keys"

// releaseVersion is the version of the info and the plaintext of a release.
const releaseVersion = 1

// ReleaseDigest returns the digest by which private keys are bound to the public key that
// they may be released to: SHA-256 of its Npk bytes, 32 bytes.
func ReleaseDigest(releaseKey []byte) []byte {
	digest := sha256.Sum256(releaseKey)
	return digest[:]
}

// Released are the private keys of one key package, sealed for its device by HPKE in base
// mode, single shot (RFC 9180, Section 6.1), with the KEM, KDF and AEAD of the cipher suite.
// There are no additional data, because not every library has a parameter for them: the info
// has everything that the keys are bound to. The plaintext is that of a Blob, in the
// presentation language of RFC 9420, Section 2.1:
//
//	opaque init_private_key<V>       Nsk bytes, RFC 9180, Section 7.1.2
//	opaque encryption_private_key<V> Nsk bytes
type Released struct {
	Info       []byte // ReleaseInfo
	Enc        []byte // Nenc bytes
	Ciphertext []byte
}

// ReleaseInfo returns the info for the release of the private keys of a key package, in new
// memory:
//
//	opaque label<V> = "hsm-kp released private keys"
//	uint8  version = 1
//	uint16 cipher_suite
//	opaque key_package_ref<V>
func ReleaseInfo(id ciphersuite.ID, ref []byte) []byte {
	out := append(wire.AppendVector(nil, []byte(infoLabel)), releaseVersion)
	out = binary.BigEndian.AppendUint16(out, uint16(id))
	return wire.AppendVector(out, ref)
}

// Release seals private keys to the public key whose ReleaseDigest is b.Release, and fails
// for any other. It keeps nothing of k, which the caller clears.
func Release(b Binding, releaseKey []byte, k Keys) (Released, error) {
	if !bytes.Equal(b.Release, ReleaseDigest(releaseKey)) {
		return Released{}, errors.New("release private keys: they may be released to another key only")
	}
	secret, ok := k.Secret()
	if !ok || !secret.areOf(b.Suite) {
		return Released{}, fmt.Errorf("release private keys: they are not two keys of %v in memory", b.Suite.ID)
	}
	plaintext, err := encodePrivateKeys(b.Suite, secret)
	defer clear(plaintext)
	if err != nil {
		return Released{}, fmt.Errorf("release private keys: %w", err)
	}
	r := Released{Info: ReleaseInfo(b.Suite.ID, b.Ref)}
	if r.Enc, r.Ciphertext, err = hpke.Seal(b.Suite, releaseKey, r.Info, nil, plaintext); err != nil {
		return Released{}, fmt.Errorf("release private keys: %w", err)
	}
	return r, nil
}
