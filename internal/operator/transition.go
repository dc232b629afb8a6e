package operator

import (
	"context"
	"io"

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
func (o *Operator) WorkOff(ctx context.Context, b store.Backlog) (store.Backlog, error) {
	return o.workOff(ctx, b)
}
func (o *Operator) BacklogProgress(ctx context.Context) func(store.Backlog) {
	return o.backlogProgress(ctx)
}
func (o *Operator) BacklogError(ctx context.Context, b store.Backlog, err error) error {
	return o.backlogError(ctx, b, err)
}
func (o *Operator) KeepKey(key *signer.Key, allowWeak bool) { o.keep(key, allowWeak) }
func (o *Operator) ForgetKey(id []byte)                     { o.forget(id) }
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
)

// GenerateVersion makes key packages of a version of an identity that does not sign yet.
func (o *Operator) GenerateVersion(ctx context.Context, version *store.Identity, custody, folder string, n uint64, lastResort bool) error {
	p, err := o.production(version, custody, n, lastResort)
	p.folder = folder
	if err == nil {
		_, err = o.produce(ctx, p)
	}
	return err
}
