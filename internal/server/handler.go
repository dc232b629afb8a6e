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

// Handler serves the API, grpc.health.v1, and /healthz and /readyz. ready reports whether
// the token and the store can be used; what it says is for operators, and is not shown. The
// health of the process and of the service is told to any caller that the listener lets in.
func (s *Server) Handler(ready func(context.Context) error) http.Handler {
	ready = (&readiness{of: ready}).ask
	mux := http.NewServeMux()
	path, api := hsmkpv1connect.NewKeyPackageServiceHandler(s,
		connect.WithInterceptors(s.interceptor()),
		connect.WithReadMaxBytes(s.Limits.MessageBytes),
		connect.WithRecover(s.recovered),
		// An answer has secrets beside what others chose, whose length would tell of them.
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
	_, _ = w.Write([]byte(text)) // whoever asked is gone where it fails
}

// readyFor is how long what is known of the token and the store counts.
const readyFor = time.Second

// readiness asks how token and store are once in readyFor, however often it is asked: whoever
// may connect may ask.
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
	r.err = r.of(context.WithoutCancel(ctx)) // the answer is others' too
	r.at = time.Now()
	return r.err
}

// recovered ends a request that met a fault of ours, and not the process.
func (s *Server) recovered(_ context.Context, spec connect.Spec, _ http.Header, fault any) error {
	s.Log.Error("panic", "procedure", spec.Procedure, "fault", fault)
	return connectError(errInternal)
}

type callerKey struct{}

// withCaller puts into the context who the connection is with.
func withCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, served(r))))
	})
}

// callerFrom returns who the connection is with; the zero Caller is nobody.
func callerFrom(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// health is grpc.health.v1 over a function.
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
