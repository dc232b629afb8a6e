package server

import (
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/act"
)

// Request is a request that has ended, as Config.Observe gets it. Its texts come from this package
// and the config, never from a caller, so that there are few of them.
type Request struct {
	Operation act.Act // "connect" for a connection that was refused before a request
	Rule      string  // that granted it; empty if none did
	Code      string  // of gRPC, such as "permission_denied"; "ok" if it succeeded
	Reason    string  // of the API, such as "not_granted"; empty if it has none
	Refused   bool    // the service would not do it; otherwise, it failed if Code is not "ok"
	Took      time.Duration
}

func (s *Server) observe(r Request) {
	if s.Observe != nil {
		s.Observe(r)
	}
}

// ended passes a request that has ended to Config.Observe.
func (s *Server) ended(c *call, op act.Act, took time.Duration, err error) {
	if s.Observe == nil {
		return
	}
	r := Request{Operation: op, Rule: c.rule, Code: "ok", Took: took}
	if err != nil {
		f := s.faultOf(err)
		r.Code, r.Refused = f.code.String(), f.refused
		r.Reason = strings.ToLower(strings.TrimPrefix(f.reason.String(), "REASON_"))
		if f.reason == 0 {
			r.Reason = ""
		}
	}
	s.Observe(r)
}

// Busy returns how many requests of the API are running, and how many may run at once.
func (s *Server) Busy() (now, limit int) { return len(s.busy), cap(s.busy) }
