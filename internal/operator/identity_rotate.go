package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/certificate"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/vault"
)

// RotateIdentityRequest says how an identity gets its next version.
type RotateIdentityRequest struct {
	// Identity is the identity's name.
	Identity string
	// Chain certifies the next version of an identity with certificates: the key that the identity
	// has, or the next one. It is empty if the next version has its chain already, and for an
	// identity with a basic credential, whose next version has a new key.
	Chain certificate.Chain
	// Count is how many key packages for single use the next version is to have; nil: as many as it
	// replaces.
	Count *uint64
	// Custody is vault.CustodyWrapped or vault.CustodyToken; empty: the config's, unless private keys
	// would then leave the token (ErrLessCustody).
	Custody string
	// Folder is where the public parts of the key packages are written; empty: nowhere.
	Folder string
}

// RotateIdentityResult is what a rotation has done, in however many calls.
type RotateIdentityResult struct {
	// Version is the number of the version that signs now.
	Version uint64
	// Chain certifies that version; it is empty for a basic credential.
	Chain certificate.Chain
	// Generated is how many key packages that version has, and Retired how many of the versions
	// before are retired.
	Generated, Retired uint64
	// RetiredUntil is when the private keys of the retired ones are erased.
	RetiredUntil time.Time
	// NotReplaced is how many key packages were retired or will be retired without a replacement, because
	// their private keys belong to a device. It is set even if the rotation failed after counting them.
	NotReplaced uint64
}

// RotateIdentity makes the next version of an identity and its key packages, makes that version
// the one that signs, and retires the key packages of the versions before. If it was interrupted,
// the next call continues it.
func (o *Operator) RotateIdentity(ctx context.Context, r RotateIdentityRequest) (RotateIdentityResult, error) {
	current, err := o.record(ctx, r.Identity)
	if err != nil {
		return RotateIdentityResult{}, err
	}
	switched, err := o.switched(ctx, &current)
	if err != nil {
		return RotateIdentityResult{}, err
	}
	if switched.ID != 0 {
		o.notef("the rotation of %q to version %d was interrupted: finishing it", r.Identity, switched.Version)
		result, err := o.resultOf(ctx, &current)
		if err != nil {
			return result, err
		}
		return o.retireBefore(ctx, switched, result)
	}
	if err := o.tidy(ctx); err != nil {
		return RotateIdentityResult{}, err
	}
	if r.Custody, err = o.custodyOfNext(ctx, &r); err != nil {
		return RotateIdentityResult{}, err
	}
	next, err := o.prepareNext(ctx, &current, r.Chain)
	if err != nil {
		return RotateIdentityResult{}, err
	}
	return o.switchTo(ctx, next, &r)
}

// switchTo gives the next version its key packages, and makes it the one that signs.
func (o *Operator) switchTo(ctx context.Context, next *store.Identity, r *RotateIdentityRequest) (RotateIdentityResult, error) {
	notReplaced, err := o.replace(ctx, next, r)
	if err != nil {
		return RotateIdentityResult{NotReplaced: notReplaced}, err
	}
	// The result is read before the switch: a rotation that fails after it can be continued, or has
	// nothing left to do.
	result, err := o.resultOf(ctx, next)
	result.NotReplaced = notReplaced
	if err != nil {
		return result, err
	}
	now := o.now()
	switched, err := o.store.SwitchIdentity(ctx, next.Name, next.Version, now.Add(time.Duration(o.settings.KeyPackages.Grace)), now)
	if err != nil {
		return result, fmt.Errorf("rotate identity %q: %w", next.Name, err)
	}
	return o.retireBefore(ctx, switched, result)
}

// switched returns the backlog of a rotation that was interrupted after the next version had
// become the current one.
func (o *Operator) switched(ctx context.Context, current *store.Identity) (store.Backlog, error) {
	backlogs, err := o.store.Backlogs(ctx)
	for _, b := range backlogs {
		if b.Identity == current.Name && b.Version == current.Version {
			return b, err
		}
	}
	return store.Backlog{}, err
}

