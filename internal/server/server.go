// Package server is the network service: the operations of api/hsmkp/v1 over mutual TLS and
// Unix sockets, for callers that the config knows, and each within what it grants them.
//
// Nothing is open by default. A request is admitted by a Rule that names its caller, its
// operation and its identity; whatever else comes is refused, and the audit trail says so.
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

// Operator carries out what the service grants; *operator.Operator is one. Its errors are those of
// the acts.
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

// Config is what a Server works with. All fields are required, unless they say otherwise.
type Config struct {
	// Operator carries out the acts.
	Operator Operator
	// Rules grant what is allowed.
	Rules  []Rule
	Limits Limits
	Log    *slog.Logger
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
	// Request is how long one request may take, Read how long it may take to arrive.
	Request, Read time.Duration
	// Rate is how many requests are let through, of all callers together; those that are
	// not granted do not count.
	Rate Rate
	// Connections is how many connections each listener has at once, 1 or more; those
	// beyond it wait.
	Connections int
}

// Server answers requests. It is safe for concurrent use.
type Server struct {
	Config
	quotas   []quota         // of the rules, by index
	rates    []*rate.Limiter // the same
	rate     *rate.Limiter   // of the limits
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

// Flush records the refusals that were counted and not said; it is for calling once a
// minute, and with all at the end.
func (s *Server) Flush(ctx context.Context, all bool) error {
	return s.refusals.flush(ctx, s.Now(), all)
}

// RefuseHandshake records that a connection was refused before there was a request, and why:
// without a certificate, or with one that is not good.
func (s *Server) RefuseHandshake(ctx context.Context, why string) {
	s.refuse(ctx, refusal{actor: nobody, what: "connect", why: why})
	s.observe(Request{Operation: "connect", Code: connect.CodeUnauthenticated.String(), Reason: "no_certificate", Refused: true})
}

// call is one request: who sent it, and what for.
type call struct {
	caller   Caller
	op       act.Act
	identity string // where it is a name at all
	begun    bool   // it was read, and came to the interceptor
	rated    bool   // a rule's rate has let it through
	rule     string // that granted it
}

type callKey struct{}

// admit allows a request for an operation on an identity, and counts n of its quota. The
// context that it returns is in the caller's name.
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

// spend takes a request from what a rule, and the service, allow; what is not granted takes
// nothing from those who are. It is one request of a rate, however often it is admitted.
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

// interceptor admits as many requests at once as the limits say, gives each its time, and
// turns errors into those that callers see. It writes one line of the log a request.
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
	if !f.refused {
		return f
	}
	kind := refusal{actor: c.caller.String(), what: string(c.op), why: f.message}
	if !errors.Is(err, errNotGranted) {
		kind.identity = c.identity // which the caller is granted, so that it is no text of its own
	}
	s.refuse(ctx, kind)
	return f
}

// refuse records a refusal. That it cannot is no reason to do what was refused.
func (s *Server) refuse(ctx context.Context, kind refusal) {
	if err := s.refusals.add(ctx, kind, s.Now()); err != nil {
		s.Log.Error("record refusal", "error", err)
	}
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
