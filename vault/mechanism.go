package vault

import (
	"context"
	"fmt"
	"io"

	"github.com/hsm-kp/hsm-kp/token"
)

// Mechanism is how a wrapping key keeps private keys. It is decided when the key is made,
// is in the key's stamp, and never changes.
type Mechanism string

// The mechanisms. Keys of the first two seal private keys and make stamps; those of the
// third wrap.
const (
	AESGCM     Mechanism = "aes-gcm"      // AES-256-GCM in the token: Vault
	RSAOAEP    Mechanism = "rsa-oaep"     // to an RSA key of the token: RSAVault
	AESKeyWrap Mechanism = "aes-key-wrap" // C_WrapKey: TokenVault
)

// algorithms are the mechanisms of what has the second byte.
var algorithms = map[uint8]Mechanism{
	algorithmAES256G:        AESGCM,
	algorithmKWP:            AESKeyWrap,
	algorithmPad:            AESKeyWrap,
	algorithmOAEP256Labeled: RSAOAEP,
	algorithmOAEP256:        RSAOAEP,
	algorithmOAEP1:          RSAOAEP,
}

// MechanismOf returns the mechanism of the wrapping key that made a stamp of its own. The
// error is ErrStamp where it has none.
func MechanismOf(stamp []byte) (Mechanism, error) {
	if len(stamp) < 2 || stamp[0] != blobVersion || algorithms[stamp[1]] == "" {
		return "", ErrStamp
	}
	return algorithms[stamp[1]], nil
}

// Sealer is a Custodian whose wrapping key seals, and makes stamps. Vault and RSAVault are
// the two.
type Sealer interface {
	Custodian
	// Seal seals both private keys, bound to the key package; of b it needs no public keys.
	// It keeps nothing of k, which the caller clears.
	Seal(ctx context.Context, rand io.Reader, b Binding, k PrivateKeys) ([]byte, error)
	// Stamp authenticates a public record of some kind, so that whoever can write to the
	// store, and not to the token, cannot make or change one.
	Stamp(ctx context.Context, rand io.Reader, kind string, record []byte) ([]byte, error)
	// CheckStamp reports whether stamp is one that Stamp made for this kind and record
	// under this wrapping key. The error wraps ErrStamp where it is not, and is the token's
	// otherwise.
	CheckStamp(ctx context.Context, kind string, record, stamp []byte) error
	// SealSecret seals a short secret that is no private key, bound to its kind and to a
	// public record.
	SealSecret(ctx context.Context, rand io.Reader, kind string, record, secret []byte) ([]byte, error)
	// OpenSecret opens what SealSecret sealed for this kind and record. The caller clears
	// it. The error wraps ErrSealed where it was sealed for another, or was changed.
	OpenSecret(ctx context.Context, kind string, record, sealed []byte) ([]byte, error)
	// Prove tries out the wrapping key, and returns the stamp by which it is recognized.
	Prove(ctx context.Context, rand io.Reader) ([]byte, error)
}

var (
	_ Sealer = (*Vault)(nil)
	_ Sealer = (*RSAVault)(nil)
)

// CreateBy makes a wrapping key of a mechanism in the token, tries it out, and returns its
// stamp. A key that fails is destroyed again.
func CreateBy(ctx context.Context, t *token.Token, rand io.Reader, m Mechanism, id KeyID, label string) ([]byte, error) {
	switch m {
	case AESGCM:
		_, stamp, err := New(ctx, t, rand, id, label)
		return stamp, err
	case RSAOAEP:
		return CreateRSAKey(ctx, t, rand, id, label)
	case AESKeyWrap:
		return CreateTokenKey(ctx, t, id, label)
	}
	return nil, errMechanism(m)
}

// OpenBy finds a wrapping key of a mechanism in the token. The error wraps
// token.ErrNotFound, token.ErrAmbiguousKey or ErrWeakKey, or is the token's.
func OpenBy(ctx context.Context, t *token.Token, m Mechanism, id KeyID) (Custodian, error) {
	switch m {
	case AESGCM:
		return custodian(Open(ctx, t, id))
	case RSAOAEP:
		return custodian(OpenRSA(ctx, t, id))
	case AESKeyWrap:
		return custodian(OpenToken(ctx, t, id))
	}
	return nil, errMechanism(m)
}

// custodian makes no interface of a nil pointer.
func custodian[C Custodian](c C, err error) (Custodian, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

func errMechanism(m Mechanism) error {
	return fmt.Errorf("there are no wrapping keys of mechanism %q", m)
}
