// Package directory has clients that publish key packages: to an OpenMLS delivery service, to any
// service that accepts one in a POST, and to a folder.
//
// A client reports the outcome of each key package. Without an error, the key package is in the
// directory. After an error, it may be there or not, unless the error says that it was refused.
// Publishing the same key package again is always safe: the client sends the same bytes, and a
// directory that has them says so or stores them again.
package directory

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Item is a key package to publish.
type Item struct {
	Ref        keypackage.Ref
	KeyPackage *keypackage.KeyPackage
	// Again means that it was sent before, with an unknown outcome.
	Again bool
}

// Publisher hands key packages of one client to a directory. It is safe for concurrent use.
type Publisher interface {
	// Publish returns the outcome of each item, in order: nil if the directory has it. It returns
	// when all outcomes are known or ctx ends.
	Publish(ctx context.Context, items []Item) []error
}

// Errors that callers branch on.
var (
	// ErrRefused reports a key package that the directory does not accept: sent again, it would be
	// refused again.
	ErrRefused = errors.New("the directory refuses the key package")
	// ErrUnauthorized reports a directory that does not accept the client's credentials: it would
	// refuse further requests too.
	ErrUnauthorized = errors.New("the directory does not let hsm-kp in")
	// ErrKnown reports a client that the directory already knows, and whose token hsm-kp does not
	// have.
	ErrKnown = errors.New("the directory already knows the client, and hsm-kp does not have its token")
	// ErrUnknownClient reports a client that the directory does not know.
	ErrUnknownClient = errors.New("the directory does not know the client")
	// ErrAnswer reports an answer that does not fit the type of the directory.
	ErrAnswer = errors.New("the directory's answer is not understood")
	// ErrUnreachable reports a directory that did not accept something in time, and may accept it
	// later.
	ErrUnreachable = errors.New("the directory did not take it in time")
)

// StatusError is a status other than success that a directory answered with. Is maps it to one of
// the errors above.
type StatusError struct{ Status int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("the directory answered %d %s", e.Status, http.StatusText(e.Status))
}

// Is reports whether the status means target.
func (e *StatusError) Is(target error) bool {
	switch target {
	case ErrUnauthorized:
		return e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden || e.Status == http.StatusProxyAuthRequired
	case ErrRefused:
		return e.Status >= 400 && e.Status < 500 && !e.passing() && !e.Is(ErrUnauthorized)
	}
	return false
}

// passing reports whether the same request may succeed later.
func (e *StatusError) passing() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return e.Status >= 500 && e.Status != http.StatusNotImplemented && e.Status != http.StatusHTTPVersionNotSupported
}
