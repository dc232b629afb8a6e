package server

import (
	"context"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"

	"github.com/hsm-kp/hsm-kp/api/hsmkp/v1/hsmkpv1connect"
)

// Handler serves the API, grpc.health.v1, and /healthz and /readyz. ready reports whether the token
// and the store can be used; its error is for operators and is not shown. Any caller that the
// listener accepts may ask for the health of the process and of the service.
func (s *Server) Handler(ready func(context.Context) error) http.Handler {
	ready = (&readiness{of: ready}).ask
	mux := http.NewServeMux()
	path, api := hsmkpv1connect.NewKeyPackageServiceHandler(s,
		connect.WithInterceptors(s.interceptor()),
		connect.WithReadMaxBytes(s.Limits.MessageBytes),
		connect.WithRecover(s.recovered),
		// Do not compress answers: they hold secrets beside text that others chose, so their
		// compressed length would leak the secrets.
		connect.WithCompression("gzip", nil, nil),
	)
	mux.Handle(path, s.watched(api))
	mux.Handle(grpchealth.NewHandler(health(ready)))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := ready(r.Context()); err != nil {
			s.Log.Warn("not ready", "error", err)
			say(w, http.StatusServiceUnavailable, "not ready\n")
			return
		}
		say(w, http.StatusOK, "ready\n")
	})
	for _, p := range s.Pages {
		mux.Handle("GET "+p.Path, s.guard(p))
	}
	return withCaller(mux)
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // it fails only if the client has gone
}

// readyFor is how long an answer about the token and the store stays valid.
const readyFor = time.Second

// readiness checks the token and the store at most once in readyFor, however many clients ask:
// anyone who can connect may ask.
type readiness struct {
	of func(context.Context) error

	mu  sync.Mutex
	at  time.Time
	err error
}

func (r *readiness) ask(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) < readyFor {
		return r.err
	}
	r.err = r.of(context.WithoutCancel(ctx)) // others wait for the answer too
	r.at = time.Now()
	return r.err
}

// recovered turns a panic into the failure of one request. The process goes on.
func (s *Server) recovered(_ context.Context, spec connect.Spec, _ http.Header, fault any) error {
	s.Log.Error("panic", "procedure", spec.Procedure, "fault", fault)
	return connectError(errInternal)
}

type callerKey struct{}

// withCaller puts the connection's caller into the context.
func withCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, served(r))))
	})
}

// callerFrom returns the connection's caller, or the zero Caller if there is none.
func callerFrom(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// health implements grpc.health.v1 with a function.
type health func(context.Context) error

// Check implements grpchealth.Checker.
func (h health) Check(ctx context.Context, r *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if r.Service != "" && r.Service != hsmkpv1connect.KeyPackageServiceName {
		return nil, connect.NewError(connect.CodeNotFound, nil)
	}
	if h(ctx) != nil {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}
