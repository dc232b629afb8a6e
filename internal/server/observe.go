package server

import (
	"strings"
	"time"

	"github.com/hsm-kp/hsm-kp/internal/act"
)

// Request is a request that has ended, as Config.Observe is told of it. Its texts are those
// of this package and of the config, and none of a caller's: they are few.
type Request struct {
	Operation act.Act // "connect" for a connection that was refused before there was one
	Rule      string  // that granted it; empty where none did
	Code      string  // of gRPC, such as "permission_denied"; "ok" where it was done
	Reason    string  // of the API, such as "not_granted"; empty where it has none
	Refused   bool    // the service would not do it; otherwise it failed, where Code is not "ok"
	Took      time.Duration
}

func (s *Server) observe(r Request) {
	if s.Observe != nil {
		s.Observe(r)
	}
}

// ended tells whoever observes how a request ended.
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

// Busy returns how many requests of the API are worked on, and how many may be at once.
func (s *Server) Busy() (now, limit int) { return len(s.busy), cap(s.busy) }
