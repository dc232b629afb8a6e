package server

import (
	"context"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/hsm-kp/hsm-kp/internal/act"
)

// Page is a page that is served by GET to callers that are granted its operation.
type Page struct {
	Path      string
	Operation act.Act
	Handler   http.Handler
}

// guard serves a page to callers whom a rule grants it, and refuses others as an operation of the
// API does.
func (s *Server) guard(p Page) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		c := &call{caller: callerFrom(r.Context())}
		ctx, err := s.admit(context.WithValue(r.Context(), callKey{}, c), p.Operation, everybody, 1)
		if err == nil {
			p.Handler.ServeHTTP(w, r.WithContext(ctx))
		}
		s.log(r.Context(), c, p.Path, time.Since(begun), err)
		s.ended(c, p.Operation, time.Since(begun), err)
		if err != nil {
			f := s.conclude(r.Context(), c, err)
			say(w, statusOf(f.code), f.message+"\n")
		}
	})
}

// everybody is the identity of an operation that concerns all identities: only * matches it.
const everybody = ""

// statusOf returns the HTTP status of a refusal.
func statusOf(code connect.Code) int {
	if code == connect.CodeResourceExhausted {
		return http.StatusTooManyRequests
	}
	return http.StatusForbidden
}
