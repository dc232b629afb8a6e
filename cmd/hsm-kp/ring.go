package main

import (
	"context"
	"crypto/rand"

	"github.com/hsm-kp/hsm-kp/inventory"
	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// ring is a token as the inventory knows it.
type ring struct{ token *token.Token }

var _ inventory.Ring = ring{}

// Open implements inventory.Ring.
func (r ring) Open(ctx context.Context, id vault.KeyID, p store.Purpose) (vault.Custodian, error) {
	if p == store.Wrap {
		return custodian(vault.OpenToken(ctx, r.token, id))
	}
	return custodian(vault.Open(ctx, r.token, id))
}

// custodian makes no interface of a nil pointer.
func custodian[C vault.Custodian](c C, err error) (vault.Custodian, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Create implements inventory.Ring.
func (r ring) Create(ctx context.Context, id vault.KeyID, p store.Purpose, label string) ([]byte, error) {
	if p == store.Wrap {
		return vault.CreateTokenKey(ctx, r.token, id, label)
	}
	return vault.CreateKey(ctx, r.token, rand.Reader, id, label)
}

// Destroy implements inventory.Ring. Also half a key pair is destroyed, which a crash may
// have left.
func (r ring) Destroy(ctx context.Context, o store.Object, id []byte) error {
	classes := map[store.Object][]token.ObjectClass{
		store.ObjectSealingKey:   {token.ClassSecretKey},
		store.ObjectWrappingKey:  {token.ClassSecretKey},
		store.ObjectSignatureKey: {token.ClassPrivateKey, token.ClassPublicKey},
	}[o]
	_, err := r.token.DestroyByID(ctx, id, classes...)
	return err
}

// Discard implements inventory.Ring.
func (r ring) Discard(ctx context.Context, id vault.KeyID, label string) error {
	return r.token.DiscardUnfinished(ctx, id, label)
}

// Serial implements inventory.Ring.
func (r ring) Serial() string { return r.token.Info().Serial }
