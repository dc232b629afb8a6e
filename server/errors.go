package server

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/hsm-kp/hsm-kp/hpke"
	"github.com/hsm-kp/hsm-kp/identity"
	"github.com/hsm-kp/hsm-kp/inventory"
	"github.com/hsm-kp/hsm-kp/keypackage"
	hsmkpv1 "github.com/hsm-kp/hsm-kp/server/api/hsmkp/v1"
	"github.com/hsm-kp/hsm-kp/store"
	"github.com/hsm-kp/hsm-kp/vault"
	"github.com/hsm-kp/hsm-kp/welcome"
)

// fault is an error as callers see it: nothing of it comes from a library below, which
// could name a path, a key or a part of what was decrypted.
type fault struct {
	code    connect.Code
	reason  hsmkpv1.Reason
	message string
}

func (f *fault) Error() string { return f.message }

// malformed is what is wrong with a request.
func malformed(message string) error {
	return &fault{connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_MALFORMED, message}
}

// Faults that do not come from below.
var (
	errNotGranted = &fault{connect.CodePermissionDenied, hsmkpv1.Reason_REASON_NOT_GRANTED, "the caller is not granted that"}
	errQuota      = &fault{connect.CodeResourceExhausted, hsmkpv1.Reason_REASON_QUOTA_SPENT, "the quota of the period is spent"}
	errBusy       = &fault{connect.CodeResourceExhausted, hsmkpv1.Reason_REASON_BUSY, "too many requests at once"}
	errNoneLeft   = &fault{connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_NONE_LEFT, "no key packages of the identity are available"}
	errLabel      = &fault{connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_LABEL, "the label is none of those that are taken"}
	errNotFound   = &fault{connect.CodeNotFound, hsmkpv1.Reason_REASON_NOT_FOUND, "there is no such identity or key package"}
	errInternal   = &fault{connect.CodeInternal, hsmkpv1.Reason_REASON_UNSPECIFIED, "internal error"}
	errCanceled   = &fault{connect.CodeCanceled, hsmkpv1.Reason_REASON_UNSPECIFIED, "the request was given up"}
	errDeadline   = &fault{connect.CodeDeadlineExceeded, hsmkpv1.Reason_REASON_UNSPECIFIED, "the request took too long"}
)

// foreign is content that does not belong to the identity that is to sign it.
func foreign(message string) error {
	return &fault{connect.CodePermissionDenied, hsmkpv1.Reason_REASON_FOREIGN_CONTENT, message}
}

// faults are the errors from below that callers can do something about.
var faults = []struct {
	of []error
	as fault
}{
	{[]error{store.ErrNotFound, inventory.ErrNotOurs}, *errNotFound},
	{[]error{vault.ErrStamp, vault.ErrSealed, inventory.ErrMixedUp, identity.ErrKeyMismatch, keypackage.ErrSignerFault},
		fault{connect.CodeDataLoss, hsmkpv1.Reason_REASON_INTEGRITY, "a record or a key is not what it was"}},
	{[]error{store.ErrConsumed}, fault{connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_CONSUMED, "a Welcome used the key package up"}},
	{[]error{store.ErrErased, inventory.ErrNoLeaf}, fault{connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_ERASED, "the private keys are erased"}},
	{[]error{store.ErrReserved}, fault{connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_RESERVED, "the key package is reserved for another Welcome"}},
	{[]error{store.ErrAway, store.ErrBusy, store.ErrFull, store.ErrReadOnly, store.ErrDamaged},
		fault{connect.CodeUnavailable, hsmkpv1.Reason_REASON_STORE, "the store cannot be used at present"}},
	{[]error{store.ErrState}, fault{connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_STATE, "it is not in the state for that"}},
	{[]error{hpke.ErrOpen, welcome.ErrForged, welcome.ErrConfirmation, welcome.ErrSignature, welcome.ErrNotForIt, welcome.ErrSuite},
		fault{connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_NOT_OPENED, "it does not open: it is forged, damaged or for others"}},
	{[]error{identity.ErrNoCertificate}, fault{connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_POLICY, "the identity has no certificate yet"}},
	{[]error{context.DeadlineExceeded}, *errDeadline},
	{[]error{context.Canceled, inventory.ErrInterrupted}, *errCanceled},
}

// faultOf is err as callers see it.
func (s *Server) faultOf(err error) *fault {
	if f, ok := errors.AsType[*fault](err); ok {
		return f
	}
	for i := range faults {
		for _, of := range faults[i].of {
			if errors.Is(err, of) {
				return &faults[i].as
			}
		}
	}
	if _, ok := errors.AsType[*welcome.MissingPSKError](err); ok {
		return &fault{connect.CodeInvalidArgument, hsmkpv1.Reason_REASON_NOT_OPENED, "the Welcome needs a pre-shared key that was not given"}
	}
	if _, ok := errors.AsType[*identity.ChainError](err); ok {
		return &fault{connect.CodeFailedPrecondition, hsmkpv1.Reason_REASON_POLICY, "the certificates of the identity cannot be used"}
	}
	if s.TokenFault != nil && s.TokenFault(err) {
		return &fault{connect.CodeUnavailable, hsmkpv1.Reason_REASON_TOKEN, "the token cannot be used at present"}
	}
	return errInternal
}

// connectError is a fault on the wire.
func connectError(f *fault) error {
	e := connect.NewError(f.code, errors.New(f.message))
	if d, err := connect.NewErrorDetail(&hsmkpv1.ErrorDetail{Reason: f.reason}); err == nil {
		e.AddDetail(d)
	}
	return e
}

// refusedAs reports whether a fault is a refusal of the service itself, and not one that the
// inventory has put into the trail, or a mistake.
func (f *fault) refusedAs() bool {
	switch f.reason {
	case hsmkpv1.Reason_REASON_NOT_GRANTED, hsmkpv1.Reason_REASON_QUOTA_SPENT, hsmkpv1.Reason_REASON_LABEL, hsmkpv1.Reason_REASON_FOREIGN_CONTENT:
		return true
	case hsmkpv1.Reason_REASON_MALFORMED:
		return f.code == connect.CodePermissionDenied
	}
	return false
}