// resultOf returns the result for a version as far as that version decides it.
func (o *Operator) resultOf(ctx context.Context, version *store.Identity) (RotateIdentityResult, error) {
	result := RotateIdentityResult{Version: version.Version}
	credential, err := credentialOf(version)
	if err != nil {
		return result, err
	}
	if result.Chain, err = chainOf(credential); err != nil {
		return result, fmt.Errorf("read the certificates of %q: %w", version.Name, err)
	}
	stock, err := o.store.Stock(ctx, version.Name)
	for _, s := range stock {
		if s.Version == version.Version {
			result.Generated += s.Count
		}
	}
	return result, err
}

// retireBefore retires the key packages of the versions before the one that signs now.
func (o *Operator) retireBefore(ctx context.Context, b store.Backlog, result RotateIdentityResult) (RotateIdentityResult, error) {
	b, err := o.workOff(ctx, b)
	result.Retired, result.RetiredUntil = b.Moved, b.Until
	if err != nil {
		return result, fmt.Errorf("identity %q now signs as version %d: %w", b.Identity, b.Version, err)
	}
	return result, nil
}

// ErrLessCustody reports a rotation whose new private keys would be outside the token although
// some of the old ones are in it.
var ErrLessCustody = errors.New("some of the key packages to replace have custody token, and the new ones would have custody wrapped")

// custodyOfNext returns the custody of the key packages that replace others. There is no silent
// fallback: if one of the others has its private keys in the token, the request must name wrapped.
func (o *Operator) custodyOfNext(ctx context.Context, r *RotateIdentityRequest) (string, error) {
	custody := o.settings.CustodyOf(r.Identity)
	if r.Custody != "" || custody != vault.CustodyWrapped {
		return r.Custody, nil
	}
	stock, err := o.store.Stock(ctx, r.Identity)
	if err != nil {
		return "", err
	}
	for _, s := range stock {
		if s.Custody == vault.CustodyToken && isLive(s.State) {
			return "", fmt.Errorf("rotate identity %q: %w", r.Identity, ErrLessCustody)
		}
	}
	return custody, nil
}

// replace makes the key packages of a next version that it does not have yet. It returns how many
// of the versions before are not replaced.
func (o *Operator) replace(ctx context.Context, next *store.Identity, r *RotateIdentityRequest) (notReplaced uint64, err error) {
	stock, err := o.store.Stock(ctx, next.Name)
	if err != nil {
		return 0, err
	}
	notReplaced = ofDevices(stock, next.Version)
	for _, lastResort := range []bool{false, true} {
		n := wanting(stock, next.Version, lastResort)
		if r.Count != nil && !lastResort {
			n = *r.Count - min(*r.Count, made(stock, next.Version))
		}
		if n == 0 {
			continue
		}
		p, err := o.production(next, r.Custody, n, lastResort)
		if err != nil {
			return notReplaced, err
		}
		p.folder = r.Folder
		if _, err := o.produce(ctx, p); err != nil {
			return notReplaced, err
		}
	}
	return notReplaced, nil
}

// made returns how many key packages for single use a version already has.
func made(stock []store.Stock, version uint64) (n uint64) {
	for _, s := range stock {
		if s.Version == version && !s.LastResort {
			n += s.Count
		}
	}
	return n
}

// wanting returns how many key packages of a kind the versions before have that are used or may be
// used, less those of the next one. One of last resort replaces all of them. Those whose private
// keys belong to a device are not replaced: see ofDevices.
func wanting(stock []store.Stock, next uint64, lastResort bool) uint64 {
	var before, after uint64
	for _, s := range stock {
		switch {
		case s.LastResort != lastResort || !isLive(s.State) || !isKept(s.Custody):
		case s.Version < next:
			before += s.Count
		default:
			after += s.Count
		}
	}
	if lastResort {
		before = min(before, 1)
	}
	return before - min(before, after)
}

// ofDevices returns how many key packages of the versions before have private keys that belong to
// a device: only the device's line of a manifest says how to make others.
func ofDevices(stock []store.Stock, next uint64) (n uint64) {
	for _, s := range stock {
		if s.Version < next && isLive(s.State) && !isKept(s.Custody) {
			n += s.Count
		}
	}
	return n
}
