package operator

import (
	"context"

	"github.com/hsm-kp/hsm-kp/internal/store"
)

// DestroySignatureKeyRequest says which signature key to destroy.
type DestroySignatureKeyRequest struct {
	// Identity is the identity's name.
	Identity string
	// Version is the number of the version whose key it is; 0: the current one, of a retired identity.
	Version uint64
	// Force destroys the key although key packages that it signed may still be used.
	Force bool
}

// DestroySignatureKey destroys, in the token, the signature key of a version that no longer signs,
// or of a next version, which is given up. It returns the version. The error is store.ErrState if
// the version signs, and store.ErrInUse if key packages that it signed may still be used.
func (o *Operator) DestroySignatureKey(ctx context.Context, r DestroySignatureKeyRequest) (store.Identity, error) {
	record, err := o.record(ctx, r.Identity)
	if err != nil {
		return record, err
	}
	if r.Version == 0 {
		r.Version = record.Version
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return record, err
	}
	destroyed, err := inv.DestroySignatureKey(ctx, r.Identity, r.Version, r.Force, o.now())
	if err == nil {
		o.forget(destroyed.KeyID)
	}
	return destroyed, err
}
