package operator

import (
	"context"

	"github.com/hsm-kp/hsm-kp/ciphersuite"
	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// While verbs move here, those that have not moved reach the following by their exported names.

func (o *Operator) Record(ctx context.Context, name string) (store.Identity, error) {
	return o.record(ctx, name)
}
func (o *Operator) Tidy(ctx context.Context) error { return o.tidy(ctx) }
func (o *Operator) ForgetKey(id []byte)            { o.forget(id) }
func (o *Operator) Records() *inventory.Inventory  { return o.records }

var (
	RequireSigning = requireSigning
	IsLive         = isLive
	IsKept         = isKept
	WriteAll       = writeAll
)

func (o *Operator) CreateChecked(ctx context.Context, suite *ciphersuite.Suite, r *CreateIdentityRequest) (store.Identity, error) {
	return o.createIdentity(ctx, suite, r)
}
func (o *Operator) SubjectOf(name string) (string, bool) { return o.subjectOf(name) }
func (o *Operator) RequestFor(ctx context.Context, id *identity.Identity, r certificate.Request) (CertificateRequested, error) {
	return o.requestCertificate(ctx, id, r)
}
