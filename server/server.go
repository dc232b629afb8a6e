// Package server is the network service: the operations of api/hsmkp/v1 over mutual TLS and
// Unix sockets, for callers that the config knows, and each within what it grants them.
//
// Nothing is open by default. A request is admitted by a Rule that names its caller, its
// operation and its identity; whatever else comes is refused, and the audit trail says so.
package server

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/hsm-kp/hsm-kp/identity"
	"github.com/hsm-kp/hsm-kp/inventory"
	"github.com/hsm-kp/hsm-kp/store"
)

// Config is what a Server works with. All fields are required, unless they say otherwise.
type Config struct {
	Inventory *inventory.Inventory
	// OpenIdentity finds the key of an identity's record in the token, and refuses a record
	// that was changed. What it returns is kept for as long as the record is the same.
	OpenIdentity func(context.Context, *store.Identity) (*identity.Identity, error)
	// Policy is what the config says of the key packages of an identity.
	Policy func(name string) (identity.Policy, error)
	// Custody is where the private keys of an identity's key packages are kept.
	Custody func(name string) string
	// TokenFault reports whether an error means that the token cannot be used. It may be nil.
	TokenFault func(error) bool
	// Rules grant what is allowed.
	Rules []Rule
	// Reservation is how long a key package stays reserved for a Welcome.
	Reservation time.Duration
	// KeepLeaf keeps the private key of a leaf once its Welcome is confirmed.
	KeepLeaf bool
	Limits   Limits
	Log      *slog.Logger
	// Pages are served beside the API to callers that are granted them. There may be none.
	Pages []Page
	// Observe is told of each request once it has ended, or nil.
	Observe func(Request)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Limits bound what callers can ask for.
type Limits struct {
	// MessageBytes is the longest request, 1 or more.
	MessageBytes int
	// Concurrent is how many requests are worked on at once, 1 or more; those beyond it
	// are refused.
	Concurrent int
	// Batch is how many key packages one request makes, at most.
	Batch uint32
	// Request is how long one request may take.
	Request time.Duration
}

// Server answers requests. It is safe for concurrent use.
type Server struct {
	Config
	quotas   []quota // of the rules, by index
	busy     chan struct{}
	refusals refusals

	mu         sync.Mutex
	identities map[string]opened
}

// New returns a server over c.
func New(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Server{
		Config:     c,
		quotas:     make([]quota, len(c.Rules)),
		busy:       make(chan struct{}, c.Limits.Concurrent),
		refusals:   refusals{trail: c.Inventory.Store, kinds: make(map[refusal]*refused)},
		identities: make(map[string]opened),
	}
}

// Flush records the refusals that were counted and not said; it is for calling once a
// minute, and with all at the end.
func (s *Server) Flush(ctx context.Context, all bool) error {
	return s.refusals.flush(ctx, s.Now(), all)
}

// RefuseHandshake records that a connection was refused before there was a request: without
// a certificate, or with one that is not good.
func (s *Server) RefuseHandshake(ctx context.Context) {
	kind := refusal{actor: nobody, what: "connect", why: "no good certificate"}
	if err := s.refusals.add(ctx, kind, s.Now()); err != nil {
		s.Log.Error("record refusal", "error", err)
	}
	s.observe(Request{Operation: "connect", Code: connect.CodeUnauthenticated.String(), Reason: "no_certificate", Refused: true})
}

// call is one request: who sent it, and what for.
type call struct {
	caller   Caller
	op       Operation
	identity string
	rule     string // that granted it
}

type callKey struct{}

// admit allows a request for an operation on an identity, and counts n of its quota. The
// context that it returns is in the caller's name.
func (s *Server) admit(ctx context.Context, op Operation, name string, n uint64) (context.Context, error) {
	c := ctx.Value(callKey{}).(*call)
	c.op, c.identity = op, name
	spent := false
	for i := range s.Rules {
		r := &s.Rules[i]
		if !r.is(c.caller) || !r.grants(op, name) {
			continue
		}
		if s.quotas[i].take(r, n, s.Now()) {
			c.rule = r.Name
			return store.WithActor(ctx, c.caller.String()), nil
		}
		spent = true
	}
	if spent {
		return nil, errQuota
	}
	return nil, errNotGranted
}

// interceptor admits as many requests at once as the limits say, gives each its time, and
// turns errors into those that callers see. It writes one line of the log a request.
func (s *Server) interceptor() connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			begun := time.Now()
			c := &call{caller: callerFrom(ctx)}
			ctx, cancel := context.WithTimeout(context.WithValue(ctx, callKey{}, c), s.Limits.Request)
			defer cancel()
			answer, err := s.limited(ctx, r, next)
			s.log(ctx, c, r.Spec().Procedure, time.Since(begun), err)
			s.ended(c, operationOf(r.Spec().Procedure), time.Since(begun), err)
			if err == nil {
				return answer, nil
			}
			return nil, connectError(s.settle(ctx, c, err))
		}
	}
}

func (s *Server) limited(ctx context.Context, r connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
		return next(ctx, r)
	default:
		return nil, errBusy
	}
}

// settle records a refusal, and returns what the caller is told.
func (s *Server) settle(ctx context.Context, c *call, err error) *fault {
	f := s.faultOf(err)
	if !f.refusedAs() {
		return f
	}
	kind := refusal{actor: c.caller.String(), what: string(c.op), why: f.message}
	if !errors.Is(err, errNotGranted) {
		kind.identity = c.identity // which the caller is granted, so that it is no text of its own
	}
	if err := s.refusals.add(ctx, kind, s.Now()); err != nil {
		s.Log.Error("record refusal", "error", err)
	}
	return f
}

// log writes one line of a request: who, what, how long, and how it ended. The error is for
// operators alone; nothing below puts a secret into one.
func (s *Server) log(ctx context.Context, c *call, procedure string, took time.Duration, err error) {
	attrs := []slog.Attr{
		slog.String("procedure", procedure), slog.String("caller", c.caller.String()),
		slog.String("identity", c.identity), slog.Duration("took", took),
	}
	level := slog.LevelInfo
	if err != nil {
		f := s.faultOf(err)
		attrs = append(attrs, slog.String("code", f.code.String()), slog.String("reason", f.reason.String()), slog.String("error", err.Error()))
		level = slog.LevelWarn
	}
	s.Log.LogAttrs(ctx, level, "request", attrs...)
}
