package operator

import (
	"context"

	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// nextVersion returns the next version of an identity, or nil if there is none.
func (o *Operator) nextVersion(ctx context.Context, name string) (*store.Identity, error) {
	versions, err := o.Store.Versions(ctx, name)
	for i := range versions {
		if versions[i].State == store.Next {
			return &versions[i], err
		}
	}
	return nil, err
}

// checkStamp checks that a record is genuine which the next version is made from. Its key need not
// be in the token any more: that of a retired identity may be destroyed.
func (o *Operator) checkStamp(ctx context.Context, record *store.Identity) error {
	inv, err := o.Inventory(ctx)
	if err != nil {
		return err
	}
	return inv.CheckIdentity(ctx, record)
}

// proposeNewKey makes the next version of an identity with a new signature key.
func (o *Operator) proposeNewKey(ctx context.Context, current *store.Identity) (*store.Identity, error) {
	inv, err := o.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	number, err := o.nextNumber(ctx, current.Name)
	if err != nil {
		return nil, err
	}
	next := store.Identity{Name: current.Name, Version: number, State: store.Next, Suite: current.Suite, Credential: current.Credential}
	if credential, err := keypackage.ParseCredential(current.Credential); err == nil && credential.Type == keypackage.CredentialX509 {
		next.Credential = keypackage.X509Credential(nil).Bytes() // the chain certifies another key
	}
	return &next, o.withNewKey(ctx, inv, &next, o.Store.ProposeIdentity)
}

// nextNumber is the number of an identity's next version. A version that was given up keeps its
// number.
func (o *Operator) nextNumber(ctx context.Context, name string) (uint64, error) {
	versions, err := o.Store.Versions(ctx, name)
	number := uint64(1)
	for _, v := range versions {
		if v.State != store.Next {
			number = max(number, v.Version+1)
		}
	}
	return number, err
}
