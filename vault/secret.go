package vault

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/wire"
	"github.com/hsm-kp/hsm-kp/token"
)

// secretLabel keeps secrets apart from sealed private keys and from stamps.
const secretLabel = "hsm-kp secret"

// secretContext returns what a secret is bound to:
//
//	opaque kind<V>
//	opaque record<V>
func secretContext(kind string, record []byte) []byte {
	return wire.AppendVector(wire.AppendVector(nil, []byte(kind)), record)
}

// SealSecret implements Sealer, for secrets such as a token of a directory. It returns a Blob
// of cipher suite 0 with the label "hsm-kp secret" and kind<V>, record<V> as its ref.
func (v *Vault) SealSecret(ctx context.Context, rand io.Reader, kind string, record, secret []byte) ([]byte, error) {
	blob := Blob{KeyID: v.id}
	if _, err := io.ReadFull(rand, blob.Nonce[:]); err != nil {
		return nil, fmt.Errorf("seal %s: %w", kind, err)
	}
	var err error
	blob.Ciphertext, err = v.key.Seal(ctx, &blob.Nonce, secret, blob.boundData(secretLabel, secretContext(kind, record)))
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", kind, err)
	}
	return blob.Bytes(), nil
}

// OpenSecret implements Sealer.
func (v *Vault) OpenSecret(ctx context.Context, kind string, record, sealed []byte) ([]byte, error) {
	blob, err := ParseBlob(sealed)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", kind, err)
	}
	if blob.Suite != 0 || string(blob.KeyID) != string(v.id) {
		return nil, fmt.Errorf("open %s: %w: it is under wrapping key %v", kind, ErrSealed, blob.KeyID)
	}
	secret, err := v.key.Open(ctx, blob.Nonce, blob.Ciphertext, blob.boundData(secretLabel, secretContext(kind, record)))
	if errors.Is(err, token.ErrDecrypt) {
		return nil, fmt.Errorf("open %s: %w: %w", kind, ErrSealed, err)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", kind, err)
	}
	return secret, nil
}

// noSuite is the suite of secrets, which have none.
var noSuite = new(ciphersuite.Suite)

// SealSecret implements Sealer. It returns an RSABlob with the label and ref of
// Vault.SealSecret.
func (v *RSAVault) SealSecret(_ context.Context, _ io.Reader, kind string, record, secret []byte) ([]byte, error) {
	sealed, err := v.seal(secretLabel, Binding{Ref: secretContext(kind, record), Suite: noSuite}, secret)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", kind, err)
	}
	return sealed, nil
}

// OpenSecret implements Sealer.
func (v *RSAVault) OpenSecret(ctx context.Context, kind string, record, sealed []byte) ([]byte, error) {
	secret, err := v.unseal(ctx, secretLabel, Binding{Ref: secretContext(kind, record), Suite: noSuite}, sealed)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", kind, err)
	}
	return secret, nil
}
