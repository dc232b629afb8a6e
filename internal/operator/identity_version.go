package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Errors of a rotation without the right certificates.
var (
	// ErrNoChain reports that the next version has no certificate, and that none was given.
	ErrNoChain = errors.New("there is no certificate for the next version")
	// ErrChainOfCurrent reports a chain for the current key, while the next key waits for its own.
	ErrChainOfCurrent = errors.New("the chain certifies the current key, and the next key waits for its own chain")
)

// prepareNext returns the next version of an identity, which it makes if there is none yet.
func (o *Operator) prepareNext(ctx context.Context, current *store.Identity, chain certificate.Chain) (*store.Identity, error) {
	if err := o.checkStamp(ctx, current); err != nil {
		return nil, err
	}
	credential, err := credentialOf(current)
	if err != nil {
		return nil, err
	}
	next, err := o.nextVersion(ctx, current.Name)
	switch {
	case err != nil:
		return nil, err
	case credential.Type == keypackage.CredentialX509:
		return o.nextCertified(ctx, current, next, chain)
	case len(chain) > 0:
		return nil, requestf("a chain is for certificates, and %q has a basic credential", current.Name)
	case next != nil:
		return next, nil
	}
	return o.proposeNewKey(ctx, current)
}

// nextVersion returns the next version of an identity, or nil if there is none.
func (o *Operator) nextVersion(ctx context.Context, name string) (*store.Identity, error) {
	versions, err := o.store.Versions(ctx, name)
	for i := range versions {
		if versions[i].State == store.Next {
			return &versions[i], err
		}
	}
	return nil, err
}

// checkStamp checks that the record from which the next version is made is genuine. Its key need
// not be in the token: that of a retired identity may be destroyed.
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
	return &next, o.withNewKey(ctx, inv, &next, o.store.ProposeIdentity)
}

// nextNumber returns the number of an identity's next version. A version that was given up keeps its
// number.
func (o *Operator) nextNumber(ctx context.Context, name string) (uint64, error) {
	versions, err := o.store.Versions(ctx, name)
	number := uint64(1)
	for _, v := range versions {
		if v.State != store.Next {
			number = max(number, v.Version+1)
		}
	}
	return number, err
}

// nextCertified returns the next version of an identity with certificates: the one that the chain
// certifies.
func (o *Operator) nextCertified(ctx context.Context, current, next *store.Identity, chain certificate.Chain) (*store.Identity, error) {
	if len(chain) == 0 {
		if next != nil && certified(next) {
			return next, nil
		}
		return nil, fmt.Errorf("rotate identity %q: %w", current.Name, ErrNoChain)
	}
	if next != nil && (next.Version == current.Version || o.certifies(chain, next)) {
		return next, o.certifyNext(ctx, next, chain)
	}
	if err := o.checkChain(chain, current); err != nil {
		return nil, err
	}
	if next != nil {
		return nil, fmt.Errorf("rotate identity %q: %w: %w", current.Name, store.ErrState, ErrChainOfCurrent)
	}
	return o.proposeChain(ctx, current, chain)
}

// certified reports whether a version has a chain.
func certified(id *store.Identity) bool {
	credential, err := keypackage.ParseCredential(id.Credential)
	if err != nil {
		return false
	}
	chain, err := chainOf(credential)
	return err == nil && len(chain) > 0
}

// certifies reports whether a chain is for the key of a version.
func (o *Operator) certifies(chain certificate.Chain, id *store.Identity) bool {
	return identity.CheckChain(chain, id.SignatureKey, certificate.Options{Now: o.now()}) == nil
}

// certifyNext makes a chain the credential of a next version.
func (o *Operator) certifyNext(ctx context.Context, next *store.Identity, chain certificate.Chain) error {
	if err := o.checkChain(chain, next); err != nil {
		return err
	}
	if _, err := o.OpenIdentity(ctx, next); err != nil {
		return err
	}
	return o.changeCredential(ctx, next, chain)
}

// proposeChain makes the next version of an identity with the key that it has.
func (o *Operator) proposeChain(ctx context.Context, current *store.Identity, chain certificate.Chain) (*store.Identity, error) {
	if _, err := o.OpenIdentity(ctx, current); err != nil {
		return nil, err
	}
	inv, err := o.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	next := *current
	if next.Version, err = o.nextNumber(ctx, current.Name); err != nil {
		return nil, err
	}
	next.State, next.RetiredAt = store.Next, time.Time{}
	next.Credential, next.CreatedAt = keypackage.X509Credential(chain.DER()).Bytes(), o.now().UTC().Truncate(time.Second)
	if err := inv.StampIdentity(ctx, &next); err != nil {
		return nil, err
	}
	return &next, o.store.ProposeIdentity(ctx, next)
}
