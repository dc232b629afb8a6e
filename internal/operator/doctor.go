package operator

import (
	"context"

	"github.com/hsm-kp/hsm-kp/internal/diagnosis"
)

// Diagnose tests what the token can do, with temporary keys, and each key in it that the store
// depends on. It changes nothing. If the Operator has no store yet, it tests the token
// alone.
func (o *Operator) Diagnose(ctx context.Context) (*diagnosis.Diagnosis, error) {
	inv, err := o.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	s := diagnosis.Subject{Token: o.token, Inventory: inv, Rand: o.rand}
	if o.store != nil {
		s.Store = o.store
	}
	return s.Diagnose(ctx)
}
