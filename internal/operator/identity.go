package operator

import (
	"context"
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// IdentityDetails is everything that the store has about an identity.
type IdentityDetails struct {
	// Identity is the current version. Its CreatedAt is the time of the first version.
	store.Identity
	// Versions are all versions, the oldest first.
	Versions []store.Identity
	// KeyPackages is how many key packages of the identity are in each state.
	KeyPackages map[store.State]uint64
}

// Identities returns the current version of all identities, by name.
func (o *Operator) Identities(ctx context.Context) ([]store.Identity, error) {
	return o.store.Identities(ctx)
}

// Identity returns what the store has about an identity. The error is ErrNoIdentity if there is
// none with this name.
func (o *Operator) Identity(ctx context.Context, name string) (IdentityDetails, error) {
	record, err := o.record(ctx, name)
	if err != nil {
		return IdentityDetails{}, err
	}
	out := IdentityDetails{Identity: record}
	if out.KeyPackages, err = o.store.Count(ctx, name); err != nil {
		return out, err
	}
	if out.Versions, err = o.store.Versions(ctx, name); err != nil {
		return out, err
	}
	for _, v := range out.Versions {
		if v.CreatedAt.Before(out.CreatedAt) {
			out.CreatedAt = v.CreatedAt
		}
	}
	return out, nil
}

// credentialOf returns the credential in a record.
func credentialOf(record *store.Identity) (keypackage.Credential, error) {
	credential, err := keypackage.ParseCredential(record.Credential)
	if err != nil {
		return credential, fmt.Errorf("read stored credential of %q: %w", record.Name, err)
	}
	return credential, nil
}

// chainOf returns the certificates of a credential: none if it is a basic one, or waits for them.
func chainOf(c keypackage.Credential) (certificate.Chain, error) {
	if c.Type != keypackage.CredentialX509 || len(c.Certificates) == 0 {
		return nil, nil
	}
	return c.Chain()
}
