package client

import (
	"context"
	"errors"
	"fmt"
	"sync"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// What MLS never asks of a key package's private keys.
var (
	errAAD   = errors.New("additional data with a key of a key package")
	errLabel = errors.New("the key is for another label")
)

// Keys are the HPKE private keys of a key package, which the service has.
type Keys struct {
	Ref keypackage.Ref
	// Init opens the GroupSecrets of a Welcome (label Welcome), Leaf path secrets (label
	// UpdatePathNode) once a Welcome was opened.
	Init, Leaf *PrivateKey
}

// PrivateKey is one of the private keys of a key package. It is an hpke.PrivateKey of this
// module, and safe for concurrent use.
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

// Keys returns the private keys of a key package that Get or Claim returned, as they are used by
// libraries that pass no context: ctx is that of every use. psks are external pre-shared keys that
// groups use, which the service needs to check a Welcome.
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

// Open opens what was encrypted with a label: info is an encoded EncryptContext (RFC 9420,
// Section 5.1.3), aad empty. For the init key the ciphertext is a Welcome's, its context the
// encrypted GroupInfo, and the service answers only if the Welcome opens whole; the key package is
// then reserved.
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

// DecryptWithLabel is Open by label and context (RFC 9420, Section 5.1.3). The label must be the
// key's: Welcome for the init key, UpdatePathNode for the leaf's.
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

// Reservation returns what a Welcome that was opened with the key has reserved, for Confirm and
// Release.
func (k *PrivateKey) Reservation() (Reservation, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.reserved == nil {
		return Reservation{}, false
	}
	return *k.reserved, true
}
