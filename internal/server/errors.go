package server

import (
	"context"
	"errors"
	"math"
	"strconv"
	"time"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
	"github.com/hsm-kp/hsm-kp/keypackage"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// fault is an error as callers see it. It holds nothing from a library below, whose message could
// name a path, a key or a part of what was decrypted.
type fault struct {
	code    connect.Code
	reason  hsmkpv1.Reason
	message string

	// refused means that the service would not do it; the trail records that.
	refused bool
	// after is how long to wait before a retry may succeed; 0 if that is unknown.
	after time.Duration
}

func (f *fault) Error() string { return f.message }

// malformed returns the fault of a malformed request.
func malformed(message string) *fault {
	return &fault{code: connect.CodeInvalidArgument, reason: hsmkpv1.Reason_REASON_MALFORMED, message: message}
}

// wrongContent refuses content that is not the structure that its label names, or not a sound one.
// An attacker would try to have such content signed or decrypted.
func wrongContent(message string) error {
	f := malformed(message)
	f.refused = true
	return f
}

// Faults that do not come from a package below.
var (
	errNotGranted = refusalFor(connect.CodePermissionDenied, hsmkpv1.Reason_REASON_NOT_GRANTED, "this is not granted to the caller", 0)
	errBusy       = refusalFor(connect.CodeResourceExhausted, hsmkpv1.Reason_REASON_BUSY, "too many requests at once", time.Second)
	errLabel      = refusalFor(connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_LABEL, "the label is not accepted", 0)
	errTooLong    = refusalFor(connect.CodeResourceExhausted, hsmkpv1.Reason_REASON_MALFORMED, "the request is too long", 0)
	errSlow       = refusalFor(connect.CodeDeadlineExceeded, hsmkpv1.Reason_REASON_UNSPECIFIED, "the request did not arrive in time", 0)
	errNoRequest  = failure(connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_MALFORMED, "it is not a request of the API")
	errNoneLeft   = failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_NONE_LEFT, "no key packages of the identity are available")
	errNotFound   = failure(connect.CodeNotFound, hsmkpv1.Reason_REASON_NOT_FOUND, "there is no such identity or key package")
	errInternal   = failure(connect.CodeInternal, hsmkpv1.Reason_REASON_UNSPECIFIED, "internal error")
	errCanceled   = failure(connect.CodeCanceled, hsmkpv1.Reason_REASON_UNSPECIFIED, "the request was canceled")
	errDeadline   = failure(connect.CodeDeadlineExceeded, hsmkpv1.Reason_REASON_UNSPECIFIED, "the request took too long")
)

func failure(code connect.Code, reason hsmkpv1.Reason, message string) *fault {
	return &fault{code: code, reason: reason, message: message}
}

func refusalFor(code connect.Code, reason hsmkpv1.Reason, message string, after time.Duration) *fault {
	return &fault{code: code, reason: reason, message: message, refused: true, after: after}
}

// tooMany refuses a request beyond a rate.
func tooMany(after time.Duration) *fault {
	return refusalFor(connect.CodeResourceExhausted, hsmkpv1.Reason_REASON_BUSY, "too many requests a second", after)
}

// quotaSpent refuses a request beyond a rule's quota until its period ends.
func quotaSpent(after time.Duration) *fault {
	return refusalFor(connect.CodeResourceExhausted, hsmkpv1.Reason_REASON_QUOTA_SPENT, "the quota of the period is spent", after)
}

// foreign refuses content that does not belong to the identity that would sign it.
func foreign(message string) error {
	return refusalFor(connect.CodePermissionDenied, hsmkpv1.Reason_REASON_FOREIGN_CONTENT, message, 0)
}

