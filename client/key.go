package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Uses of a key package's private keys that MLS does not have.
var (
	errAAD   = errors.New("a key of a key package takes no additional data")
	errLabel = errors.New("the key is for another label")
)

// Keys are handles for the HPKE private keys of a key package, which the service has.
type Keys struct {
	Ref keypackage.Ref
	// Init decrypts the GroupSecrets of a Welcome (label Welcome). Leaf decrypts path
	// secrets (label UpdatePathNode) after a Welcome was opened.
	Init, Leaf *PrivateKey
}

// PrivateKey is a handle for a private key of a key package. It implements hpke.PrivateKey of
// this module and is safe for concurrent use.
type PrivateKey struct {
	ctx    context.Context
	client *Client
	ref    []byte
	label  string // what it opens
	public []byte
	psks   []*hsmkpv1.PreSharedKey

	mu       sync.Mutex
	reserved *Reservation
}

// Keys returns handles for the private keys of a key package that Get or Claim returned. ctx is
// the context of every use, because MLS libraries pass none. psks are external pre-shared keys
// of groups, which the service needs to check a Welcome. Keys calls nothing; it fails if kp has
// no MLSMessage of a key package.
func (c *Client) Keys(ctx context.Context, kp *hsmkpv1.KeyPackage, psks ...*hsmkpv1.PreSharedKey) (*Keys, error) {
	m, err := keypackage.ParseMessage(kp.GetMlsMessage())
	if err != nil {
		return nil, fmt.Errorf("keys of key package: %w", err)
	}
	if m.KeyPackage == nil {
		return nil, errors.New("keys of key package: the message has no key package")
	}
	return &Keys{
		Ref:  kp.GetRef(),
		Init: &PrivateKey{ctx: ctx, client: c, ref: kp.GetRef(), label: "Welcome", public: m.KeyPackage.InitKey, psks: psks},
		Leaf: &PrivateKey{ctx: ctx, client: c, ref: kp.GetRef(), label: "UpdatePathNode", public: m.KeyPackage.LeafNode.EncryptionKey},
	}, nil
}

// PublicKey returns the encoded public key, which the caller must not change.
func (k *PrivateKey) PublicKey() []byte { return k.public }

// Open implements hpke.PrivateKey for what was encrypted with a label: info is an encoded
// EncryptContext (RFC 9420, Section 5.1.3), and aad must be empty. For the init key, ciphertext is
// that of a Welcome and the context is the encrypted GroupInfo. The service answers only if the
// whole Welcome opens, and reserves the key package. The error is an *Error.
func (k *PrivateKey) Open(info, aad, kemOutput, ciphertext []byte) ([]byte, error) {
	label, context, err := labelled(info)
	if err == nil && len(aad) > 0 {
		err = errAAD
	}
	if err != nil {
		return nil, &Error{Operation: "decrypt", err: err}
	}
	return k.DecryptWithLabel(k.ctx, label, context, kemOutput, ciphertext)
}

// DecryptWithLabel does what Open does, by label and context (RFC 9420, Section 5.1.3). The label
// is "Welcome" for the init key and "UpdatePathNode" for the leaf's.
func (k *PrivateKey) DecryptWithLabel(ctx context.Context, label string, context, kemOutput, ciphertext []byte) ([]byte, error) {
	if label != k.label {
		return nil, &Error{Operation: "decrypt", err: errLabel}
	}
	out, err := repeated(ctx, k.client, "decrypt", k.client.api.DecryptWithLabel, &hsmkpv1.DecryptWithLabelRequest{
		Ref: k.ref, Label: label, Context: context, KemOutput: kemOutput, Ciphertext: ciphertext, Psks: k.psks,
	})
	if err != nil {
		return nil, err
	}
	if len(out.GetWelcomeDigest()) > 0 {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.reserved = &Reservation{k.ref, out.GetWelcomeDigest(), out.GetReservedUntil().AsTime()}
	}
	return out.GetPlaintext(), nil
}

// Reservation returns the reservation of the Welcome that was last opened with the key, for
// Confirm and Release, and whether there is one.
func (k *PrivateKey) Reservation() (Reservation, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.reserved == nil {
		return Reservation{}, false
	}
	return *k.reserved, true
}
