package operator

import (
	"bytes"
	"context"
	"fmt"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/policy"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
)

// ImportCertificate checks a chain, the end entity's certificate first, and makes it the credential
// of the identity called name. Key packages that were made before keep the credential that they
// have. The error is an *identity.ChainError with all faults of the chain.
func (o *Operator) ImportCertificate(ctx context.Context, name string, chain certificate.Chain) (store.Identity, error) {
	if len(chain) == 0 {
		return store.Identity{}, requestf("the chain has no certificate")
	}
	record, err := o.record(ctx, name)
	if err != nil {
		return record, err
	}
	// This record is stamped below, so it must be genuine. It is not loaded again, because it might
	// have changed.
	if _, err := o.OpenIdentity(ctx, &record); err != nil {
		return record, err
	}
	if err := o.checkChain(chain, &record); err != nil {
		return record, err
	}
	counts, err := o.store.Count(ctx, name)
	if err != nil {
		return record, err
	}
	if n := counts[store.Available] + counts[store.Pending]; n > 0 {
		o.warnf("%s of %q that were not handed out yet keep the previous credential", Plural(n, "key package"), name)
	}
	if err := o.changeCredential(ctx, &record, chain); err != nil {
		return record, fmt.Errorf("keep the certificates of %q: %w", name, err)
	}
	return record, nil
}

// checkChain checks a chain for the key of an identity as the config requires, and warns of what the
// config leaves unchecked.
func (o *Operator) checkChain(chain certificate.Chain, id *store.Identity) error {
	roots, err := policy.Roots(o.settings.X509.Roots)
	if err != nil {
		return err
	}
	if err := identity.CheckChain(chain, id.SignatureKey, certificate.Options{Now: o.now(), Roots: roots}); err != nil {
		return fmt.Errorf("identity %q: %w", id.Name, err)
	}
	if roots == nil {
		o.warnf("the config names no x509.roots: the end of the chain was not checked")
		if end := chain[len(chain)-1]; !bytes.Equal(end.RawIssuer, end.RawSubject) {
			o.warnf("the chain ends with the certificate of %q, and peers must have that of its issuer, %q", end.Subject, end.Issuer)
		}
	}
	return nil
}

// changeCredential makes a checked chain the credential of a version of an identity.
func (o *Operator) changeCredential(ctx context.Context, record *store.Identity, chain certificate.Chain) error {
	inv, err := o.Inventory(ctx)
	if err != nil {
		return err
	}
	was := bytes.Clone(record.Stamp)
	record.Credential = keypackage.X509Credential(chain.DER()).Bytes()
	if err := inv.StampIdentity(ctx, record); err != nil {
		return err
	}
	return o.store.ChangeIdentity(ctx, *record, was, o.now())
}
