package vault

import (
	"fmt"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
)

// The values of the second byte of a WrappedBlob.
const (
	algorithmKWP = 2 // CKM_AES_KEY_WRAP_KWP
	algorithmPad = 3 // CKM_AES_KEY_WRAP_PAD, which differs between tokens
)

var wrapMechanisms = map[uint8]token.KeyWrap{algorithmKWP: token.KeyWrapKWP, algorithmPad: token.KeyWrapPad}

// WrappedBlob is the form of private keys of CustodyToken. Its bytes, in the presentation
// language of RFC 9420, Section 2.1:
//
//	uint8  version = 1
//	uint8  algorithm                      2: CKM_AES_KEY_WRAP_KWP, 3: CKM_AES_KEY_WRAP_PAD
//	uint16 cipher_suite
//	opaque wrapping_key_id<V>             CKA_ID
//	opaque wrapped_init_private_key<V>    as C_WrapKey returned it; empty for a leaf alone
//	opaque wrapped_encryption_private_key<V>
//
// Key wrapping has no additional data. The keys are bound to their key package because they
// open only what was encrypted to its public keys.
type WrappedBlob struct {
	Mechanism        token.KeyWrap
	Suite            ciphersuite.ID
	KeyID            KeyID
	Init, Encryption []byte
}

// ParseWrappedBlob decodes a WrappedBlob, whose slices share b. The error wraps ErrSealed: the
// version or the algorithm is another one, or the input is truncated or has trailing bytes.
func ParseWrappedBlob(b []byte) (WrappedBlob, error) {
	r := wire.NewReader(b)
	blob := readWrapped(r)
	if err := r.Finish(); err != nil {
		return WrappedBlob{}, fmt.Errorf("%w: %w", ErrSealed, err)
	}
	if blob.Mechanism == 0 {
		return WrappedBlob{}, fmt.Errorf("%w: version %d, algorithm %d; this hsm-kp knows version 1, algorithms 2 and 3", ErrSealed, b[0], b[1])
	}
	return blob, nil
}

// readWrapped reads a blob. If version or algorithm is another one, Mechanism is 0.
func readWrapped(r *wire.Reader) WrappedBlob {
	version, algorithm := r.Uint8(), r.Uint8()
	blob := WrappedBlob{Suite: ciphersuite.ID(r.Uint16()), KeyID: r.Vector(), Init: r.Vector(), Encryption: r.Vector()}
	if version == blobVersion {
		blob.Mechanism = wrapMechanisms[algorithm]
	}
	return blob
}

// Bytes returns the encoded blob in new memory.
func (b *WrappedBlob) Bytes() []byte {
	algorithm := uint8(algorithmKWP)
	if b.Mechanism == token.KeyWrapPad {
		algorithm = algorithmPad
	}
	out := make([]byte, 0, len(b.KeyID)+len(b.Init)+len(b.Encryption)+16)
	out = appendHeader(out, algorithm, b.Suite, b.KeyID)
	for _, v := range [][]byte{b.Init, b.Encryption} {
		out = wire.AppendVector(out, v)
	}
	return out
}
