package vault

import (
	"context"
	"fmt"
	"io"

	"github.com/hsm-kp/hsm-kp/token"
)

// Mechanism is how a wrapping key keeps private keys. It is chosen when the key is made, is
// in the key's stamp, and never changes.
type Mechanism string

// The mechanisms. Keys of the first two seal private keys and make stamps. Keys of the third
// wrap private keys.
const (
	AESGCM     Mechanism = "aes-gcm"      // AES-256-GCM in the token: Vault
	RSAOAEP    Mechanism = "rsa-oaep"     // to an RSA key of the token: RSAVault
	AESKeyWrap Mechanism = "aes-key-wrap" // C_WrapKey: TokenVault
)

// algorithms maps the second byte of a blob or stamp to the mechanism.
var algorithms = map[uint8]Mechanism{
	algorithmAES256G:        AESGCM,
	algorithmKWP:            AESKeyWrap,
	algorithmPad:            AESKeyWrap,
	algorithmOAEP256Labeled: RSAOAEP,
	algorithmOAEP256:        RSAOAEP,
	algorithmOAEP1:          RSAOAEP,
}

// MechanismOf returns the mechanism of a wrapping key by the stamp with which it was made.
// The error is ErrStamp.
func MechanismOf(stamp []byte) (Mechanism, error) {
	if len(stamp) < 2 || stamp[0] != blobVersion || algorithms[stamp[1]] == "" {
		return "", ErrStamp
	}
	return algorithms[stamp[1]], nil
}

// Sealer is a Custodian whose wrapping key seals and makes stamps. Vault and RSAVault
// implement it.
type Sealer interface {
	Custodian
	// Seal returns both private keys sealed and bound to the key package. Of b it needs
	// Ref, Suite and Release. It keeps nothing of k, which the caller clears.
	Seal(ctx context.Context, rand io.Reader, b Binding, k PrivateKeys) ([]byte, error)
	// Stamp returns a stamp that authenticates a public record and its kind. So somebody
	// who can write to the store but cannot use the token cannot make or change a record.
	Stamp(ctx context.Context, rand io.Reader, kind string, record []byte) ([]byte, error)
	// CheckStamp checks that Stamp made the stamp for this kind and record with this
	// wrapping key. The error wraps ErrStamp if it did not, and is the token's otherwise.
	CheckStamp(ctx context.Context, kind string, record, stamp []byte) error
	// SealSecret returns a short secret that is not a private key, sealed and bound to its
	// kind and to a public record.
	SealSecret(ctx context.Context, rand io.Reader, kind string, record, secret []byte) ([]byte, error)
	// OpenSecret returns the secret that SealSecret sealed for this kind and record. The
	// caller clears it. The error wraps ErrSealed if sealed was made for another kind or
	// record, or was changed.
	OpenSecret(ctx context.Context, kind string, record, sealed []byte) ([]byte, error)
	// Prove tries out the wrapping key and returns the stamp for Recognize.
	Prove(ctx context.Context, rand io.Reader) ([]byte, error)
}

var (
	_ Sealer = (*Vault)(nil)
	_ Sealer = (*RSAVault)(nil)
)

// CreateBy generates a wrapping key of a mechanism in the token, tries it out, and returns
// its stamp: see New, CreateRSAKey and CreateTokenKey. A key that fails is destroyed.
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

// OpenBy finds a wrapping key of a mechanism in the token: it returns a *Vault, a *RSAVault
// or a *TokenVault. The error wraps token.ErrNotFound, token.ErrAmbiguousKey or ErrWeakKey,
// or is the token's.
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

// custodian returns a nil interface, and not one of a nil pointer, after an error.
func custodian[C Custodian](c C, err error) (Custodian, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

func errMechanism(m Mechanism) error {
	return fmt.Errorf("there are no wrapping keys of mechanism %q", m)
}
