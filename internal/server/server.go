// Package server is the network service: the operations of api/hsmkp/v1 over mutual TLS and Unix
// sockets, for callers that the config knows, each within its grants.
//
// Nothing is open by default. A Rule admits a request by its caller, its operation and its
// identity; all other requests are refused and recorded in the audit trail.
package server

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/time/rate"

	"github.com/hsm-kp/hsm-kp/internal/act"
	"github.com/hsm-kp/hsm-kp/internal/audit"
	"github.com/hsm-kp/hsm-kp/internal/identity"
	"github.com/hsm-kp/hsm-kp/internal/inventory"
	"github.com/hsm-kp/hsm-kp/internal/operator"
	"github.com/hsm-kp/hsm-kp/internal/store"
)

// Operator carries out what the service grants; *operator.Operator implements it. It returns the
// errors of the acts.
type Operator interface {
	KeyPackage(ctx context.Context, ref []byte) (store.KeyPackage, error)
	KeyPackages(ctx context.Context, f store.Filter) (iter.Seq2[store.KeyPackage, error], error)
	Generate(ctx context.Context, r operator.GenerateRequest) (operator.GenerateResult, error)
	Claim(ctx context.Context, name string, n int) ([]store.KeyPackage, error)
	Publishable(ctx context.Context, name string) (uint64, error)
	PublishSome(ctx context.Context, name, directory string, n int) (operator.Publication, error)
	OpenWelcome(ctx context.Context, r operator.OpenWelcomeRequest) (*operator.OpenedWelcome, error)
	ConfirmWelcome(ctx context.Context, ref, digest []byte) (store.KeyPackage, error)
	ReleaseWelcome(ctx context.Context, ref, digest []byte) (store.KeyPackage, error)
	SignWithLabel(ctx context.Context, r operator.SignRequest) ([]byte, error)
	DecryptPathSecret(ctx context.Context, ref []byte, c inventory.Ciphertext) ([]byte, error)
	RecordRefusals(ctx context.Context, e ...audit.Entry) error
}

// Config configures a Server. All fields are required unless they say otherwise.
type Config struct {
	// Operator carries out the acts.
	Operator Operator
	// Rules grant what is allowed.
	Rules  []Rule
	Limits Limits
	Log    *slog.Logger
	// Pages are served beside the API to callers that are granted them. Optional.
	Pages []Page
	// Observe is called for each request once it has ended. Optional.
	Observe func(Request)
	// Now is the clock. The default is time.Now.
	Now func() time.Time
}

// Limits bounds what callers can ask for.
type Limits struct {
	// MessageBytes is the length of the longest request, 1 or more.
	MessageBytes int
	// Concurrent is how many requests run at once, 1 or more; further ones are refused.
	Concurrent int
	// Batch is how many key packages one request may make.
	Batch uint32
	// Request is how long one request may take, Read how long it may take to arrive.
	Request, Read time.Duration
	// Rate is how many requests are let through, for all callers together. Requests that are not
	// granted do not count.
	Rate Rate
	// Connections is how many connections each listener has at once, 1 or more; further ones wait.
	Connections int
}

// Server answers requests. It is safe for concurrent use.
type Server struct {
	Config
	quotas   []quota         // by index of the rule
	rates    []*rate.Limiter // the same
	rate     *rate.Limiter   // that of Limits
	busy     chan struct{}
	refusals refusals

	connections connections
}

// New returns a server over c.
func New(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{
		Config:      c,
		quotas:      make([]quota, len(c.Rules)),
		rate:        c.Limits.Rate.limiter(),
		busy:        make(chan struct{}, c.Limits.Concurrent),
		refusals:    refusals{record: c.Operator.RecordRefusals, kinds: make(map[refusal]*refused)},
		connections: connections{open: make(map[net.Conn]*connection)},
	}
	for _, r := range c.Rules {
		s.rates = append(s.rates, r.Rate.limiter())
	}
	return s
}