// faults maps errors from below to faults, in order of precedence: a damaged record or key comes
// before what it made of a request.
var faults = []struct {
	of []error
	as *fault
}{
	{[]error{store.ErrNotFound, operator.ErrNoIdentity, inventory.ErrNotOurs}, errNotFound},
	{[]error{vault.ErrStamp, vault.ErrSealed, inventory.ErrMixedUp, vault.ErrWeakKey, hpke.ErrKeyMismatch, identity.ErrKeyMismatch, keypackage.ErrSignerFault},
		failure(connect.CodeDataLoss, hsmkpv1.Reason_REASON_INTEGRITY, "a record or a key has been changed")},
	{[]error{store.ErrConsumed}, failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_CONSUMED, "a Welcome used the key package up")},
	{[]error{store.ErrForDevice, store.ErrOtherRelease, inventory.ErrAtDevice}, failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_STATE, "its private keys belong to a device")},
	{[]error{store.ErrErased, inventory.ErrNoLeaf}, failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_ERASED, "the private keys are erased")},
	{[]error{store.ErrReserved}, failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_RESERVED, "the key package is reserved for another Welcome")},
	{[]error{store.ErrAway, store.ErrLogin, store.ErrNoDatabase, store.ErrBusy, store.ErrFull, store.ErrReadOnly, store.ErrDamaged},
		failure(connect.CodeUnavailable, hsmkpv1.Reason_REASON_STORE, "the store cannot be used at present")},
	{[]error{store.ErrHeld, store.ErrRewrapped, store.ErrWrappingKey, inventory.ErrUnderWay},
		failure(connect.CodeAborted, hsmkpv1.Reason_REASON_BUSY, "another request is changing it: try again")},
	{[]error{store.ErrState, operator.ErrRetired, store.ErrExists, store.ErrInUse}, failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_STATE, "its state does not allow this")},
	{[]error{inventory.ErrNoWrappingKey, inventory.ErrWrappingKeySpent, inventory.ErrOtherToken, vault.ErrCustody},
		failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_POLICY, "the token has no key that can keep such private keys")},
	{[]error{inventory.ErrNothingToShow}, failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_POLICY, "the private keys do not leave the token")},
	{[]error{hpke.ErrOpen, welcome.ErrForged, welcome.ErrConfirmation, welcome.ErrSignature, welcome.ErrNotForIt, welcome.ErrSuite},
		failure(connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_NOT_OPENED, "it cannot be opened: it is forged, damaged or meant for others")},
	{[]error{identity.ErrNoCertificate}, failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_POLICY, "the identity has no certificate yet")},
	{[]error{inventory.ErrSuiteUnknown}, failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_POLICY, "the cipher suite is not enabled here")},
	{[]error{inventory.ErrTooMany}, failure(connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_MALFORMED, "count is more than one wrapping key may seal")},
	{[]error{inventory.ErrRef, inventory.ErrAmbiguousRef}, failure(connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_MALFORMED, "ref is not a whole KeyPackageRef")},
	{[]error{identity.ErrName}, failure(connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_MALFORMED, "identity is not a valid name")},
	{[]error{operator.ErrNoDirectory, operator.ErrSeveral}, failure(connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_MALFORMED, "the service has no such directory, or has several and needs a name")},
	{[]error{context.DeadlineExceeded}, errDeadline},
	{[]error{context.Canceled, inventory.ErrInterrupted}, errCanceled},
}

// faultOf returns err as callers see it.
func (s *Server) faultOf(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	for i := range faults {
		for _, of := range faults[i].of {
			if errors.Is(err, of) {
				return faults[i].as
			}
		}
	}
	if _, ok := errors.AsType[*welcome.MissingPSKError](err); ok {
		return failure(connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_NOT_OPENED, "the Welcome needs a pre-shared key that was not given")
	}
	if _, ok := errors.AsType[*identity.ChainError](err); ok {
		return failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_POLICY, "the certificates of the identity cannot be used")
	}
	if _, ok := errors.AsType[*identity.MissingError](err); ok {
		return failure(connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_POLICY, "the key package would lack a required capability")
	}
	if _, ok := errors.AsType[*store.SchemaError](err); ok {
		return failure(connect.CodeUnavailable, hsmkpv1.Reason_REASON_STORE, "the store cannot be used at present")
	}
	if operator.TokenFault(err) {
		return failure(connect.CodeUnavailable, hsmkpv1.Reason_REASON_TOKEN, "the token cannot be used at present")
	}
	return errInternal
}

// connectError encodes a fault for the wire.
func connectError(f *fault) error {
	e := connect.NewError(f.code, errors.New(f.message))
	if d, err := connect.NewErrorDetail(&hsmkpv1.ErrorDetail{Reason: f.reason}); err == nil {
		e.AddDetail(d)
	}
	if f.after > 0 { // RFC 9110, Section 10.2.3: whole seconds
		e.Meta().Set("Retry-After", strconv.Itoa(int(math.Ceil(f.after.Seconds()))))
	}
	return e
}
