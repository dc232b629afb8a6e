package client

import (
	"errors"
	"fmt"

	"connectrpc.com/connect"

	hsmkpv1 "github.com/hsm-kp/hsm-kp/api/hsmkp/v1"
)

// Reason is why the service refused or failed: an error for errors.Is.
type Reason hsmkpv1.Reason

// The reasons of the API; docs/API.md describes each.
const (
	ErrNotGranted     = Reason(hsmkpv1.Reason_REASON_NOT_GRANTED)
	ErrQuotaSpent     = Reason(hsmkpv1.Reason_REASON_QUOTA_SPENT)
	ErrBusy           = Reason(hsmkpv1.Reason_REASON_BUSY)
	ErrMalformed      = Reason(hsmkpv1.Reason_REASON_MALFORMED)
	ErrLabel          = Reason(hsmkpv1.Reason_REASON_LABEL)
	ErrForeignContent = Reason(hsmkpv1.Reason_REASON_FOREIGN_CONTENT)
	ErrNotFound       = Reason(hsmkpv1.Reason_REASON_NOT_FOUND)
	ErrNoneLeft       = Reason(hsmkpv1.Reason_REASON_NONE_LEFT)
	ErrReserved       = Reason(hsmkpv1.Reason_REASON_RESERVED)
	ErrConsumed       = Reason(hsmkpv1.Reason_REASON_CONSUMED)
	ErrErased         = Reason(hsmkpv1.Reason_REASON_ERASED)
	ErrState          = Reason(hsmkpv1.Reason_REASON_STATE)
	ErrNotOpened      = Reason(hsmkpv1.Reason_REASON_NOT_OPENED)
	ErrToken          = Reason(hsmkpv1.Reason_REASON_TOKEN)
	ErrStore          = Reason(hsmkpv1.Reason_REASON_STORE)
	ErrIntegrity      = Reason(hsmkpv1.Reason_REASON_INTEGRITY)
	ErrPolicy         = Reason(hsmkpv1.Reason_REASON_POLICY)
	ErrDirectory      = Reason(hsmkpv1.Reason_REASON_DIRECTORY)
	ErrRefused        = Reason(hsmkpv1.Reason_REASON_REFUSED)
)

var (
	// ErrNoAnswer reports a service that could not be reached or did not answer in the
	// form of the API. Whether it did the operation is unknown.
	ErrNoAnswer = errors.New("no answer from hsm-kp")
	// ErrNotLabelled reports data that is not the encoded SignContent or EncryptContext of
	// MLS 1.0 (RFC 9420, Sections 5.1.2 and 5.1.3).
	ErrNotLabelled = errors.New("not a labelled structure of MLS 1.0")
)

// Error returns the name in the API.
func (r Reason) Error() string { return hsmkpv1.Reason(r).String() }

// Error is a failed operation: the answer of the service, or why there is none.
type Error struct {
	// Operation is the operation that failed, such as "claim".
	Operation string
	// Code is the status code of gRPC.
	Code connect.Code
	// Reason is 0 if the service gave none.
	Reason Reason
	err    error
}

// Error returns a text for people, which may change.
func (e *Error) Error() string {
	if e.Reason != 0 {
		return fmt.Sprintf("%s: %v (%v)", e.Operation, e.err, e.Reason)
	}
	return fmt.Sprintf("%s: %v", e.Operation, e.err)
}

// Unwrap lets errors.Is find the reason, ErrNoAnswer, and the errors of package context.
func (e *Error) Unwrap() []error {
	switch {
	case e.Reason != 0:
		return []error{e.Reason, e.err}
	case e.Code == connect.CodeUnavailable:
		return []error{ErrNoAnswer, e.err}
	}
	return []error{e.err}
}

// errorOf makes an *Error of an error of connect.
func errorOf(operation string, err error) error {
	e := &Error{Operation: operation, Code: connect.CodeOf(err), err: err}
	answer, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return e
	}
	for _, d := range answer.Details() {
		m, err := d.Value()
		if detail, ok := m.(*hsmkpv1.ErrorDetail); err == nil && ok {
			e.Reason = Reason(detail.GetReason())
		}
	}
	return e
}
