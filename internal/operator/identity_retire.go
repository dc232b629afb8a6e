package operator

import (
	"context"
	"fmt"
	"time"
)

// RetireIdentityResult describes a retired identity.
type RetireIdentityResult struct {
	// Version is the number of the version that signed last.
	Version uint64
	// Retired is how many key packages are retired, and RetiredUntil when their private keys are
	// erased.
	Retired      uint64
	RetiredUntil time.Time
}

// RetireIdentity retires an identity: it no longer signs, and its key packages are retired. Its
// signature keys stay in the token.
func (o *Operator) RetireIdentity(ctx context.Context, name string) (RetireIdentityResult, error) {
	record, err := o.record(ctx, name)
	if err != nil {
		return RetireIdentityResult{}, err
	}
	now := o.now()
	b, err := o.store.RetireIdentity(ctx, name, now.Add(time.Duration(o.settings.KeyPackages.Grace)), now)
	if err != nil {
		return RetireIdentityResult{}, err
	}
	b, err = o.workOff(ctx, b)
	result := RetireIdentityResult{record.Version, b.Moved, b.Until}
	if err != nil {
		return result, fmt.Errorf("identity %q no longer signs: %w", name, err)
	}
	return result, nil
}
