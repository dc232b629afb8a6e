package operator

import (
	"context"
	"io"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/signer"
	"github.com/hsm-kp/hsm-kp/token"
)

// While verbs move here, those that have not moved reach the following by their exported names.

func (o *Operator) Record(ctx context.Context, name string) (store.Identity, error) {
	return o.record(ctx, name)
}
func (o *Operator) Tidy(ctx context.Context) error { return o.tidy(ctx) }
func (o *Operator) ForgetKey(id []byte)            { o.forget(id) }
func FindKey(ctx context.Context, t *token.Token, q token.KeyQuery, allowWeak bool) (*signer.Key, error) {
	return findKey(ctx, t, q, allowWeak)
}
func (o *Operator) Records() *inventory.Inventory { return o.records }

// NewRing returns a token as the inventory uses it.
func NewRing(t *token.Token, rand io.Reader) inventory.Ring { return ring{t, rand} }

// InventoryOver returns an inventory over another store.
func (o *Operator) InventoryOver(s store.Store, t *token.Token) *inventory.Inventory {
	c := o.Config
	c.Store = s
	return c.inventoryOver(t)
}
func (o *Operator) Workers(t *token.Token) int { return o.workers(t) }

var (
	RequireSigning = requireSigning
	IsLive         = isLive
	IsKept         = isKept
	WriteAll       = writeAll
	SameAuditKey   = sameAuditKey
)

func (o *Operator) CreateChecked(ctx context.Context, suite *ciphersuite.Suite, r *CreateIdentityRequest) (store.Identity, error) {
	return o.createIdentity(ctx, suite, r)
}
func (o *Operator) SubjectOf(name string) (string, bool) { return o.subjectOf(name) }
func (o *Operator) RequestFor(ctx context.Context, id *identity.Identity, r certificate.Request) (CertificateRequested, error) {
	return o.requestCertificate(ctx, id, r)
}
