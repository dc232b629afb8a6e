// Package directory has clients that publish key packages: to an OpenMLS delivery service,
// to any service that takes one in a POST, and to a folder.
//
// A client says of each key package what became of it. What it says nothing bad of is in the
// directory; what it failed with may be there or not, unless the error says that it was
// refused. Publishing the same key package again is always safe: the same bytes are sent, and
// a directory that has them says so, or takes them for what it has.
package directory

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hsm-kp/hsm-kp/keypackage"
)

// Item is a key package that is to be published.
type Item struct {
	Ref        keypackage.Ref
	KeyPackage *keypackage.KeyPackage
	// Again: it was sent before, and nobody knows what became of it.
	Again bool
}

// Publisher hands key packages of one client to a directory. It is safe for concurrent use.
type Publisher interface {
	// Publish returns what became of each item, in their order: nil where the directory
	// has it. It returns when all is known or ctx ends.
	Publish(ctx context.Context, items []Item) []error
}

// Errors that callers branch on.
var (
	// ErrRefused reports a key package that the directory does not take: sent again, it is
	// refused again.
	ErrRefused = errors.New("the directory refuses the key package")
	// ErrUnauthorized reports a directory that does not let us in: what is sent next is
	// refused as well.
	ErrUnauthorized = errors.New("the directory does not let hsm-kp in")
	// ErrKnown reports a client that the directory knows already, and whose token we have
	// not.
	ErrKnown = errors.New("the directory knows the client already, and hsm-kp has not its token")
	// ErrUnknownClient reports a client that the directory does not know.
	ErrUnknownClient = errors.New("the directory does not know the client")
	// ErrAnswer reports an answer that is not what the directory's kind answers.
	ErrAnswer = errors.New("the directory's answer is not understood")
	// ErrUnreachable reports a directory that did not take something in time, and may
	// take it later.
	ErrUnreachable = errors.New("the directory did not take it in time")
)

// StatusError is a status that a directory answered with, other than success. Is says of the
// errors above which one it is.
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
