package operator

import (
	"context"
	"io"

	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/token"
	"github.com/hsm-kp/hsm-kp/vault"
)

// ring adapts a token to the inventory.
type ring struct {
	token *token.Token
	rand  io.Reader
}

var _ inventory.Ring = ring{}

// Open implements inventory.Ring.
func (r ring) Open(ctx context.Context, id vault.KeyID, m vault.Mechanism) (vault.Custodian, error) {
	return vault.OpenBy(ctx, r.token, m, id)
}

// Create implements inventory.Ring.
func (r ring) Create(ctx context.Context, id vault.KeyID, m vault.Mechanism, label string) ([]byte, error) {
	return vault.CreateBy(ctx, r.token, r.rand, m, id, label)
}

// Destroy implements inventory.Ring. It also destroys an incomplete key pair, which a crash may have
// left.
func (r ring) Destroy(ctx context.Context, o store.Object, id []byte) error {
	pair := []token.ObjectClass{token.ClassPrivateKey, token.ClassPublicKey}
	classes := map[store.Object][]token.ObjectClass{
		store.ObjectSealingKey:   {token.ClassSecretKey},
		store.ObjectSealingPair:  pair,
		store.ObjectWrappingKey:  {token.ClassSecretKey},
		store.ObjectSignatureKey: pair,
		store.ObjectAuditKey:     pair,
	}[o]
	_, err := r.token.DestroyByID(ctx, id, classes...)
	if err == nil && o == store.ObjectSealingPair {
		_, err = r.token.DestroyByID(ctx, vault.StampingKeyID(id), pair...)
	}
	return err
}

// Discard implements inventory.Ring.
func (r ring) Discard(ctx context.Context, id vault.KeyID, label string) error {
	return r.token.DiscardUnfinished(ctx, id, label)
}

// Serial implements inventory.Ring.
func (r ring) Serial() string { return r.token.Info().Serial }
