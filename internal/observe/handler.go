package observe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes is how many scrapes run at once.
const maxScrapes = 8

// Metrics serves the metrics, in the formats that Prometheus reads.
func (o *Observer) Metrics() http.Handler {
	return guarded(promhttp.HandlerFor(o.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes, ErrorHandling: promhttp.ContinueOnError}))
}

// Handler serves /metrics, /status, /healthz and /readyz to anyone. It is for listeners that only
// this machine can reach: see Serve.
func (o *Observer) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", o.Metrics())
	mux.Handle("GET /status", o.Status())
	mux.Handle("GET /{$}", http.RedirectHandler("/status", http.StatusSeeOther))
	mux.Handle("GET /healthz", guarded(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok\n") })))
	mux.Handle("GET /readyz", guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if o.Ready(r.Context()) != nil {
			say(w, http.StatusServiceUnavailable, "not ready\n")
			return
		}
		say(w, http.StatusOK, "ready\n")
	})))
	return localHost(mux)
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // it fails only if the client has gone
}

// guarded forbids browsers to cache the page, to load anything for it and to show it in a frame.
func guarded(next http.Handler) http.Handler { return guardedBy("default-src 'none'", next) }

func guardedBy(policy string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy+"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// localHost refuses requests over TCP for a host of another name. A foreign page in a browser on
// this machine can make its own name resolve to this machine (DNS rebinding) and would read the
// answer; it cannot do that with a local name.
func localHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, tcp := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr); tcp && !isLocal(r.Host) {
			say(w, http.StatusMisdirectedRequest, "this is served to localhost alone\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func isLocal(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// errFar reports a listener that other machines can reach.
var errFar = errors.New("other machines can reach it, and it does not authenticate callers")

// Limits of connections.
const (
	headerTimeout = 5 * time.Second
	answerTimeout = time.Minute
	maxHeader     = 16 << 10
)

// Serve serves on all listeners until ctx ends, and then closes them. They must be Unix sockets or
// have loopback addresses.
func Serve(ctx context.Context, h http.Handler, listeners ...net.Listener) error {
	for _, l := range listeners {
		if a, tcp := l.Addr().(*net.TCPAddr); tcp && !a.IP.IsLoopback() {
			return errFar
		}
	}
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: answerTimeout, IdleTimeout: answerTimeout, MaxHeaderBytes: maxHeader,
	}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- server.Serve(l) }()
	}
	var fault error
	select {
	case <-ctx.Done():
	case fault = <-failed:
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), headerTimeout)
	defer cancel()
	if err := server.Shutdown(end); err != nil {
		return errors.Join(fault, server.Close())
	}
	return fault
}