// Flush records the refusals that were only counted. The caller runs it once a minute, and with all
// set at the end.
func (s *Server) Flush(ctx context.Context, all bool) error {
	return s.refusals.flush(ctx, s.Now(), all)
}

// RefuseHandshake records that a connection was refused before its first request, and why: it had
// no certificate or a bad one.
func (s *Server) RefuseHandshake(ctx context.Context, why string) {
	s.refuse(ctx, refusal{actor: nobody, what: "connect", why: why})
	s.observe(Request{Operation: "connect", Code: connect.CodeUnauthenticated.String(), Reason: "no_certificate", Refused: true})
}

// call is one request: who sent it, and for what.
type call struct {
	caller   Caller
	op       act.Act
	identity string // set if it is a valid name
	begun    bool   // it was read and reached the interceptor
	rated    bool   // a rule's rate has let it through
	rule     string // that granted it
}

type callKey struct{}

// admit allows a request for an operation on an identity, and counts n of its quota. The context
// that it returns carries the caller's name.
func (s *Server) admit(ctx context.Context, op act.Act, name string, n uint64) (context.Context, error) {
	c := ctx.Value(callKey{}).(*call)
	c.op = op
	if identity.CheckName(name) == nil {
		c.identity = name
	}
	refused := errNotGranted
	for i := range s.Rules {
		r := &s.Rules[i]
		if !r.is(c.caller) || !r.grants(op, name) {
			continue
		}
		if refused = s.spend(c, i, n); refused == nil {
			c.rule = r.Name
			return store.WithActor(ctx, c.caller.String()), nil
		}
	}
	return nil, refused
}

// spend counts a request against the rates and the quota of its rule and of the service. Requests
// that are not granted use up nothing of those who are. A request counts once in a rate, however
// often it is admitted.
func (s *Server) spend(c *call, rule int, n uint64) *fault {
	r, now := &s.Rules[rule], s.Now()
	if !c.rated {
		if wait := take(s.rates[rule], now); wait > 0 {
			return tooMany(wait)
		}
		if wait := take(s.rate, now); wait > 0 {
			return tooMany(wait)
		}
	}
	if wait := s.quotas[rule].take(r, n, now); wait > 0 {
		return quotaSpent(wait)
	}
	c.rated = true
	return nil
}

// interceptor bounds how many requests run at once and how long each takes, and turns errors into
// those that callers see. It logs one line for each request.
func (s *Server) interceptor() connect.UnaryInterceptorFunc {
	return func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			begun := time.Now()
			c := ctx.Value(callKey{}).(*call)
			c.begun = true
			ctx, cancel := context.WithTimeout(ctx, s.Limits.Request)
			defer cancel()
			answer, err := s.limited(ctx, r, next)
			s.log(ctx, c, r.Spec().Procedure, time.Since(begun), err)
			s.ended(c, operationOf(r.Spec().Procedure), time.Since(begun), err)
			if err == nil {
				return answer, nil
			}
			return nil, connectError(s.conclude(ctx, c, err))
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

// conclude records a refusal, and returns the fault that the caller gets.
func (s *Server) conclude(ctx context.Context, c *call, err error) *fault {
	f := s.faultOf(err)
	if !f.refused {
		return f
	}
	kind := refusal{actor: c.caller.String(), what: string(c.op), why: f.message}
	if !errors.Is(err, errNotGranted) {
		kind.identity = c.identity // granted to the caller, so not a text that it chose
	}
	s.refuse(ctx, kind)
	return f
}

// refuse records a refusal. The request stays refused if the trail cannot record it.
func (s *Server) refuse(ctx context.Context, kind refusal) {
	if err := s.refusals.add(ctx, kind, s.Now()); err != nil {
		s.Log.Error("record refusal", "error", err)
	}
}

// log writes one line for a request: who, what, how long, and how it ended. The error is for
// operators alone; no package below puts a secret into one.
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
